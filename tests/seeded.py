"""What the long runs have in common."""

from __future__ import annotations

import argparse
import secrets


def add_seed(parser: argparse.ArgumentParser) -> None:
    """The run of a seed can be had again."""
    drawn = secrets.randbelow(1_000_000)
    parser.add_argument("--seed", type=int, default=drawn, metavar="N", help="of all that is drawn")
