"""What a client costs that is there and hears nothing, and whether thousands of them get their pings on time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import orjson

from bench.processes import cpu_seconds, resident_bytes
from bench.returners import Idled
from bench.stage import Stage
from bench.storm import open_returners, tell

CLIENTS = 15_000
GOAL = 20_000  # bytes for each
SECONDS = 60.0
ON_TIME = 25.0 + 10.0  # seconds: the interval that clients are told, and what SDKs wait beyond it


@dataclass(frozen=True, slots=True)
class Result:
    """`each`: bytes of resident memory for one client, who has a token and two subscriptions: its personal channel and
    one that all hear. `server_cpu`: of one core, while nothing happens but pings."""

    clients: int
    each: float
    idled: Idled
    server_cpu: float

    @property
    def is_good(self) -> bool:
        return self.idled.open == self.clients and self.idled.longest < ON_TIME


async def measure(stage: Stage, clients: int, seconds: float) -> Result:
    before = resident_bytes(stage.node.pid)
    async with open_returners(stage, clients) as crowd:
        await asyncio.sleep(2.0)
        each = (resident_bytes(stage.node.pid) - before) / clients
        used = cpu_seconds(stage.node.pid)
        idled = Idled(**orjson.loads(await tell(crowd, f"idle {seconds}")))
        return Result(clients, each, idled, (cpu_seconds(stage.node.pid) - used) / seconds)
