"""FastAPI on asyncpg: an order is placed in one transaction, with a row in an outbox that nobody empties.

The tables are Orderwire's. There are no idempotency keys, no history of an order, and nothing is added up."""

from __future__ import annotations

import json
import os
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid4

import asyncpg
import jwt
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

EXPIRES_AFTER = timedelta(days=1)


class ItemIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    product_id: UUID
    quantity: Annotated[int, Field(ge=1, le=1000)]


class OrderIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[ItemIn], Field(min_length=1, max_length=50)]
    note: Annotated[str, Field(min_length=1, max_length=1000)] | None = None


class LineOut(BaseModel):
    product_id: UUID
    sku: str
    name: str
    unit_price: int
    quantity: int
    total: int


class OrderOut(BaseModel):
    id: UUID
    number: int
    customer_id: UUID
    status: str
    version: int
    currency: str
    items: list[LineOut]
    total: int
    note: str | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime


@asynccontextmanager
async def lifespan(app):
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=10, max_size=10) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)
bearer = HTTPBearer()


async def customer(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> UUID:
    try:
        claims = jwt.decode(
            credentials.credentials, os.environ["TOKEN_SECRET"], algorithms=["HS256"], issuer="orderwire"
        )
        return UUID(claims["sub"])
    except (jwt.InvalidTokenError, KeyError, ValueError):
        raise HTTPException(401, "Not a valid token") from None


@app.post("/api/v1/orders", status_code=201)
async def place(wanted: OrderIn, customer_id: Annotated[UUID, Depends(customer)], request: Request) -> OrderOut:
    async with request.app.state.pool.acquire() as connection, connection.transaction():
        products = await take(connection, wanted.items)
        order = made(wanted, customer_id, products)
        order.number = await insert(connection, order)
        await connection.execute(
            "INSERT INTO outbox (event_id, type, subject, body) VALUES ($1, 'order.created', $2, $3)",
            *event(order),
        )
    return order


async def take(connection, items):
    rows = await connection.fetch(
        "SELECT id, sku, name, price, currency, stock FROM products WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE",
        [item.product_id for item in items],
    )
    products = {row["id"]: row for row in rows}
    for item in items:
        product = products.get(item.product_id)
        if product is None:
            raise HTTPException(422, f"There is no product {item.product_id}")
        if product["stock"] < item.quantity:
            raise HTTPException(409, f"{product['stock']} of {product['sku']} are left")
    await connection.executemany(
        "UPDATE products SET stock = stock - $2 WHERE id = $1", [(item.product_id, item.quantity) for item in items]
    )
    return products


def made(wanted, customer_id, products):
    now = datetime.now(UTC)
    lines = [line(item, products[item.product_id]) for item in wanted.items]
    return OrderOut(
        id=uuid4(),
        number=0,
        customer_id=customer_id,
        status="placed",
        version=1,
        currency=products[wanted.items[0].product_id]["currency"],
        items=lines,
        total=sum(line.total for line in lines),
        note=wanted.note,
        created_at=now,
        updated_at=now,
        expires_at=now + EXPIRES_AFTER,
    )


def line(item, product):
    return LineOut(
        product_id=product["id"],
        sku=product["sku"],
        name=product["name"],
        unit_price=product["price"],
        quantity=item.quantity,
        total=product["price"] * item.quantity,
    )


async def insert(connection, order):
    number = await connection.fetchval(
        """
        INSERT INTO orders (
            id, customer_id, status, version, currency, created_at, updated_at, expires_at, total, note, search
        )
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, order_words(name, email, $11, NULL)
        FROM accounts
        WHERE id = $2
        RETURNING number
        """,
        order.id,
        order.customer_id,
        order.status,
        order.version,
        order.currency,
        order.created_at,
        order.updated_at,
        order.expires_at,
        order.total,
        order.note,
        " ".join(f"{line.name} {line.sku}" for line in order.items),
    )
    await connection.executemany(
        "INSERT INTO order_lines (order_id, line, product_id, sku, name, unit_price, quantity)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        [
            (order.id, position, line.product_id, line.sku, line.name, line.unit_price, line.quantity)
            for position, line in enumerate(order.items, 1)
        ],
    )
    return number


def event(order):
    event_id = str(uuid4())
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": "/orders",
        "type": "order.created",
        "subject": str(order.id),
        "time": order.created_at.isoformat(),
        "data": order.model_dump(mode="json"),
    }
    return event_id, str(order.id), json.dumps(envelope).encode()


if __name__ == "__main__":
    how = {"loop": "uvloop", "http": "httptools", "access_log": False, "log_level": "warning"}
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), **how)
