"""How long staff wait for lists and sums of a million orders, over REST, one request after the other."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import aiohttp
import asyncpg

from bench.measure import Spread, spread
from bench.stage import Stage
from tests.many_orders import make_orders

ORDERS: Final = 1_000_000
REQUESTS: Final = 300  # of each kind, no two alike where there is something to choose
GOAL: Final = 50.0  # milliseconds that 99 of 100 have to stay below
WARM_UP: Final = 20

Query = Mapping[str, str | int]
Asked = Callable[[random.Random], tuple[str, Query]]


@dataclass(frozen=True, slots=True)
class Result:
    """`failed` counts what was not answered 200."""

    name: str
    requests: int
    failed: int
    time: Spread

    @property
    def is_good(self) -> bool:
        """The goal is a matter of the machine."""
        return self.failed == 0


async def measure(stage: Stage, *, quick: bool) -> list[Result]:
    orders, requests = (20_000, 30) if quick else (ORDERS, REQUESTS)
    connection = await asyncpg.connect(stage.database_url)
    try:
        await make_orders(connection, orders)
    finally:
        await connection.close()
    headers = {"Authorization": f"Bearer {stage.shop.staff_token}"}
    async with aiohttp.ClientSession(stage.node.base_url, headers=headers) as session:
        await _until_added_up(session)
        return [await _ask(session, name, asked, requests) for name, asked in _kinds(orders).items()]


def _kinds(orders: int) -> Mapping[str, Asked]:
    customers, products = orders // 20, orders // 1000

    def listed(asked: Callable[[random.Random], Query]) -> Asked:
        return lambda rng: ("/api/v1/orders", asked(rng))

    def a_day(rng: random.Random) -> datetime:
        return datetime.now(UTC) - timedelta(seconds=rng.randrange(orders))

    def day(rng: random.Random) -> Query:
        begin = a_day(rng)
        return {"created_from": _text(begin), "created_before": _text(begin + timedelta(days=1))}

    def since(rng: random.Random, days: int) -> Query:
        return {"before": _text(a_day(rng) + timedelta(days=days))}

    return {
        "newest": listed(lambda _: {}),
        "of a customer": listed(
            lambda rng: {"customer_id": f"00000000-0000-0000-0000-{rng.randrange(3, customers):012x}"}
        ),
        "of a frequent status, dearest first": listed(lambda _: {"status": "delivered", "sort": "-total"}),
        "of two rare statuses, changed last": listed(lambda _: {"status": "placed,expired", "sort": "-updated"}),
        "of a day, newest": listed(day),
        "of a day, oldest first": listed(lambda rng: {**day(rng), "sort": "created"}),
        "above a total, newest": listed(lambda rng: {"total_from": 500 * rng.randrange(40, 50)}),
        "a word of every fifth order": listed(lambda rng: {"q": rng.choice(["copper", "glass", "enamel"])}),
        "a name": listed(lambda rng: {"q": f"ada family{8 * rng.randrange(customers // 64)}"}),
        "a SKU and a status": listed(lambda rng: {"q": f"SKU-{rng.randrange(1, products)}", "status": "cancelled"}),
        "a word that nothing has": listed(lambda rng: {"q": f"nothing{rng.randrange(10**6)}"}),
        "a number": listed(lambda rng: {"q": f"#{rng.randrange(1, orders)}"}),
        "what orders come to": lambda _: ("/api/v1/stats/orders", {}),
        "thirty days, by the day": lambda rng: ("/api/v1/stats/orders/series", {"per": "day", **since(rng, 15)}),
        "four hundred hours": lambda rng: (
            "/api/v1/stats/orders/series",
            {"per": "hour", "since": _text(begin := a_day(rng)), "before": _text(begin + timedelta(hours=399))},
        ),
    }


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


async def _until_added_up(session: aiohttp.ClientSession) -> None:
    """As in a shop that was not filled a moment ago: nothing waits to be added up."""
    version = -1
    while True:
        async with session.get("/api/v1/stats/orders") as answer:
            last, version = version, (await answer.json())["version"]
        if version == last > 0:
            return
        await asyncio.sleep(3)


async def _ask(session: aiohttp.ClientSession, name: str, asked: Asked, requests: int) -> Result:
    rng = random.Random(name)
    times: list[float] = []
    failed = 0
    for number in range(WARM_UP + requests):
        path, query = asked(rng)
        began = time.perf_counter()
        async with session.get(path, params=query) as answer:
            await answer.read()
        if number >= WARM_UP:
            times.append(1000 * (time.perf_counter() - began))
            failed += answer.status != 200
    return Result(name, requests, failed, spread(times))
