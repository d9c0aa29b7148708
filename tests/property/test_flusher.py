"""However frames come: each client gets what it was handed, given and answered, all of it, once and in that order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from realtime import flusher as module
from realtime.channel import Roster
from realtime.flusher import Flusher
from realtime.metrics import RealtimeMetrics
from tests import virtual_time
from tests.subscribers import BareSubscriber

CLIENTS = 7
ROSTERS = 3
WRITE_SECONDS = 0.0021  # longer than a slice

clients = st.integers(0, CLIENTS - 1)
rosters = st.integers(0, ROSTERS - 1)
steps = st.one_of(
    st.tuples(st.just("hand"), rosters),
    st.tuples(st.just("give"), clients),
    st.tuples(st.just("answer"), clients),
    st.tuples(st.just("flush"), clients),
    st.tuples(st.just("turn"), st.integers(1, 4)),
    st.tuples(st.just("come or go"), clients, rosters),
)


@dataclass
class Clock:
    """Of the loop, whose time stands still while something is done, and of what is done."""

    worked: float = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.worked


@dataclass(eq=False)
class Client(BareSubscriber):
    clock: Clock
    sent: list[bytes] = field(default_factory=list)
    got: bytes = b""

    def write(self, data: bytes) -> bool:
        self.clock.worked += WRITE_SECONDS
        self.got += data
        return True

    def has_all(self) -> bool:
        return self.got == b"".join(self.sent)


class Path:
    def __init__(self) -> None:
        clock = Clock()
        self.flusher = Flusher(RealtimeMetrics(CollectorRegistry()), fewest=2, clock=clock, cpu=clock)
        self.clients = [Client(clock) for _ in range(CLIENTS)]
        self.rosters = [Roster() for _ in range(ROSTERS)]
        for number, client in enumerate(self.clients):
            self.rosters[number % 2].add(client)
        self.answered: dict[Client, bytes] = {}  # and what each had been sent by then
        self.count = 0

    def frame(self) -> bytes:
        self.count += 1
        return b"%d " % self.count

    async def take(self, step: tuple[str, int] | tuple[str, int, int]) -> None:
        match step:
            case "hand", which:
                frame, roster = self.frame(), self.rosters[which]
                for client in self.clients:
                    if client in roster.subscribers:
                        client.sent.append(frame)
                self.flusher.hand(roster, frame)
            case "give" | "answer" as how, number:
                frame, client = self.frame(), self.clients[number]
                client.sent.append(frame)
                if how == "give":
                    self.flusher.give(client, frame)
                else:
                    self.flusher.answer(client, frame)
                    self.answered[client] = b"".join(client.sent)
            case "flush", number:
                self.flusher.flush(self.clients[number])
                assert self.clients[number].has_all()
            case "turn", times:
                for _ in range(times):
                    await asyncio.sleep(0)
                assert all(client.got.startswith(sent) for client, sent in self.answered.items())
                self.answered.clear()
            case _, number, which:
                client, roster = self.clients[number], self.rosters[which]
                (roster.remove if client in roster.subscribers else roster.add)(client)


@pytest.fixture(autouse=True, scope="module")
def _small_groups() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TOGETHER", 2)
        yield


@settings(max_examples=200)
@given(st.lists(steps, min_size=20, max_size=60))
def test_each_client_gets_everything_once_and_in_order(taken: list[tuple[str, int] | tuple[str, int, int]]) -> None:
    async def live() -> None:
        path = Path()
        for step in taken:
            await path.take(step)
        await asyncio.sleep(5)
        for client in path.clients:
            assert client.has_all()
            assert not client.pending

    virtual_time.run(live())
