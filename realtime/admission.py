"""May this actor hear this channel? A port: the answer takes the domain (handlers.audience) and its data."""

from __future__ import annotations

from typing import Protocol

from handlers.actor import Actor


class Admission(Protocol):
    async def may_join(self, actor: Actor, channel: str) -> bool:
        """Asked before anything is created for the subscription.

        Raises handlers.audience.UnknownChannel for a channel that nobody has, handlers.errors.Unavailable when
        nobody can tell now.
        """
        ...
