"""The event loop of a serving process: uvloop where it exists, signals, and a garbage collector that does not stall."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Coroutine

# A full collection stalled the loop for 122 ms at 2,000 sockets and 273 ms at 8,000, so there is hardly ever one; and
# the young are looked at in portions of 4,000 objects, because a million, of a storm of clients, took 500 ms, and
# 50,000 took 20 to 40.
_GC_THRESHOLDS = (2_000, 2, 20_000)


def run(main: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> None:
    """Run `main` to its end on a new loop; SIGINT and SIGTERM set the event that it is given."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_with_signals(main))


def settle_garbage() -> None:
    """Take what was made during the start out of every later collection. Call it once the node serves."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def _with_signals(main: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await main(stop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32" or sys.implementation.name != "cpython":
        return asyncio.new_event_loop
    import uvloop  # not installed elsewhere, see pyproject.toml

    return uvloop.new_event_loop
