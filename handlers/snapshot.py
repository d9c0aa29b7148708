"""What a reader loads before subscribing: a state, and a position in a stream that is not newer than it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from handlers.ports.domain import Position

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T_co]):
    """`position` was read before `state`, so a subscriber who resumes there misses nothing; what it hears twice has a
    version that is not newer."""

    state: T_co
    channel: str
    position: Position
