"""How busy the event loop is. Work that costs less when it is done less often, for more at a time, looks here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

_WINDOW_SECONDS: Final = 0.1  # looked at together
_MEMORY_SECONDS: Final = 0.35  # after which what was counts for a third


class LoopLoad:
    """`clock` is the time that passes, `cpu` the processor time of the loop's thread, both in seconds."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock = clock
        self._cpu = cpu
        self._since, self._cpu_since = clock(), cpu()
        self.value = 0.0
        """Share of its time that the loop has worked lately, 0 to 1, as of the last look."""

    def look(self, *, but: float = 0.0) -> bool:
        """Take in what was since the last time, leaving out so many seconds of work. False: it is too early for that,
        and nothing was done."""
        elapsed = self._clock() - self._since
        if elapsed < _WINDOW_SECONDS:
            return False
        cpu = self._cpu()
        load = min(1.0, max(0.0, cpu - self._cpu_since - but) / elapsed)
        self.value += (1 - math.exp(-elapsed / _MEMORY_SECONDS)) * (load - self.value)
        self._since, self._cpu_since = self._since + elapsed, cpu
        return True
