"""What reads cost until the body of the answer is there: made from PostgreSQL, as they are, and taken from Redis, as it
would be if a cache there always had them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg
from redis.asyncio import Redis

from bench.measure import Spread, spread
from bench.stage import Stage
from handlers.actor import Actor, Role
from handlers.clock import utc_now
from handlers.commands import Caller
from handlers.events import Cause
from handlers.orders import commands as orders
from handlers.orders.schemas import OrderQuery
from handlers.products import commands as products
from handlers.products.schemas import ProductQuery
from handlers.rules import Rules
from handlers.schemas import ById
from handlers.stats import commands as stats
from handlers.stats.schemas import SeriesQuery
from handlers.work import Work
from realtime.redis_client import open_redis
from storage.postgres import open_postgres
from tests.database_options import postgres_options
from tests.many_orders import STAFF, make_orders

ORDERS: Final = 50_000
TIMES: Final = 1000
WARM_UP: Final = 50

Read = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Cost:
    """`cpu`: milliseconds of the process that reads, of each time."""

    time: Spread
    cpu: float


@dataclass(frozen=True, slots=True)
class Result:
    """A body of so many bytes."""

    name: str
    size: int
    database: Cost
    redis: Cost


async def measure(stage: Stage, *, quick: bool) -> list[Result]:
    connection = await asyncpg.connect(stage.database_url)
    try:
        await make_orders(connection, ORDERS // 10 if quick else ORDERS)
        an_order = await connection.fetchval("SELECT id FROM orders ORDER BY number DESC LIMIT 1")
    finally:
        await connection.close()
    async with (
        open_postgres(postgres_options(stage.database_url)) as database,
        open_redis(stage.redis_url) as redis,
        Work(database) as work,
    ):
        reads = _reads(Caller(Actor(STAFF, Role.STAFF), Cause(utc_now()), work, Rules()), an_order)
        return [await _compare(name, read, redis, TIMES // 10 if quick else TIMES) for name, read in reads.items()]


def _reads(caller: Caller, an_order: UUID) -> Mapping[str, Read]:
    async def order() -> bytes:
        return (await orders.get(caller, ById(id=an_order))).encode()

    async def newest() -> bytes:
        return (await orders.page(caller, OrderQuery())).encode()

    async def sums() -> bytes:
        return (await stats.series(caller, SeriesQuery(per="hour"))).encode()

    async def catalogue() -> bytes:
        return (await products.page(caller, ProductQuery())).encode()

    return {"an order": order, "the newest 50 orders": newest, "sums by the hour": sums, "50 products": catalogue}


async def _compare(name: str, read: Read, redis: Redis, times: int) -> Result:
    """In turns."""
    body = await read()
    await redis.set(name, body)

    async def cached() -> bytes:
        found: bytes = await redis.get(name)  # type: ignore[assignment]  # nothing is decoded
        return found

    costs: dict[Read, tuple[list[float], list[float]]] = {read: ([], []), cached: ([], [])}
    for number in range(WARM_UP + times):
        for way, (elapsed, used) in costs.items():
            began, used_before = time.perf_counter(), time.process_time()
            if len(await way()) != len(body):
                raise ValueError(f"another body of {name}")
            if number >= WARM_UP:
                elapsed.append(1000 * (time.perf_counter() - began))
                used.append(1000 * (time.process_time() - used_before))
    database, in_redis = (Cost(spread(elapsed), sum(used) / times) for elapsed, used in costs.values())
    return Result(name, len(body), database, in_redis)
