"""How long from a commit to the clients, at several loads."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.measure import Latency, latency
from bench.poster import Poster
from bench.processes import cpu_seconds, machine_ticks, resident_bytes
from bench.stage import Listeners, Stage, open_listeners

WARM_UP = 2.0  # seconds of load that nobody looks at


@dataclass(frozen=True, slots=True)
class Load:
    """`goal`: milliseconds that the median from commit to client has to stay below."""

    subscribers: int
    rate: int
    goal: float | None = None


LOADS = (Load(1000, 20, goal=12.0), Load(1000, 100, goal=15.0), Load(100, 500))


@dataclass(frozen=True, slots=True)
class Result:
    """`lost` counts deliveries that no subscriber got, `server_cpu` and `listeners_cpu` are shares of one core,
    `stolen` is the share of the machine's time that its host gave to others: above a few percent the host was measured.
    """

    load: Load
    orders: int
    deliveries: int
    lost: int
    latency: Latency
    server_cpu: float
    listeners_cpu: float
    server_bytes: int
    stolen: float

    @property
    def is_good(self) -> bool:
        """Nothing lost, and the delay does not grow. The goal is a matter of the machine."""
        return self.lost == 0 and not self.latency.grows


async def measure(stage: Stage, seconds: float) -> list[Result]:
    """All loads, one after the other; those with the same subscribers share them."""
    results: list[Result] = []
    for count in dict.fromkeys(load.subscribers for load in LOADS):
        async with open_listeners(stage, count) as listeners, Poster(stage.node.base_url, stage.shop) as poster:
            loads = [load for load in LOADS if load.subscribers == count]
            results += [await _measure(stage, load, seconds, listeners, poster) for load in loads]
    return results


async def _measure(stage: Stage, load: Load, seconds: float, listeners: Listeners, poster: Poster) -> Result:
    await listeners.finish(len(await poster.run(load.rate, WARM_UP)))
    started = time.monotonic()
    used, before = (cpu_seconds(stage.node.pid), cpu_seconds(listeners.pid)), machine_ticks()
    posted = await poster.run(load.rate, seconds)
    elapsed = time.monotonic() - started
    server, clients = cpu_seconds(stage.node.pid) - used[0], cpu_seconds(listeners.pid) - used[1]
    stolen, ticks = (now - then for now, then in zip(machine_ticks(), before, strict=True))
    findings = await listeners.finish(len(posted))
    committed = await stage.committed(order.order_id for order in posted)
    return Result(
        load,
        len(posted),
        sum(findings.heard),
        len(posted) * load.subscribers - sum(findings.heard),
        latency(findings.samples, committed),
        server / elapsed,
        clients / elapsed,
        resident_bytes(stage.node.pid),
        stolen / max(1, ticks),
    )
