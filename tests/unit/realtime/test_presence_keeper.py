from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from realtime.bus import Item, Membership, Receiver
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import ChannelOptions
from realtime.presence import Change, Member, Outcome
from realtime.presence_keeper import PresenceKeeper
from realtime.presence_memory import MemoryPresence

ANN, BOB = Member("a", "ann", b'{"user":"ann"}'), Member("b", "bob", b'{"user":"bob"}')
PER_USER = ChannelOptions(presence=True, join_leave=True, join_leave_per_user=True)


class SlowPresence(MemoryPresence):
    """Takes changes when it may; `asked` once it was to take some."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def apply(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        self.asked.set()
        await self.may_answer.wait()
        return await super().apply(changes)


@dataclass
class Told:
    """A bus that keeps what is told."""

    items: asyncio.Queue[Item] = field(default_factory=asyncio.Queue)
    is_connected: bool = True

    async def publish(self, items: Iterable[Item]) -> bool:
        for item in items:
            self.items.put_nowait(item)
        return True

    async def run(self, receiver: Receiver) -> None:
        raise NotImplementedError(receiver)

    async def next(self) -> Item:
        return await asyncio.wait_for(self.items.get(), 2)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def keeping(presence: MemoryPresence, bus: Told, clock: Clock) -> AsyncIterator[PresenceKeeper]:
    keeper = PresenceKeeper(presence, bus, RealtimeMetrics(CollectorRegistry()), clock=clock, interval=10.0)
    running = asyncio.create_task(keeper.run())
    yield keeper
    running.cancel()
    await asyncio.wait([running])


async def test_who_comes_just_before_all_are_renewed_is_told_of(clock: Clock) -> None:
    presence, bus = SlowPresence(), Told()
    async with keeping(presence, bus, clock) as keeper:
        keeper.enter("c", ANN, PER_USER)
        await presence.asked.wait()
        keeper.enter("c", BOB, PER_USER)
        clock.now += 10.0
        presence.may_answer.set()

        told = [await bus.next(), await bus.next()]

    assert told == [Membership("c", ANN.info, is_join=True), Membership("c", BOB.info, is_join=True)]
