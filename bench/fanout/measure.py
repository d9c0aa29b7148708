"""How much work a delivery is, and how long it takes: our server and its peers in one run, one core each.

The server has the first core for itself. The clients, the publisher and, for ours, the services beside it share the
others. Every server gets the same: documents of the same length, on a schedule that waits for nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from bench.fanout.crowd import Heard
from bench.fanout.peers import Peer
from bench.measure import percentile
from bench.processes import cpu_seconds

RATES: Final = (50, 200, 2_000, 5_000)
SUBSCRIBERS: Final = 1_000
OURS: Final = "Orderwire"
_CHECKOUT: Final = Path(__file__).resolve().parents[2]
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
    with _crowd(target) as crowd, _publisher(target) as publisher:
        warm_up = int(_tell(publisher, f"publish {min(rates)} {_WARM_UP}").split()[0])
        _until_heard(crowd, warm_up)
        for rate in sorted(rates):
            run = _measure(target, rate, seconds, crowd, publisher)
            yield run
            if not run.keeps_up:
                return


def _measure(target: Target, rate: int, seconds: float, crowd: _Child, publisher: _Child) -> Run:
    cpu, services = _cpu(target)
    began = time.monotonic()
    published = int(_tell(publisher, f"publish {rate} {seconds}").split()[0])
    in_time = _report(crowd)
    elapsed = time.monotonic() - began
    reports = _until_heard(crowd, published, [in_time])
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
        published - _least(reports),
        used / total,
        1e6 * used / delivered,
        1e6 * used_services / delivered,
        1e3 * percentile(delays, 50),
        1e3 * percentile(delays, 99),
    )


def _until_heard(crowd: _Child, published: int, reports: Sequence[Heard] = ()) -> list[Heard]:
    """All reports, once everybody has heard so many publications or patience ended."""
    heard = [*reports] or [_report(crowd)]
    deadline = time.monotonic() + _PATIENCE
    while _least(heard) < published and time.monotonic() < deadline:
        time.sleep(0.1)
        heard.append(_report(crowd))
    return heard


def _least(reports: Sequence[Heard]) -> int:
    """What every sampled client has heard at least."""
    if any(each.gone for each in reports):
        raise ConnectionError("the server hung up on a client")
    return min(map(sum, zip(*(each.sampled for each in reports), strict=True)))


def _cpu(target: Target) -> tuple[float, float]:
    return cpu_seconds(target.pid), sum(map(cpu_seconds, target.services))


_Child = subprocess.Popen[str]


@contextmanager
def _crowd(target: Target) -> Iterator[_Child]:
    with _child("crowd", str(target.port), target.speaks, target.token, str(SUBSCRIBERS)) as child:
        _line(child)
        yield child


@contextmanager
def _publisher(target: Target) -> Iterator[_Child]:
    with _child("publisher", str(target.port), target.speaks, target.token) as child:
        yield child


@contextmanager
def _child(module: str, *arguments: str) -> Iterator[_Child]:
    command = [sys.executable, "-m", f"bench.fanout.{module}", *arguments]
    child = subprocess.Popen(command, cwd=_CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def _report(crowd: _Child) -> Heard:
    return Heard(**orjson.loads(_tell(crowd, "report")))


def _tell(child: _Child, order: str) -> str:
    assert child.stdin is not None
    child.stdin.write(order + "\n")
    child.stdin.flush()
    return _line(child)


def _line(child: _Child) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("a process of the benchmark ended")
    return line


@contextmanager
def peer(name: str) -> Iterator[Target]:
    """Raises tests.services.server.Unavailable."""
    with ExitStack() as stack:
        running = stack.enter_context(Peer(name))
        own_core(running.pid)
        yield Target(name, running.speaks, "", running.port, running.pid)


def leave_first_core() -> None:
    """This process and its later children keep off the core of the server that is measured."""
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        os.sched_setaffinity(0, cores - {min(cores)})


def own_core(pid: int) -> None:
    """Give a server, all its threads, the first core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {0})
