"""How long to wait before trying a lost part again."""

from __future__ import annotations

import random


class Backoff:
    """Doubles from `first` to `cap` seconds, each wait drawn from its upper half, so that nodes that lost the
    same part together do not come back together."""

    def __init__(self, *, first: float = 0.1, cap: float = 5.0) -> None:
        self._first = first
        self._cap = cap
        self._next = first

    def delay(self) -> float:
        """Seconds to wait now; the next call answers about twice as many."""
        ceiling, self._next = self._next, min(self._cap, self._next * 2)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, no secret

    def reset(self) -> None:
        """It worked: start again from `first`."""
        self._next = self._first
