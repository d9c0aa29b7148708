"""`python -m tests.fuzz`: exit code 0 when every answer was one that the OpenAPI document tells of, 1 otherwise."""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.fuzz.run import ENVIRONMENT, ROLES, fuzz
from tests.seeded import add_seed
from tests.services.orderwire import orderwire


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="of all roles together (10)")
    add_seed(parser)
    arguments = parser.parse_args()
    sys.stderr.write(f"seed {arguments.seed}\n")
    seconds = max(1, round(60 * arguments.minutes / len(ROLES)))
    is_good = True
    with orderwire(environment=ENVIRONMENT, arguments=["--demo"]) as node:
        for role in ROLES:
            fuzzed = asyncio.run(fuzz(node.base_url, role, seconds=seconds, seed=arguments.seed))
            sys.stdout.write(f"\n==== as {role}\n{fuzzed.report}")
            is_good = is_good and fuzzed.is_good
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
