"""`python -m bench [WHAT ...]`: measures latency, slow-client, fan-out, storm, idle, throughput, growth, lists, orders
and cache on the production parts, or some of them; prints tables and keeps them in docs/benchmarks.md and
bench/results.json, unless --quick. Exit code 1 when something was lost or a delay grew."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import uvloop

from bench import cache, growth, idle, latency, lists, report, slow_client, storm, throughput
from bench.calibrate import microseconds_per_send
from bench.charts import draw_fan_out
from bench.fanout import compare
from bench.fanout.measure import OURS
from bench.orders import compare as orders
from bench.stage import Stage, open_stage
from tests.services.server import Unavailable


@dataclass(frozen=True, slots=True)
class Findings:
    """`ran`: what took part, beside what always does."""

    table: str
    numbers: object
    is_good: bool
    ran: Mapping[str, object] = field(default_factory=dict)


async def _latency(stage: Stage, *, quick: bool) -> Findings:
    results = await latency.measure(stage, seconds=5.0 if quick else 20.0)
    numbers = [report.numbers_of(each) for each in results]
    return Findings(report.latency_table(results), numbers, all(result.is_good for result in results))


async def _slow_client(stage: Stage, *, quick: bool) -> Findings:
    pairs, seconds = (1, 12.0) if quick else (slow_client.PAIRS, 15.0)
    result = await slow_client.measure(stage, pairs, seconds)
    return Findings(report.slow_table(result), report.numbers_of(result), result.is_good)


async def _fan_out(stage: Stage, *, quick: bool) -> Findings:
    runs = await compare.compare(stage, quick=quick)
    is_good = all(run.keeps_up for run in runs if run.server == OURS)
    table = report.fan_out_table(runs) if quick else f"{report.fan_out_table(runs)}\n\n{draw_fan_out(runs)}"
    return Findings(table, [report.numbers_of(run) for run in runs], is_good, report.peers())


async def _throughput(stage: Stage, *, quick: bool) -> Findings:
    results = await throughput.measure(stage, quick=quick)
    numbers = [report.numbers_of(each) for each in results]
    return Findings(report.throughput_table(results), numbers, all(each.is_good for each in results))


async def _growth(stage: Stage, *, quick: bool) -> Findings:
    results = await growth.measure(stage, quick=quick)
    return Findings(report.growth_table(results), [report.numbers_of(each) for each in results], is_good=True)


async def _idle(stage: Stage, *, quick: bool) -> Findings:
    clients, seconds = (2_000, 30.0) if quick else (idle.CLIENTS, idle.SECONDS)
    result = await idle.measure(stage, clients, seconds)
    return Findings(report.idle_table(result), report.numbers_of(result), result.is_good)


async def _storm(stage: Stage, *, quick: bool) -> Findings:
    storms = [await storm.measure(stage, storm.CLIENTS) for _ in range(1 if quick else storm.REPEATS)]
    numbers = [report.numbers_of(each) for each in storms]
    return Findings(report.storm_table(storms), numbers, all(each.is_good for each in storms))


async def _lists(stage: Stage, *, quick: bool) -> Findings:
    results = await lists.measure(stage, quick=quick)
    return Findings(
        report.lists_table(results),
        [report.numbers_of(each) for each in results],
        all(each.is_good for each in results),
    )


async def _orders(stage: Stage, *, quick: bool) -> Findings:
    result = await orders.measure(stage, quick=quick)
    return Findings(report.orders_table(result), report.numbers_of(result), result.is_good, report.orders_peer())


async def _cache(stage: Stage, *, quick: bool) -> Findings:
    results = await cache.measure(stage, quick=quick)
    return Findings(report.cache_table(results), [report.numbers_of(each) for each in results], is_good=True)


_KINDS: Mapping[str, Callable[..., Awaitable[Findings]]] = {
    "latency": _latency,
    "slow-client": _slow_client,
    "fan-out": _fan_out,
    "storm": _storm,
    "idle": _idle,
    "throughput": _throughput,
    "growth": _growth,
    "lists": _lists,
    "orders": _orders,
    "cache": _cache,
}
_SETTINGS = {"fan-out": compare.SETTINGS, "throughput": throughput.SETTINGS, "growth": growth.SETTINGS}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*_KINDS, []], default=[])
    parser.add_argument("--quick", action="store_true", help="short runs, to see that it works; nothing is written")
    arguments = parser.parse_args()
    try:
        kinds = arguments.what or list(_KINDS)
        return max(uvloop.run(_measure(kind, quick=arguments.quick)) for kind in kinds)
    except Unavailable as missing:
        print(f"bench: {missing}", file=sys.stderr)
        return 2


async def _measure(what: str, *, quick: bool) -> int:
    async with open_stage(_SETTINGS.get(what, "")) as stage:
        ran = {
            "on": datetime.now(UTC).date().isoformat(),
            **report.machine(),
            **await report.servers(stage.database_url),
            "microseconds of one bare send": round(await microseconds_per_send(), 1),
        }
        found = await _KINDS[what](stage, quick=quick)
    print(found.table)
    if not quick:
        report.publish(what, found.table, found.numbers, {**ran, **found.ran})
    return 0 if found.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
