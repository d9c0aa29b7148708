"""How much one node takes in and hands on, durably: events of other services, and what backends publish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from bench.children import child, crowd, report, tell
from bench.fanout.crowd import Heard
from bench.fanout.dialects import CHANNEL
from bench.fanout.measure import least, until_heard
from bench.fanout.publisher import document
from bench.measure import percentile
from bench.poster import HttpLine
from bench.processes import cpu_seconds
from bench.stage import API_KEY, Stage
from bench.wire import host_and_port

SETTINGS = """
[client]
ping_interval = 300.0

[[channel.namespaces]]
name = "bench"
history_size = 1000
history_ttl = "1h"
force_recovery = true
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "passing"
"""
CLIENTS = 100
EVENTS, EVENT_SECONDS = 3_000, 60.0  # a second; the goal is that many with nothing lost and a delay that does not grow
CALL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Calls:
    """Callers that each send a request when the one before was answered. `goal`: publications a second."""

    name: str
    method: str
    callers: int
    body: bytes
    publications: int = 1
    goal: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """`per_second`: publications that were answered for, or heard by the time the last was sent. Milliseconds: medians
    of the delay to the clients in the first and in the last third; none where nobody listens."""

    name: str
    per_second: float
    goal: int | None
    lost: int
    first_third: float | None
    last_third: float | None
    server_cpu: float

    @property
    def is_good(self) -> bool:
        grows = self.first_third and self.last_third and self.last_third > max(1.5 * self.first_third, 50.0)
        return self.lost == 0 and not grows


def _publication(channel: str) -> Mapping[str, object]:
    return {"channel": channel, "data": orjson.Fragment(document(time.time()))}


def calls() -> Sequence[Calls]:
    kept, passing = _publication(CHANNEL), _publication("passing:by")
    batch = {"commands": [{"publish": kept}] * 100, "parallel": True}
    return (
        Calls("/api/publish, 64 callers", "publish", 64, orjson.dumps(kept), goal=2_000),
        Calls("/api/publish without history, 64 callers", "publish", 64, orjson.dumps(passing)),
        Calls("/api/batch of 100, 8 callers", "batch", 8, orjson.dumps(batch), publications=100, goal=8_000),
    )


async def measure(stage: Stage, *, quick: bool) -> list[Result]:
    part = 0.2 if quick else 1.0
    events = await asyncio.to_thread(_events, stage, EVENT_SECONDS * part)
    return [events, *[await call(stage, each, CALL_SECONDS * part) for each in calls()]]


def _events(stage: Stage, seconds: float) -> Result:
    with (
        crowd(stage.node.port, "centrifuge", stage.shop.staff_token, CLIENTS) as hearing,
        child("bench.events", stage.foreign_url) as publisher,
    ):
        until_heard(hearing, int(tell(publisher, "publish 100 1")))
        used, began = cpu_seconds(stage.node.pid), time.monotonic()
        published = int(tell(publisher, f"publish {EVENTS} {seconds}"))
        elapsed = time.monotonic() - began  # a report of so many takes half a second
        in_time = report(hearing)
        heard = until_heard(hearing, published, [in_time])
        cpu = (cpu_seconds(stage.node.pid) - used) / (time.monotonic() - began)
    name = f"events from RabbitMQ to {CLIENTS} clients"
    first, last = _thirds(heard)
    return Result(name, least([in_time]) / elapsed, EVENTS, published - least(heard), first, last, cpu)


def _thirds(reports: Sequence[Heard]) -> tuple[float, float]:
    """Arrivals are in order, those of all clients together, so thirds of the list are thirds of the time."""
    delays = [delay for each in reports for delay in each.delays]
    third = max(1, len(delays) // 3)
    return 1e3 * percentile(delays[:third], 50), 1e3 * percentile(delays[-third:], 50)


async def call(stage: Stage, what: Calls, seconds: float) -> Result:
    """Raises ConnectionError for an answer that is an error."""
    host, port = host_and_port(stage.node.base_url)
    head = (
        f"POST /api/{what.method} HTTP/1.1",
        f"Host: {host}:{port}",
        f"X-API-Key: {API_KEY}",
        "Content-Type: application/json",
        f"Content-Length: {len(what.body)}",
    )
    message = "\r\n".join([*head, "", ""]).encode() + what.body
    used, began = cpu_seconds(stage.node.pid), time.monotonic()
    loop = asyncio.get_running_loop()

    async def caller() -> int:
        _, line = await loop.create_connection(HttpLine, host, port)
        answered = 0
        while time.monotonic() < began + seconds:
            answer = await line.request(message)
            if b'"error"' in answer:
                raise ConnectionError(answer[:200].decode())
            answered += what.publications
        line.close()
        return answered

    answered = sum(await asyncio.gather(*(caller() for _ in range(what.callers))))
    elapsed = time.monotonic() - began
    cpu = (cpu_seconds(stage.node.pid) - used) / elapsed
    return Result(what.name, answered / elapsed, what.goal, 0, None, None, cpu)
