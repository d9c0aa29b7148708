"""How much work a delivery is, and how long it takes: our server and its peers in one run, one core each.

The server has the first core for itself. The clients, the publisher and, for ours, the services beside it share the
others. Every server gets the same: documents of the same length, on a schedule that waits for nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.children import Child, child, crowd, report, tell
from bench.fanout.crowd import Heard
from bench.fanout.peers import PEERS, Peer
from bench.measure import percentile
from bench.processes import cpu_seconds

RATES: Final = (50, 200, 2_000, 5_000)
SUBSCRIBERS: Final = 1_000
OURS: Final = "Orderwire"
OURS_KEPT: Final = "Orderwire, with history"
_WARM_UP: Final = 1.0
_PATIENCE: Final = 8.0  # seconds after which what has not arrived is not waited for
_KEPT_UP: Final = 0.9  # of what was published must be heard in time, or higher rates are not tried


@dataclass(frozen=True, slots=True)
class Target:
    """A running server. `services`: processes that work for it and are counted apart."""

    name: str
    speaks: str
    token: str
    port: int
    pid: int
    services: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Of one server at one rate. Seconds of one core for a million deliveries, of the server and of the services beside
    it; deliveries per second while it was published; milliseconds from when a publication was due until it arrived."""

    server: str
    rate: int
    published: int
    delivered: float
    per_second: float
    lost: int
    server_cpu: float
    cpu_per_million: float
    services_cpu_per_million: float
    p50: float
    p99: float

    @property
    def keeps_up(self) -> bool:
        return self.lost == 0 and self.per_second >= _KEPT_UP * self.rate * SUBSCRIBERS


def measure(target: Target, rates: Sequence[int], seconds: float) -> Iterator[Run]:
    """From the lowest rate up, until it no longer keeps up."""
    arguments = (target.port, target.speaks, target.token)
    with (
        crowd(*arguments, SUBSCRIBERS) as hearing,
        child("bench.fanout.publisher", *map(str, arguments)) as publisher,
    ):
        warm_up = int(tell(publisher, f"publish {min(rates)} {_WARM_UP}").split()[0])
        until_heard(hearing, warm_up)
        for rate in sorted(rates):
            run = _measure(target, rate, seconds, hearing, publisher)
            yield run
            if not run.keeps_up:
                return


def _measure(target: Target, rate: int, seconds: float, hearing: Child, publisher: Child) -> Run:
    cpu, services = _cpu(target)
    began = time.monotonic()
    published = int(tell(publisher, f"publish {rate} {seconds}").split()[0])
    in_time = report(hearing)
    elapsed = time.monotonic() - began
    reports = until_heard(hearing, published, [in_time])
    used, used_services = (now - before for now, before in zip(_cpu(target), (cpu, services), strict=True))
    total = time.monotonic() - began
    size = sum(each.sampled_bytes for each in reports) / max(1, sum(sum(each.sampled) for each in reports))
    delivered = sum(each.bytes for each in reports) / size
    delays = [delay for each in reports for delay in each.delays]
    return Run(
        target.name,
        rate,
        published,
        delivered,
        in_time.bytes / size / elapsed,
        published - least(reports),
        used / total,
        1e6 * used / delivered,
        1e6 * used_services / delivered,
        1e3 * percentile(delays, 50),
        1e3 * percentile(delays, 99),
    )


def until_heard(hearing: Child, published: int, reports: Sequence[Heard] = ()) -> list[Heard]:
    """All reports, once everybody has heard so many publications or patience ended."""
    heard = [*reports] or [report(hearing)]
    deadline = time.monotonic() + _PATIENCE
    while least(heard) < published and time.monotonic() < deadline:
        time.sleep(0.1)
        heard.append(report(hearing))
    return heard


def least(reports: Sequence[Heard]) -> int:
    """What every sampled client has heard at least."""
    if any(each.gone for each in reports):
        raise ConnectionError("the server hung up on a client")
    return min(map(sum, zip(*(each.sampled for each in reports), strict=True)))


def _cpu(target: Target) -> tuple[float, float]:
    return cpu_seconds(target.pid), sum(map(cpu_seconds, target.services))


@contextmanager
def peer(name: str) -> Iterator[Target]:
    """Raises tests.services.server.Unavailable."""
    program, speaks = PEERS[name]
    with Peer(program) as running:
        own_core(running.pid)
        yield Target(name, speaks, "", running.port, running.pid)


def leave_first_core() -> None:
    """This process and its later children keep off the core of the server that is measured."""
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        os.sched_setaffinity(0, cores - {min(cores)})


def own_core(pid: int) -> None:
    """Give a server, all its threads, the first core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {0})
