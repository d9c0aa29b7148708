"""`python -m tests.torture`: exit code 0 for a clean run, 1 for any fault, 2 where a server cannot be had."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import uvloop

from tests.seeded import add_seed
from tests.services.server import Unavailable
from tests.torture.plant import selfcheck
from tests.torture.report import describe, describe_selfcheck
from tests.torture.run import Settings, torture


def main() -> int:
    arguments = _parse()
    settings = Settings(**{name: value for name, value in vars(arguments).items() if name != "selfcheck"})
    sys.stderr.write(f"seed {settings.seed}\n")
    try:
        outcome = uvloop.run(torture(settings))
    except Unavailable as missing:
        sys.stderr.write(f"torture: {missing}\n")
        return 2
    sys.stdout.write(describe(outcome))
    if not arguments.selfcheck:
        return 0 if outcome.is_good else 1
    checked = selfcheck(outcome.records)
    sys.stdout.write(describe_selfcheck(checked))
    return 0 if outcome.is_good and all(found for _, found in checked) else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="how often something is killed (20)")
    add_seed(parser)
    parser.add_argument("--rate", type=float, default=50.0, metavar="N", help="orders a second (50)")
    parser.add_argument("--clients", type=int, default=50, metavar="N", help="live clients (50)")
    parser.add_argument("--embedded", action="store_true", help="the embedded default instead of the production parts")
    parser.add_argument("--partitions", type=int, default=1, metavar="N", help="of the fan-out (1)")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="leave the nodes' logs there")
    parser.add_argument("--selfcheck", action="store_true", help="plant each kind of fault afterwards; find them all")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
