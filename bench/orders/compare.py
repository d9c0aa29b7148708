"""Placing orders: our server, its SQL on bare asyncpg, and the same endpoint on FastAPI, in turns on one PostgreSQL.

The process that places has the first core for itself. PostgreSQL, RabbitMQ, Redis and the customers share the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final

import orjson

from bench.children import Child, child, tell
from bench.fanout.measure import leave_first_core, own_core
from bench.fanout.peers import Peer
from bench.measure import Spread, spread
from bench.orders.customers import Placed
from bench.orders.shop import Books, books, fill, open_another
from bench.processes import cpu_seconds, leave_first_core_to_others
from bench.stage import Listeners, Stage, open_listeners
from tests.torture.stage import SECRET

OURS: Final = "Orderwire"
BARE: Final = "its SQL on bare asyncpg"
FASTAPI: Final = "FastAPI"
GOALS: Final = {BARE: 0.5, FASTAPI: 1.3}
"""How many orders we place for one of theirs, at least."""
READ_GOAL: Final = 15.0  # milliseconds that 99 of 100 reads have to stay below
READS: Final = 20  # a second, of each kind
REPEATS, SECONDS, WARM_UP = 7, 5.0, 2.0
READ_REPEATS, READ_SECONDS = 5, 10.0


@dataclass(frozen=True, slots=True)
class Round:
    """Of one contender. Seconds of one core of its process and of PostgreSQL until all was told of what was placed;
    `behind`: how many seconds after the last answer that was. `lost`: orders or pieces of which PostgreSQL or the
    listener knows nothing, and orders that were refused."""

    name: str
    placed: Placed
    cpu: float
    database_cpu: float
    server_cpu: float
    behind: float
    lost: int


@dataclass(frozen=True, slots=True)
class Contender:
    """Medians of its rounds; `ratio` is the median of those of two neighbours, ours to this one's."""

    name: str
    per_second: float
    ratio: float
    milliseconds: float
    database_milliseconds: float
    server_cpu: float
    time: Spread
    behind: float
    lost: int


@dataclass(frozen=True, slots=True)
class Reads:
    """Of one kind, in all rounds; `time` is the median of theirs, and the longest of all."""

    name: str
    requests: int
    time: Spread


@dataclass(frozen=True, slots=True)
class Result:
    """`offered`: orders a second that were placed while it was read, in the middle."""

    contenders: Sequence[Contender]
    offered: float
    reads: Sequence[Reads]
    lost: int

    @property
    def is_good(self) -> bool:
        """The goals are a matter of the machine."""
        return self.lost == 0


@dataclass(slots=True)
class _Running:
    """A contender; `worker` is told to place. What was answered so far is what PostgreSQL has to know."""

    name: str
    pid: int
    database_pid: int
    url: str
    before: Books
    worker: Child
    listeners: Listeners | None = None
    orders: int = 0
    pieces: int = 0

    async def round(self, order: str) -> Round:
        used = self._cpu()
        began = time.monotonic()
        placed = Placed.parse(await asyncio.to_thread(tell, self.worker, order))
        ended, busy = time.monotonic(), cpu_seconds(self.pid) - used[0]
        unheard = (
            0 if self.listeners is None else placed.orders - min((await self.listeners.finish(placed.orders)).heard)
        )
        behind = time.monotonic() - ended
        cpu, database_cpu = (now - then for now, then in zip(self._cpu(), used, strict=True))
        self.orders += placed.orders
        self.pieces += placed.pieces
        known = (await books(self.url)).since(self.before)
        lost = abs(unheard) + self._missing(known) + placed.refused
        return Round(self.name, placed, cpu, database_cpu, busy / (ended - began), behind, lost)

    def _cpu(self) -> tuple[float, float]:
        return cpu_seconds(self.pid), cpu_seconds(self.database_pid)

    def _missing(self, known: Books) -> int:
        return abs(known.orders - self.orders) + abs(known.ordered - self.pieces) + abs(known.taken - self.pieces)


async def measure(stage: Stage, *, quick: bool) -> Result:
    """Raises tests.services.server.Unavailable where the peer cannot be had, ConnectionError for an order refused."""
    repeats, seconds = (2, 2.0) if quick else (REPEATS, SECONDS)
    leave_first_core()
    leave_first_core_to_others(stage.services)
    own_core(stage.node.pid)
    async with _contenders(stage) as contenders:
        for each in contenders:
            await each.round(f"place {WARM_UP}")
        rounds: list[list[Round]] = []
        for number in range(repeats):
            # There and back again: each is as often early as late.
            turn = contenders if number % 2 == 0 else contenders[::-1]
            rounds.append([await each.round(f"place {seconds}") for each in turn])
        compared = [contender(each.name, rounds) for each in contenders]
        read_repeats, read_seconds = (1, 4.0) if quick else (READ_REPEATS, READ_SECONDS)
        offered, reads, lost = await _read(stage, contenders[0], seconds, read_repeats, read_seconds)
    return Result(compared, offered, reads, lost + sum(each.lost for each in compared))


@asynccontextmanager
async def _contenders(stage: Stage) -> AsyncIterator[Sequence[_Running]]:
    """Ours is the first."""
    tokens = [customer.token for customer in stage.shop.customers]
    async with AsyncExitStack() as stack:
        bare_url, peer_url = [await open_another(stage.database_url, name) for name in ("bare", "fastapi")]
        for url in (stage.database_url, bare_url, peer_url):
            await fill(url)
        before = [await books(url) for url in (stage.database_url, bare_url, peer_url)]
        environment = {"DATABASE_URL": peer_url, "TOKEN_SECRET": SECRET}
        peer = await asyncio.to_thread(Peer, "fastapi_orders.py", environment)
        stack.callback(peer.close)
        await asyncio.to_thread(peer.start)
        own_core(peer.pid)
        bare = stack.enter_context(child("bench.orders.bare", bare_url, stage.shop.customers[0].id))
        own_core(bare.pid)
        customers = [
            stack.enter_context(child("bench.orders.customers", str(port), *tokens))
            for port in (stage.node.port, peer.port)
        ]
        listeners = await stack.enter_async_context(open_listeners(stage, 1, samples=1))
        database = stage.services[0]
        yield [
            _Running(OURS, stage.node.pid, database, stage.database_url, before[0], customers[0], listeners),
            _Running(BARE, bare.pid, database, bare_url, before[1], bare),
            _Running(FASTAPI, peer.pid, database, peer_url, before[2], customers[1]),
        ]


async def _read(
    stage: Stage, ours: _Running, place_seconds: float, repeats: int, seconds: float
) -> tuple[float, Sequence[Reads], int]:
    """Beside half of what was placed right before: an hour's machine is not that of the next minute."""
    lists, orders, placed, offers = [], [], [], []
    with child("bench.orders.readers", str(stage.node.port), stage.shop.staff_token) as readers:
        await asyncio.to_thread(tell, readers, f"read {READS} 1")
        for _ in range(repeats):
            placed.append(await ours.round(f"place {place_seconds}"))
            rate = round(_per_second(placed[-1]) / 2)
            offering = asyncio.create_task(ours.round(f"offer {rate} {seconds}"))
            found = orjson.loads(await asyncio.to_thread(tell, readers, f"read {READS} {seconds}"))
            offers.append(await offering)
            lists.append(found["lists"])
            orders.append(found["orders"])
    reads = [
        Reads("the newest 50", sum(map(len, lists)), _middle([spread(times) for times in lists])),
        Reads("one of them", sum(map(len, orders)), _middle([spread(times) for times in orders])),
        Reads(
            "placed meanwhile",
            sum(each.placed.orders for each in offers),
            _middle([each.placed.time for each in offers]),
        ),
    ]
    return median(map(_per_second, offers)), reads, sum(each.lost for each in [*placed, *offers])


def contender(name: str, rounds: Sequence[Sequence[Round]]) -> Contender:
    """Each round is one of each contender, in whatever order."""
    found = [{each.name: each for each in turn} for turn in rounds]
    own = [turn[name] for turn in found]

    def middle(number: Callable[[Round], float]) -> float:
        return median(map(number, own))

    return Contender(
        name,
        middle(_per_second),
        median(_per_second(turn[OURS]) / _per_second(turn[name]) for turn in found),
        middle(lambda each: 1000 * each.cpu / each.placed.orders),
        middle(lambda each: 1000 * each.database_cpu / each.placed.orders),
        middle(lambda each: each.server_cpu),
        _middle([each.placed.time for each in own]),
        middle(lambda each: each.behind),
        sum(each.lost for each in own),
    )


def _middle(spreads: Sequence[Spread]) -> Spread:
    """Medians, and the longest of all."""
    return Spread(
        median(each.p50 for each in spreads),
        median(each.p99 for each in spreads),
        max(each.longest for each in spreads),
    )


def _per_second(each: Round) -> float:
    return each.placed.orders / each.placed.seconds
