"""How often one kind of work may come round, so that the event loop keeps some of its time free.

A loop that is full is not slower by a little: what waits for it waits for a queue, and an event passes some thirty
turns of the loop on its way. So recurring work whose cost falls when it is done less often (rounds of writes, which
join what waits) takes what all else leaves of 70 %, and no less than two fifths.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from handlers.loop_load import LoopLoad

_TARGET: Final = 0.7
_LEAST: Final = 0.4  # with less, what floods a channel outruns its deliveries
_CREDIT_SECONDS: Final = 0.02  # to be ahead by: one time that took long does not hold up the next


class LoopShare:
    """`clock` is the time that passes, `cpu` the processor time of the loop's thread, both in seconds."""

    def __init__(self, *, clock: Callable[[], float], cpu: Callable[[], float]) -> None:
        self._clock = clock
        self._others = LoopLoad(clock=clock, cpu=cpu)
        self._own = 0.0
        self._rest_until = 0.0

    @property
    def value(self) -> float:
        """What this work may take of the loop's time, 0 to 1."""
        return max(_LEAST, _TARGET - self._others.value)

    def begin(self, now: float) -> None:
        """It comes round once more."""
        self._rest_until = max(self._rest_until, now)
        if self._others.look(but=self._own):
            self._own = 0.0

    def spent(self, seconds: float) -> None:
        self._own += seconds
        self._rest_until += seconds / self.value

    def rest(self) -> float:
        """How many seconds it is too early to begin again; negative when it is not."""
        return self._rest_until - _CREDIT_SECONDS - self._clock()
