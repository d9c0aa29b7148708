"""Work that could fill the event loop, cut into slices between which the loop does its other work.

A request or an event passes many awaits on its way. If each of them had to wait for a slice, large work would delay
small work by many times what a slice takes. So the loop turns until a turn brought nothing else to do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

# A turn of the loop that finds nothing ready takes some 20 us.
_QUIET_TURN_SECONDS: Final = 0.00005


class Turns:
    """`resume` is the next slice."""

    def __init__(self, resume: Callable[[], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._resume = resume
        self._clock = clock
        self._began = 0.0
        self._until = 0.0

    def let_others(self, now: float, *, at_most: float) -> None:
        """Resume when they have nothing to do, or after so many seconds."""
        self._until = now + at_most
        self._turn(now)

    def _turn(self, now: float) -> None:
        self._began = now
        asyncio.get_running_loop().call_soon(self._turned)

    def _turned(self) -> None:
        now = self._clock()
        if now - self._began < _QUIET_TURN_SECONDS or now > self._until:
            self._resume()
        else:
            self._turn(now)
