"""FastAPI on asyncpg: an order is placed in one transaction, with a row in an outbox that nobody empties.

The tables, the body and the answer are Orderwire's: the first answer to a key is kept, an order has a history, and what
is sold is counted. There are no drafts and no discounts.
"""

from __future__ import annotations

import hashlib
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
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

EXPIRES_AFTER = timedelta(days=1)


class ItemIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    product_id: UUID
    quantity: Annotated[int, Field(ge=1, le=1000)]


class Address(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)]
    line1: Annotated[str, Field(min_length=1, max_length=200)]
    line2: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    postal_code: Annotated[str, Field(min_length=1, max_length=20)] | None = None
    city: Annotated[str, Field(min_length=1, max_length=100)]
    region: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")]


class OrderIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[ItemIn], Field(min_length=1, max_length=50)]
    address: Address | None = None
    note: Annotated[str, Field(min_length=1, max_length=1000)] | None = None


class LineOut(BaseModel):
    product_id: UUID
    sku: str
    name: str
    unit_price: int
    quantity: int
    tax_rate: int
    discount: int
    total: int


class TaxOut(BaseModel):
    rate: int
    net: int
    amount: int


class OrderOut(BaseModel):
    id: UUID
    number: int
    customer_id: UUID
    status: str
    version: int
    currency: str
    items: list[LineOut]
    subtotal: int
    discount_code: str | None
    discount: int
    taxes: list[TaxOut]
    tax_included: bool
    total: int
    refunded: int
    address: Address | None
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
async def place(
    wanted: OrderIn,
    customer_id: Annotated[UUID, Depends(customer)],
    request: Request,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> OrderOut:
    async with request.app.state.pool.acquire() as connection, connection.transaction():
        fingerprint = hashlib.sha256(wanted.model_dump_json().encode()).digest()
        if idempotency_key is not None:
            answered = await claim(connection, customer_id, idempotency_key, fingerprint)
            if answered is not None:
                return Response(answered, status_code=201, media_type="application/json")
        products = await take(connection, wanted.items)
        order = made(wanted, customer_id, products)
        order.number = await insert(connection, order)
        await connection.execute(
            "INSERT INTO outbox (event_id, type, subject, body) VALUES ($1, 'order.created', $2, $3)",
            *event(order),
        )
        body = order.model_dump_json().encode()
        if idempotency_key is not None:
            await connection.execute(
                "INSERT INTO idempotency_answers (account_id, key, fingerprint, status, body)"
                " VALUES ($1, $2, $3, 201, $4)",
                customer_id,
                idempotency_key,
                fingerprint,
                body,
            )
    return Response(body, status_code=201, media_type="application/json")


async def claim(connection, customer_id, key, fingerprint):
    if not await connection.fetchval(
        "SELECT pg_try_advisory_xact_lock(hashtext($1), hashtext($2))", str(customer_id), key
    ):
        raise HTTPException(409, "A request with this key is being worked on")
    row = await connection.fetchrow(
        "SELECT fingerprint, body FROM idempotency_answers WHERE account_id = $1 AND key = $2", customer_id, key
    )
    if row is None:
        return None
    if row["fingerprint"] != fingerprint:
        raise HTTPException(422, "This key was used for another request")
    return row["body"]


async def take(connection, items):
    rows = await connection.fetch(
        "SELECT id, sku, name, price, currency, stock, tax_rate FROM products"
        " WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE",
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
    total = sum(line.total for line in lines)
    return OrderOut(
        id=uuid4(),
        number=0,
        customer_id=customer_id,
        status="placed",
        version=1,
        currency=products[wanted.items[0].product_id]["currency"],
        items=lines,
        subtotal=total,
        discount_code=None,
        discount=0,
        taxes=taxes(lines),
        tax_included=True,
        total=total,
        refunded=0,
        address=wanted.address,
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
        tax_rate=product["tax_rate"],
        discount=0,
        total=product["price"] * item.quantity,
    )


def taxes(lines):
    totals = {}
    for line in lines:
        if line.tax_rate:
            totals[line.tax_rate] = totals.get(line.tax_rate, 0) + line.total
    return [tax(rate, total) for rate, total in sorted(totals.items())]


def tax(rate, total):
    amount = round(total * rate / (10_000 + rate))
    return TaxOut(rate=rate, net=total - amount, amount=amount)


async def insert(connection, order):
    number = await connection.fetchval(
        """
        INSERT INTO orders (
            id, customer_id, status, version, currency, created_at, updated_at, expires_at, total, note, address, search
        )
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $12::jsonb, order_words(name, email, $11, $12::jsonb)
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
        None if order.address is None else order.address.model_dump_json(),
    )
    await connection.executemany(
        "INSERT INTO order_lines (order_id, line, product_id, sku, name, unit_price, quantity, tax_rate)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        [
            (order.id, position, line.product_id, line.sku, line.name, line.unit_price, line.quantity, line.tax_rate)
            for position, line in enumerate(order.items, 1)
        ],
    )
    await connection.execute(
        "INSERT INTO order_changes (order_id, version, action, status, changed_at, changed_by, account_id)"
        " VALUES ($1, 1, 'place', 'placed', $2, 'customer', $3)",
        order.id,
        order.created_at,
        order.customer_id,
    )
    await connection.execute(
        "INSERT INTO order_deltas (created_at, currency, status, orders, total) VALUES ($1, $2, 'placed', 1, $3)",
        order.created_at,
        order.currency,
        order.total,
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
