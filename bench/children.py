"""Processes of the benchmark that are told what to do a line at a time, and answer with a line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import orjson

from bench.fanout.crowd import Heard

Child = subprocess.Popen[str]
_CHECKOUT: Final = Path(__file__).resolve().parents[1]


@contextmanager
def child(module: str, *arguments: str) -> Iterator[Child]:
    """`python -m MODULE ARGUMENTS`, ended with the block."""
    command = [sys.executable, "-m", module, *arguments]
    started = subprocess.Popen(command, cwd=_CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


@contextmanager
def crowd(port: int, speaks: str, token: str, count: int) -> Iterator[Child]:
    """So many who hear the channel, all there."""
    with child("bench.fanout.crowd", str(port), speaks, token, str(count)) as started:
        _line(started)
        yield started


def report(crowd: Child) -> Heard:
    """What was heard since the last report."""
    return Heard(**orjson.loads(tell(crowd, "report")))


def tell(child: Child, order: str) -> str:
    """The answer to an order. Raises RuntimeError when the process has ended."""
    assert child.stdin is not None
    child.stdin.write(order + "\n")
    child.stdin.flush()
    return _line(child)


def _line(child: Child) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("a process of the benchmark ended")
    return line
