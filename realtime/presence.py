"""Who is in a channel, across all nodes. A port; variants are `presence_redis` and `presence_memory`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

TTL_SECONDS: Final = 25.0
"""An entry that nobody renews for so long is gone: that of a node that died, for one."""


class PresenceAway(Exception):
    """The store cannot be asked or told now."""


@dataclass(frozen=True, slots=True)
class Member:
    """A client that is subscribed. `info` is what others may see of it, a JSON object as clients get it."""

    client: str
    user: str
    info: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """`is_there`: the member is in the channel from now on; else no longer."""

    channel: str
    member: Member
    is_there: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a change. `is_users`: the first connection of its user came, or the last went. `is_channels`: the first of
    all in the channel, or the last. Coming again and going again are no changes, and neither."""

    is_users: bool
    is_channels: bool


@dataclass(frozen=True, slots=True)
class Stats:
    clients: int
    users: int


class Presence(Protocol):
    """Every method raises PresenceAway within a second when the store does not answer."""

    async def apply(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Make these changes in order; the outcome of each."""
        ...

    async def vacated(self) -> Sequence[str]:
        """The channels in which nobody is any more though the last one did not go: its time is over. Each is told once,
        to whoever asks first. Only where the store was told to watch for that."""
        ...

    async def renew(self, members: Sequence[tuple[str, Member]]) -> None:
        """These are still in their channels; what the store has lost is there again."""
        ...

    async def members(self, channel: str) -> Mapping[str, Member]:
        """By client."""
        ...

    async def stats(self, channel: str) -> Stats:
        """Without moving the members, however many they are."""
        ...
