"""`python -m bench.orders.bare URL CUSTOMER`: orders placed by the statements of storage/ alone, on bare asyncpg.

No HTTP, no validation, no idempotency keys, nobody to tell: what Orderwire adds to PostgreSQL's own work is measured
against it. For each line "place SECONDS" on standard input it prints what was placed, as JSON.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import orjson
import uvloop

from bench.measure import spread
from bench.orders.customers import CUSTOMERS, LINES, MOST, Placed
from bench.orders.shop import PRODUCTS, product_id
from storage.queries import load

POOL: Final = 10  # as the default of database.pool_size
_EVENT: Final = bytes(990)  # as long as what is told of an order of three products
_TAKE: Final = load("products")["change_stock"]
_ADD: Final = load("orders")["add"]
_TELL: Final = load("outbox")["add"]

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


async def _place(pool: Pool, customer: UUID, rng: random.Random) -> int:
    """One order; the pieces in it."""
    ids = [product_id(number) for number in rng.sample(range(1, PRODUCTS + 1), LINES)]
    quantities = rng.choices(range(1, MOST + 1), k=LINES)
    order_id, now = uuid4(), datetime.now(UTC)
    async with pool.acquire() as connection, connection.transaction():
        products = await connection.fetch(_TAKE, ids, [-quantity for quantity in quantities])
        lines = {row["id"]: row for row in products}
        skus, names, prices, taxes = (
            [lines[each][column] for each in ids] for column in ("sku", "name", "price", "tax_rate")
        )
        total = sum(price * quantity for price, quantity in zip(prices, quantities, strict=True))
        order = (
            *(order_id, customer, "placed", 1, "EUR", now, now, now + timedelta(days=1), "place", "customer", customer),
            *(total, None, None, None, True, " ".join(names + skus), None),
        )
        await connection.fetchval(
            _ADD,
            *([value] for value in order),
            *([order_id] * LINES, range(1, LINES + 1), ids, skus, names, prices, quantities, taxes, [0] * LINES),
        )
        await connection.execute(_TELL, [str(uuid4())], ["order.created"], [str(order_id)], [_EVENT])
    return sum(quantities)


async def _run(pool: Pool, customer: UUID, seconds: float) -> Placed:
    rng, began = random.Random(), time.perf_counter()
    times: list[float] = []
    pieces = 0

    async def one_after_the_other() -> None:
        nonlocal pieces
        while (now := time.perf_counter()) < began + seconds:
            placed = await _place(pool, customer, rng)  # not added to at once: what is added to was read before
            pieces += placed
            times.append(1000 * (time.perf_counter() - now))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CUSTOMERS):
            tasks.create_task(one_after_the_other())
    return Placed(len(times), pieces, time.perf_counter() - began, spread(times))


@asynccontextmanager
async def _pool(url: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(url, min_size=POOL, max_size=POOL, reset=_keep) as pool:
        yield pool


async def _keep(_: object) -> None:
    """As ours: to reset a session that nobody has changed is a round trip for nothing."""


async def main(url: str, customer: str) -> None:
    async with _pool(url) as pool:
        while order := (await asyncio.to_thread(sys.stdin.readline)).split():
            placed = await _run(pool, UUID(customer), float(order[1]))
            print(orjson.dumps(placed).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
