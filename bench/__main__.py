"""`python -m bench [latency | slow-client | fan-out]`: measures on the production parts, prints a table, and keeps it
in docs/benchmarks.md and bench/results.json unless --quick. Exit code 1 when something was lost or a delay grew."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

import uvloop

from bench import latency, report, slow_client
from bench.calibrate import microseconds_per_send
from bench.fanout.compare import SETTINGS, compare
from bench.fanout.measure import OURS
from bench.stage import open_stage
from tests.services.server import Unavailable


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("latency", "slow-client", "fan-out"), default="latency")
    parser.add_argument("--quick", action="store_true", help="short runs, to see that it works; nothing is written")
    arguments = parser.parse_args()
    try:
        return uvloop.run(_measure(arguments.what, quick=arguments.quick))
    except Unavailable as missing:
        print(f"bench: {missing}", file=sys.stderr)
        return 2


async def _measure(what: str, *, quick: bool) -> int:
    numbers: list[dict[str, object]] | dict[str, object]
    async with open_stage(SETTINGS if what == "fan-out" else "") as stage:
        ran = {
            "on": datetime.now(UTC).date().isoformat(),
            **report.machine(),
            **await report.servers(stage.database_url),
            "microseconds of one bare send": round(await microseconds_per_send(), 1),
        }
        if what == "latency":
            results = await latency.measure(stage, seconds=5.0 if quick else 20.0)
            table, numbers = report.latency_table(results), [report.numbers_of(each) for each in results]
            is_good = all(result.is_good for result in results)
        elif what == "fan-out":
            runs = await compare(stage, quick=quick)
            table, numbers = report.fan_out_table(runs), [report.numbers_of(run) for run in runs]
            ran |= report.peers()
            is_good = all(run.keeps_up for run in runs if run.server == OURS)
        else:
            pairs, seconds = (1, 12.0) if quick else (slow_client.PAIRS, 15.0)
            result = await slow_client.measure(stage, pairs, seconds)
            table, numbers = report.slow_table(result), report.numbers_of(result)
            is_good = result.is_good
    print(table)
    if not quick:
        report.publish(what, table, numbers, ran)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
