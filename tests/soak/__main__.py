"""`python -m tests.soak`: hours of churn on the production parts. Exit code 0 when nothing grew and nobody missed
anything, 1 otherwise, 2 where a server cannot be had."""

from __future__ import annotations

import argparse
import sys

import uvloop

from tests.seeded import add_seed
from tests.services.server import Unavailable
from tests.soak.run import Settings, soak


def main() -> int:
    settings = Settings(**vars(_parse()))
    sys.stderr.write(f"seed {settings.seed}\n")
    try:
        outcome = uvloop.run(soak(settings))
    except Unavailable as missing:
        sys.stderr.write(f"soak: {missing}\n")
        return 2
    sys.stdout.write(
        f"{outcome.answers:,} answers, {outcome.connections:,} connections, {outcome.publications:,} publications "
        f"heard in {len(outcome.rests)} rounds\n"
    )
    faults = [*outcome.faults, *(f"{what}: {count} times" for what, count in outcome.unexpected.items())]
    sys.stdout.write("\n".join(faults or ["nothing grew, and nobody missed anything"]) + "\n")
    return 1 if faults else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0, metavar="N", help="of churn (120)")
    add_seed(parser)
    parser.add_argument("--rate", type=float, default=40.0, metavar="N", help="orders a second (40)")
    parser.add_argument("--clients", type=int, default=60, metavar="N", help="clients that come and go (60)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
