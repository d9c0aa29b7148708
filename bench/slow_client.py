"""One client of 200 never reads. It has to be closed with 3008, and the others must not feel it.

Runs in pairs, calm and with the slow client, because a shared machine drifts more between minutes than the slow client
changes anything; the median of the pairs' ratios is the answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median

import aiohttp

from bench.measure import latency
from bench.poster import Poster
from bench.processes import resident_bytes
from bench.stage import Listeners, Stage, open_listeners
from bench.wire import Subscriber, host_and_port
from tests.services.metrics import counted
from tests.torture.records import ORDERS_FEED

CLIENTS = 200
PAIRS = 7
RATE = 100  # orders a second
LINES = 20  # of each order: 5 KB a publication, so that the kernel's buffers fill within seconds
SLOW = 3008
LIMIT = 1.25  # goal for the ratio of the 99th percentiles


@dataclass(frozen=True, slots=True)
class Run:
    """`p99` in milliseconds; `grown` is resident memory at its peak above its start, in bytes; `closed` counts the
    clients that the server closed with 3008."""

    p99: float
    lost: int
    grown: int
    closed: int


@dataclass(frozen=True, slots=True)
class Result:
    pairs: Sequence[tuple[Run, Run]]  # calm, slow

    @property
    def ratio(self) -> float:
        return median(slow.p99 / calm.p99 for calm, slow in self.pairs)

    @property
    def is_good(self) -> bool:
        runs = [run for pair in self.pairs for run in pair]
        return all(run.lost == 0 for run in runs) and all(
            (calm.closed, slow.closed) == (0, 1) for calm, slow in self.pairs
        )


async def measure(stage: Stage, pairs: int, seconds: float) -> Result:
    async with (
        open_listeners(stage, CLIENTS - 1) as listeners,
        Poster(stage.node.base_url, stage.shop, lines=LINES) as poster,
    ):
        await listeners.finish(len(await poster.run(RATE, 2.0)))
        done = []
        for number in range(pairs):
            # Which comes first alternates: what grows with time must not count against one of them.
            order = (False, True) if number % 2 == 0 else (True, False)
            runs = {slow: await _run(stage, listeners, poster, seconds, slow=slow) for slow in order}
            done.append((runs[False], runs[True]))
    return Result(done)


async def _run(stage: Stage, listeners: Listeners, poster: Poster, seconds: float, *, slow: bool) -> Run:
    before = resident_bytes(stage.node.pid)
    closed = await _closed(stage)
    async with _never_reading(stage, wanted=slow), asyncio.TaskGroup() as tasks:
        posting = tasks.create_task(poster.run(RATE, seconds))
        peak = before
        while not posting.done():
            peak = max(peak, resident_bytes(stage.node.pid))
            await asyncio.sleep(0.1)
        posted = posting.result()
    findings = await listeners.finish(len(posted))
    times = latency(findings.samples, await stage.committed(order.order_id for order in posted))
    lost = len(posted) * (CLIENTS - 1) - sum(findings.heard)
    return Run(times.commit.p99, lost, peak - before, await _closed(stage) - closed)


@asynccontextmanager
async def _never_reading(stage: Stage, *, wanted: bool) -> AsyncIterator[None]:
    """A subscriber that stops reading once it has joined, with the smallest receive buffer there is."""
    if not wanted:
        yield
        return
    host, port = host_and_port(stage.node.base_url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (host, port))
    transport, client = await loop.create_connection(
        lambda: Subscriber(f"{host}:{port}", stage.shop.staff_token, ORDERS_FEED), sock=raw
    )
    try:
        await client.joined
        transport.pause_reading()
        yield
    finally:
        transport.abort()


async def _closed(stage: Stage) -> int:
    """How many clients were closed as slow. Who never reads cannot be told the code, so the server is asked."""
    async with aiohttp.ClientSession() as session:
        return int(await counted(session, stage.node, "orderwire_closes_total", code=str(SLOW)))
