"""Our server and its peers, several times in one run, and the medians."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import median

from bench.fanout.measure import OURS, OURS_KEPT, RATES, Run, Target, leave_first_core, measure, own_core, peer
from bench.fanout.peers import PEERS
from bench.stage import Stage

SETTINGS = """
[client]
ping_interval = 300.0

[client.rate_limit]
connection = {}

[[channel.namespaces]]
name = "bench"
allow_subscribe_for_client = true
allow_publish_for_client = true

[[channel.namespaces]]
name = "kept"
history_size = 1000
history_ttl = "1h"
allow_subscribe_for_client = true
allow_publish_for_client = true
"""
REPEATS, SECONDS = 5, 5.0
QUICK_PEERS, QUICK_RATES, QUICK_SECONDS = ("uWebSockets", "python-socketio"), (50, 2_000), 3.0


async def compare(stage: Stage, *, quick: bool) -> list[Run]:
    """One after the other, all of them again and again, so that a slow hour of the machine is everybody's.

    Raises tests.services.server.Unavailable where a peer cannot be had.
    """
    leave_first_core()
    own_core(stage.node.pid)
    ours = Target(OURS, "centrifuge", stage.shop.staff_token, stage.node.port, stage.node.pid, stage.services)
    both = [ours] if quick else [ours, replace(ours, name=OURS_KEPT, speaks="centrifuge-kept")]
    runs: list[Run] = []
    for _ in range(1 if quick else REPEATS):
        runs += await asyncio.to_thread(lambda: list(_round(both, quick=quick)))
    return medians(runs)


def _round(ours: Sequence[Target], *, quick: bool) -> Iterator[Run]:
    rates, seconds = (QUICK_RATES, QUICK_SECONDS) if quick else (RATES, SECONDS)
    for target in ours:
        yield from measure(target, rates, seconds)
    for name in QUICK_PEERS if quick else PEERS:
        with peer(name) as target:
            yield from measure(target, rates, seconds)


def medians(runs: Sequence[Run]) -> list[Run]:
    """One for each server and rate, in the order in which they were first seen; each number by itself; `lost` is the
    most that was lost."""

    def key(run: Run) -> tuple[str, int]:
        return run.server, run.rate

    order = list(dict.fromkeys(map(key, runs)))
    grouped = groupby(sorted(runs, key=lambda run: order.index(key(run))), key=key)
    return [_median(list(alike)) for _, alike in grouped]


def _median(runs: Sequence[Run]) -> Run:
    numbers = ("delivered", "per_second", "server_cpu", "cpu_per_million", "services_cpu_per_million", "p50", "p99")
    middle = {name: median(getattr(run, name) for run in runs) for name in numbers}
    return replace(runs[0], **middle, lost=max(run.lost for run in runs))
