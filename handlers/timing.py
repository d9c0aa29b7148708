"""How long what is being done has worked with the database, for those who asked for it: `Server-Timing` tells them."""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass


@dataclass(slots=True)
class Timing:
    """Seconds, added up over all tasks that serve one request."""

    database: float = 0.0


_TIMING: ContextVar[Timing | None] = ContextVar("timing", default=None)


def begin() -> tuple[Timing, Token[Timing | None]]:
    """What is done from now on in this context, and in what it starts, is added up here, until `end`."""
    timing = Timing()
    return timing, _TIMING.set(timing)


def end(token: Token[Timing | None]) -> None:
    _TIMING.reset(token)


def add_database(seconds: float) -> None:
    if (timing := _TIMING.get()) is not None:
        timing.database += seconds
