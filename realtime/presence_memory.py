"""Presence within one process, for tests: nodes share one. Variant of `realtime.presence.Presence`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from realtime.presence import TTL_SECONDS, Change, Member, Outcome, PresenceAway, Stats


class MemoryPresence:
    """While it is away nothing can be asked or told."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._channels: dict[str, dict[str, tuple[Member, float]]] = {}
        self._occupied: set[str] = set()
        self.is_away = False

    async def apply(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        self._be_there()
        return [self._apply(change) for change in changes]

    async def vacated(self) -> Sequence[str]:
        self._be_there()
        left = {channel for channel in self._occupied if not self._present(channel)}
        self._occupied -= left
        return sorted(left)

    async def renew(self, members: Sequence[tuple[str, Member]]) -> None:
        self._be_there()
        for channel, member in members:
            self._apply(Change(channel, member, is_there=True))

    async def members(self, channel: str) -> Mapping[str, Member]:
        self._be_there()
        return self._present(channel)

    async def stats(self, channel: str) -> Stats:
        self._be_there()
        present = self._present(channel)
        return Stats(len(present), len({member.user for member in present.values()}))

    def forget(self) -> None:
        """As a store that was emptied."""
        self._channels.clear()
        self._occupied.clear()

    def _be_there(self) -> None:
        if self.is_away:
            raise PresenceAway

    def _present(self, channel: str) -> dict[str, Member]:
        now = self._clock()
        return {client: member for client, (member, until) in self._channels.get(channel, {}).items() if until > now}

    def _apply(self, change: Change) -> Outcome:
        before = self._present(change.channel)
        known = self._channels.setdefault(change.channel, {})
        if change.is_there:
            known[change.member.client] = (change.member, self._clock() + TTL_SECONDS)
        else:
            known.pop(change.member.client, None)
        is_change = (change.member.client in before) != change.is_there
        others = [member for client, member in before.items() if client != change.member.client]
        if change.is_there:
            self._occupied.add(change.channel)
        elif not others:
            self._occupied.discard(change.channel)
        is_alone = all(member.user != change.member.user for member in others)
        return Outcome(is_users=is_change and is_alone, is_channels=is_change and not others)
