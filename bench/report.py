"""What was measured, as a table for people and as JSON for comparing; with what ran it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import asyncpg
import orjson

from bench.cache import Cost
from bench.cache import Result as Cached
from bench.fanout.measure import OURS, Run
from bench.growth import Result as Growth
from bench.idle import Result as Idle
from bench.latency import Result
from bench.lists import GOAL as LISTS_GOAL
from bench.lists import Result as Lists
from bench.measure import Spread
from bench.orders import compare as orders
from bench.slow_client import LIMIT
from bench.slow_client import Result as SlowResult
from bench.storm import GOAL
from bench.storm import Result as Storm
from bench.throughput import Result as Throughput

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
SERVERS = Path(__file__).parent / "fanout" / "servers"
PEERS_LOCK = Path(__file__).parents[1] / "requirements" / "peers.txt"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PACKAGES = ("aiohttp", "uvloop", "asyncpg", "aio-pika", "redis", "orjson")


def machine() -> dict[str, object]:
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def peers() -> dict[str, str]:
    """The versions of what the fan-out is compared with, as they are locked."""
    lock = orjson.loads((SERVERS / "package-lock.json").read_bytes())["packages"]
    from_npm = ("uwebsockets", "ws", "socket.io")
    from_pypi = _pinned("websockets", "fastapi", "uvicorn", "python-socketio")
    return {name: lock[f"node_modules/{name}"]["version"] for name in from_npm} | from_pypi


def orders_peer() -> dict[str, str]:
    """The versions of what places orders beside us."""
    return _pinned("fastapi", "uvicorn", "httptools", "pydantic", "pyjwt")


def _pinned(*names: str) -> dict[str, str]:
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", PEERS_LOCK.read_text(), re.MULTILINE))
    return {name: pinned[name] for name in names}


async def servers(database_url: str) -> dict[str, str]:
    connection = await asyncpg.connect(database_url)
    try:
        return {"postgresql": str(await connection.fetchval("SHOW server_version"))}
    finally:
        await connection.close()


def latency_table(results: Sequence[Result]) -> str:
    head = (
        "| subscribers | orders/s | commit to client p50 / p99 / longest | request to client p50 / p99 "
        "| first, last third p50 | deliveries | lost | server CPU | listeners CPU | server memory | stolen |\n|"
        + "---|"
        * 11
    )
    return "\n".join([head, *map(_row, results)])


def slow_table(result: SlowResult) -> str:
    head = (
        "| pair | calm p99 | with slow client p99 | ratio | closed with 3008 | memory grown calm, slow | lost |\n|"
        + "---|" * 7
    )
    rows = [
        f"| {number} | {calm.p99:.1f} ms | {slow.p99:.1f} ms | {slow.p99 / calm.p99:.2f} | {slow.closed} "
        f"| {_mib(calm.grown)}, {_mib(slow.grown)} | {calm.lost + slow.lost} |"
        for number, (calm, slow) in enumerate(result.pairs, 1)
    ]
    return "\n".join([head, *rows, "", f"Median ratio {result.ratio:.2f} (goal: below {LIMIT})."])


def fan_out_table(runs: Sequence[Run]) -> str:
    """Beside each number of CPU how much it is of ours at that rate."""
    head = (
        "| publications/s | server | CPU seconds for 1M deliveries | of ours | services beside it | deliveries/s "
        "| p50 / p99 | server CPU | lost |\n|" + "---|" * 9
    )
    ours = {run.rate: run for run in runs if run.server == OURS}
    rows = [_fan_out_row(run, ours.get(run.rate)) for run in sorted(runs, key=lambda run: run.rate)]
    return "\n".join([head, *rows])


def storm_table(storms: Sequence[Storm]) -> str:
    head = (
        f"| clients | all back (goal {GOAL:g} s) | recovered | attempts | slowest attempt | REST p50 / p99 calm "
        "| REST p50 / p99 meanwhile | memory grown |\n|" + "---|" * 8
    )
    rows = [
        f"| {each.clients:,} | {each.returned.seconds:.1f} s | {each.returned.recovered:,} "
        f"| {each.returned.attempts:,} | {each.returned.slowest:.1f} s | {each.calm.p50:.1f} / {each.calm.p99:.1f} ms "
        f"| {each.storm.p50:.1f} / {each.storm.p99:.1f} ms | {_mib(each.grown)} |"
        for each in storms
    ]
    return "\n".join([head, *rows])


def idle_table(result: Idle) -> str:
    head = "| clients | memory of each (goal 20 KB) | pings | longest wait for one | server CPU |\n|" + "---|" * 5
    idled = result.idled
    return (
        f"{head}\n| {result.clients:,} | {result.each / 1000:.1f} KB | {idled.pings:,} | {idled.longest:.1f} s "
        f"| {result.server_cpu:.0%} |"
    )


def throughput_table(results: Sequence[Throughput]) -> str:
    head = "| what | a second | first, last third p50 | lost | server CPU |\n|" + "---|" * 5
    rows = [
        f"| {each.name} | {each.per_second:,.0f}{'' if each.goal is None else f' (goal {each.goal:,})'} "
        f"| {_pair(each.first_third, each.last_third)} | {each.lost} | {each.server_cpu:.0%} |"
        for each in results
    ]
    return "\n".join([head, *rows])


def growth_table(results: Sequence[Growth]) -> str:
    head = "| what | 1 worker, a second | 2 workers | ratio | CPU of 1, of 2 |\n|" + "---|" * 5
    rows = [
        f"| {each.name} | {each.one:,.0f} | {each.two:,.0f} | {each.ratio:.2f} "
        f"| {each.one_cpu:.0%}, {each.two_cpu:.0%} |"
        for each in results
    ]
    return "\n".join([head, *rows])


def lists_table(results: Sequence[Lists]) -> str:
    head = f"| asked for | requests | p50 / p99 (goal {LISTS_GOAL:g}) / longest | failed |\n|" + "---|" * 4
    rows = [f"| {each.name} | {each.requests} | {_three(each.time)} | {each.failed} |" for each in results]
    return "\n".join([head, *rows])


def orders_table(result: orders.Result) -> str:
    head = (
        "| placed by | orders/s | of ours to one of theirs | server CPU of an order | PostgreSQL's | server CPU "
        "| p50 / p99 / longest | told after | lost or refused |\n|" + "---|" * 9
    )
    rows = [
        f"| {each.name} | {each.per_second:,.0f} | {each.ratio:.2f}{_goal(orders.GOALS.get(each.name))} "
        f"| {each.milliseconds:.2f} ms | {each.database_milliseconds:.2f} ms | {each.server_cpu:.0%} "
        f"| {_three(each.time)} | {each.behind:.1f} s | {each.lost} |"
        for each in result.contenders
    ]
    read_head = f"| while {result.offered:,.0f} orders/s are placed | requests | p50 / p99 / longest |\n|" + "---|" * 3
    reads = [f"| {each.name} | {each.requests:,} | {_three(each.time)} |" for each in result.reads]
    return "\n".join([head, *rows, "", read_head, *reads, "", f"Goal of the reads: p99 below {orders.READ_GOAL:g} ms."])


def cache_table(results: Sequence[Cached]) -> str:
    head = (
        "| what | bytes | from PostgreSQL p50 / p99 / longest, CPU | from Redis p50 / p99 / longest, CPU |\n|"
        + "---|" * 4
    )
    rows = [f"| {each.name} | {each.size:,} | {_cost(each.database)} | {_cost(each.redis)} |" for each in results]
    return "\n".join([head, *rows])


def _cost(cost: Cost) -> str:
    return f"{_three(cost.time)}, {cost.cpu:.2f} ms"


def publish(section: str, table: str, numbers: object, ran: Mapping[str, object]) -> None:
    """Put a table into docs/benchmarks.md and its numbers into bench/results.json, beside the other sections'."""
    known = orjson.loads(RESULTS.read_bytes()) if RESULTS.exists() else {}
    known[section] = {"ran": ran, "table": table, "numbers": numbers}
    RESULTS.write_bytes(orjson.dumps(known, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text("".join([before, BEGIN, "\n\n", "\n\n".join(_sections(known)), "\n\n", END, after]))


def numbers_of(
    result: Result | SlowResult | Run | Storm | Throughput | Growth | Idle | Lists | orders.Result | Cached,
) -> dict[str, object]:
    return asdict(result)


def _sections(known: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    for name in sorted(known):
        ran = known[name]["ran"]
        assert isinstance(ran, dict)
        yield f"### {name.capitalize()}"
        yield str(known[name]["table"])
        yield "Ran on: " + ", ".join(f"{key} {value}" for key, value in sorted(ran.items())) + "."


def _row(result: Result) -> str:
    load, times = result.load, result.latency
    goal = f" (goal {load.goal:g})" if load.goal else ""
    return (
        f"| {load.subscribers:,} | {load.rate} | {_three(times.commit)}{goal} "
        f"| {times.request.p50:.1f} / {times.request.p99:.1f} | {times.first_third:.1f}, {times.last_third:.1f} "
        f"| {result.deliveries:,} | {result.lost} "
        f"| {result.server_cpu:.0%} | {result.listeners_cpu:.0%} | {_mib(result.server_bytes)} | {result.stolen:.0%} |"
    )


def _fan_out_row(run: Run, ours: Run | None) -> str:
    ratio = "" if ours is None else f"{run.cpu_per_million / ours.cpu_per_million:.2f}"
    return (
        f"| {run.rate:,} | {run.server} | {run.cpu_per_million:.2f} | {ratio} | {run.services_cpu_per_million:.2f} "
        f"| {run.per_second:,.0f} | {run.p50:.1f} / {run.p99:.1f} ms | {run.server_cpu:.0%} | {run.lost} |"
    )


def _goal(goal: float | None) -> str:
    return "" if goal is None else f" (goal {goal:g})"


def _three(spread: Spread) -> str:
    return f"{spread.p50:.1f} / {spread.p99:.1f} / {spread.longest:.1f} ms"


def _pair(first: float | None, last: float | None) -> str:
    return "" if first is None or last is None else f"{first:.1f}, {last:.1f} ms"


def _mib(amount: int) -> str:
    return f"{amount / 2**20:.1f} MiB"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
