"""All clients lose their connections at once, miss some publications, and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from bench.measure import Spread, spread
from bench.poster import Posted, Poster
from bench.processes import resident_bytes
from bench.returners import Returned
from bench.stage import Stage, line_of, spawned
from tests.torture.records import ORDERS_FEED

CLIENTS, MISSED = 5_000, 100
GOAL = 10.0  # seconds until all are back
REPEATS = 5
RATE = 50  # REST requests/s meanwhile
CALM_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Result:
    """Milliseconds from when a REST request was due to its reply: `calm` before, `storm` while the clients came back.
    `grown`: bytes of the server's memory meanwhile."""

    clients: int
    returned: Returned
    calm: Spread
    storm: Spread
    grown: int

    @property
    def is_good(self) -> bool:
        return self.returned.recovered == self.clients


async def measure(stage: Stage, clients: int) -> Result:
    url = stage.node.base_url
    async with (
        open_returners(stage, clients) as crowd,
        Poster(url, stage.shop) as poster,
        Poster(url, stage.shop, lines=0) as reader,
    ):
        calm = await reader.run(RATE, CALM_SECONDS)
        memory = resident_bytes(stage.node.pid)
        await tell(crowd, "cut")
        await poster.run(MISSED, 1.0)
        async with asyncio.TaskGroup() as tasks:
            returning = tasks.create_task(tell(crowd, f"return {MISSED}"))
            storm: list[Posted] = []
            while not returning.done():
                storm += await reader.run(RATE, 1.0)
        returned = Returned(**orjson.loads(returning.result()))
        return Result(clients, returned, _replies(calm), _replies(storm), resident_bytes(stage.node.pid) - memory)


def _replies(posted: Iterable[Posted]) -> Spread:
    return spread([1e3 * (each.replied - each.due) for each in posted])


@asynccontextmanager
async def open_returners(stage: Stage, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    arguments = (stage.node.base_url, stage.shop.staff_token, ORDERS_FEED, str(count))
    async with spawned("bench.returners", *arguments) as (process, _):
        yield process


async def tell(process: asyncio.subprocess.Process, order: str) -> str:
    assert process.stdin is not None
    process.stdin.write(f"{order}\n".encode())
    return await line_of(process)
