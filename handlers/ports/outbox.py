"""The outbox as the relay sees it. A port; `storage.outbox` is its variant."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from handlers.ports.broker import Message


class OutboxAway(Exception):
    """PostgreSQL, or the leadership, is lost: lead again."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    id: int
    message: Message


class Leadership(Protocol):
    """Held while this node is the one that relays. Every method raises OutboxAway once it is lost."""

    async def pending(self, limit: int, *, published: Sequence[int]) -> Sequence[OutboxRow]:
        """Remove the rows that the broker has, and return the oldest others there are now, in id order; always from
        the beginning, never from a cursor: an id below the last one seen may become visible later.

        In one step, because between the two nothing happens. A removal may be undone by a crash; the events are then
        published twice.
        """
        ...

    async def wait(self, timeout: float) -> None:
        """Return when new rows may be there (told in process or by another node), at the latest after `timeout` s."""
        ...


class Outbox(Protocol):
    def lead(self) -> AbstractAsyncContextManager[Leadership]:
        """Wait until no other node of the deployment leads, then lead until the block ends."""
        ...
