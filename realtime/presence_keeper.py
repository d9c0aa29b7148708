"""Keeps the presence store true about this node's clients; tells who is there, and every node who joins and leaves."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

import structlog

from handlers.events import LifeCycleType
from realtime.backoff import Backoff
from realtime.bus import Bus, Membership
from realtime.life_cycle import LifeCycle
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import ChannelOptions
from realtime.presence import TTL_SECONDS, Change, Member, Presence, PresenceAway, Stats

log = structlog.get_logger(__name__)

T = TypeVar("T")

RENEW_SECONDS: Final = TTL_SECONDS / 3
_TOGETHER: Final = 200
_MOST_WAITING: Final = 50_000
_SETTLED_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Step:
    change: Change
    options: ChannelOptions


class PresenceKeeper:
    """One thing at a time, so that what is told last holds: no member that went is put back by what was slower.

    Joins and leaves are told, at most once, after the store knows. While it is away they are dropped and counted: who
    came is put there by the next renewal, and who went is gone when its time is over. Bounded by the subscriptions
    there are, and by the steps that wait.
    """

    def __init__(
        self,
        presence: Presence,
        bus: Bus,
        metrics: RealtimeMetrics,
        life_cycle: LifeCycle | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        interval: float = RENEW_SECONDS,
    ) -> None:
        self._presence = presence
        self._bus = bus
        self._metrics = metrics
        self._life_cycle = life_cycle
        self._clock = clock
        self._interval = interval
        self._held: dict[tuple[str, str], Member] = {}
        self._waiting: deque[_Step] = deque()
        self._woken = asyncio.Event()
        self._enqueued = 0  # steps since the start,
        self._settled = 0  # and those of them that the store knows, or will never know
        self._stepped = asyncio.Event()

    def enter(self, channel: str, member: Member, options: ChannelOptions) -> None:
        if options.presence:
            self._held[channel, member.client] = member
        self._enqueue(_Step(Change(channel, member, is_there=True), options))

    def leave(self, channel: str, member: Member, options: ChannelOptions) -> None:
        """Of one that entered."""
        self._held.pop((channel, member.client), None)
        self._enqueue(_Step(Change(channel, member, is_there=False), options))

    async def members(self, channel: str) -> Mapping[str, Member]:
        """By client, on all nodes; of this one those who are there when it is asked. Raises PresenceAway."""
        await self._settle()
        return await self._presence.members(channel)

    async def stats(self, channel: str) -> Stats:
        """Likewise."""
        await self._settle()
        return await self._presence.stats(channel)

    async def run(self) -> None:
        """Tell and renew, until cancelled; then nothing is told any more."""
        backoff = Backoff(cap=2.0)
        due = self._clock() + self._interval
        while True:
            await self._wait(due)
            try:
                if self._waiting:
                    await self._take_steps()
                if self._clock() >= due:
                    due = self._clock() + self._interval
                    await self._renew()
                    await self._tell_of_vacated()
                backoff.reset()
            except PresenceAway:
                log.warning("presence_away", waiting=len(self._waiting))
                await asyncio.sleep(backoff.delay())

    def _enqueue(self, step: _Step) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft()
            self._metrics.drops.labels("presence_change").inc()
            self._settled += 1
        self._waiting.append(step)
        self._enqueued += 1
        self._woken.set()

    async def _settle(self) -> None:
        """Wait until the store knows of everything that has happened here so far, if it can be told at all."""
        before = self._enqueued
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLED_SECONDS):
                while self._settled < before:
                    await self._stepped.wait()

    async def _wait(self, due: float) -> None:
        if self._waiting:
            return
        self._woken.clear()
        try:
            async with asyncio.timeout(max(0.0, due - self._clock())):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _take_steps(self) -> None:
        steps = [self._waiting.popleft() for _ in range(min(len(self._waiting), _TOGETHER))]
        kept = [step for step in steps if step.options.presence]
        try:
            outcomes = await self._presence.apply([step.change for step in kept]) if kept else []
        except PresenceAway:
            self._metrics.drops.labels("presence_change").inc(len(steps))
            raise
        finally:
            self._settled += len(steps)
            self._stepped.set()
            self._stepped.clear()
        alone = {id(step): outcome.is_users for step, outcome in zip(kept, outcomes, strict=True)}
        await self._announce([step for step in steps if _is_announced(step, is_alone=alone.get(id(step), True))])
        for step, outcome in zip(kept, outcomes, strict=True):
            if outcome.is_channels:
                self._tell(step.change.channel, is_occupied=step.change.is_there)

    def _tell(self, channel: str, *, is_occupied: bool) -> None:
        if self._life_cycle is not None:
            type_ = LifeCycleType.CHANNEL_OCCUPIED if is_occupied else LifeCycleType.CHANNEL_VACATED
            self._life_cycle.tell(type_, channel, {"channel": channel})

    async def _tell_of_vacated(self) -> None:
        """What is renewed is not vacated, so after the renewal."""
        if self._life_cycle is not None:
            for channel in await self._presence.vacated():
                self._tell(channel, is_occupied=False)

    async def _announce(self, steps: Sequence[_Step]) -> None:
        if steps:
            changes = [step.change for step in steps]
            await self._bus.publish([Membership(it.channel, it.member.info, it.is_there) for it in changes])

    async def _renew(self) -> None:
        """Some at a time, and between them who came and went meanwhile. Not those whose coming the store is still to be
        told of: it would be none any more, and nobody would hear of it."""
        coming = {(step.change.channel, step.change.member.client) for step in self._waiting}
        for some in _some_at_a_time([key for key in self._held if key not in coming]):
            members = [(key[0], member) for key in some if (member := self._held.get(key)) is not None]
            if members:
                await self._presence.renew(members)
            if self._waiting:
                await self._take_steps()


def _is_announced(step: _Step, *, is_alone: bool) -> bool:
    """`is_alone`: no other connection of the user is in the channel."""
    return step.options.join_leave and (is_alone or not step.options.join_leave_per_user)


def _some_at_a_time(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, _TOGETHER)):
        yield some
