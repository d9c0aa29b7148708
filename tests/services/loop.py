"""The event loop that coroutine tests run on: uvloop, as in production, with an end to waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import TypeVar, cast

import uvloop

T = TypeVar("T")


class BoundedLoop(uvloop.Loop):
    """Cancels a test, or one of its fixtures, that has not ended after `seconds`: the traceback shows where it waits.

    An alarm signal, pytest-timeout's way, cannot do that here: uvloop swallows what a signal handler raises, and the
    run hangs for ever.
    """

    seconds: float

    def run_until_complete(self, future: Generator[object, None, T] | Awaitable[T]) -> T:
        task = asyncio.ensure_future(cast("Awaitable[T]", future), loop=self)
        alarm = self.call_later(self.seconds, task.cancel, f"not done after {self.seconds} s")
        try:
            return super().run_until_complete(task)
        finally:
            alarm.cancel()


def new_loop(seconds: float) -> asyncio.AbstractEventLoop:
    loop = BoundedLoop()
    loop.seconds = seconds
    return loop
