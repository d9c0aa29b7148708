from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from handlers.ports.streams import Publication
from realtime.channel import Subscriber
from realtime.flusher import Flusher
from realtime.metrics import RealtimeMetrics


class NoEncoding:
    def publication(self, channel: str, publication: Publication) -> bytes:
        return b"%b %d" % (channel.encode(), publication.offset)


@dataclass(eq=False)
class Recorder:
    """Keeps every write. Two instances are two clients."""

    writes: list[bytes] = field(default_factory=list)
    pending: list[bytes] = field(default_factory=list)
    encoding: NoEncoding = field(default_factory=NoEncoding)

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    async def writable(self) -> None:
        raise NotImplementedError

    def dropped(self, channel: str) -> None:
        raise NotImplementedError(channel)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def flusher(registry: CollectorRegistry) -> Flusher:
    return Flusher(RealtimeMetrics(registry), wall=lambda: 100.0)


def give(flusher: Flusher, clients: list[Recorder], frame: bytes) -> None:
    marked: dict[Subscriber, None] = {}
    for client in clients:
        client.pending.append(frame)
        marked[client] = None
    flusher.mark(marked)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_pending_together_is_one_write(flusher: Flusher) -> None:
    client = Recorder()
    for frame in (b"a", b"b", b"c"):
        give(flusher, [client], frame)
    await turns(2)
    assert client.writes == [b"abc"]


async def test_between_slices_others_get_their_turn(flusher: Flusher) -> None:
    clients = [Recorder() for _ in range(1000)]
    give(flusher, clients, b"a")
    seen: list[int] = []
    while not seen or seen[-1] < 1000:
        await turns(1)
        seen.append(sum(len(client.writes) for client in clients))
    assert len(seen) > 4


async def test_others_that_are_busy_have_three_times_as_long_as_a_slice_and_no_longer(flusher: Flusher) -> None:
    clients = [Recorder() for _ in range(1000)]
    give(flusher, clients, b"a")
    written, turns_taken = 0, 0
    while written < 1000:
        until = time.monotonic() + 0.0005
        while time.monotonic() < until:
            pass
        await turns(1)
        turns_taken += 1
        written = sum(len(client.writes) for client in clients)
    assert turns_taken > 3 * (1000 // 128)


async def test_what_comes_during_a_round_is_written_after_what_was_there(flusher: Flusher) -> None:
    clients = [Recorder() for _ in range(300)]
    give(flusher, clients, b"a")
    await turns(1)
    give(flusher, clients, b"b")
    await turns(60)
    assert {b"".join(client.writes) for client in clients} == {b"ab"}


async def test_a_client_that_left_meanwhile_is_passed_over(flusher: Flusher) -> None:
    gone, here = Recorder(), Recorder()
    give(flusher, [gone, here], b"a")
    gone.pending.clear()
    await turns(2)
    assert (gone.writes, here.writes) == ([], [b"a"])


async def test_the_latency_of_a_publication_is_measured_once_when_everyone_has_it(
    flusher: Flusher, registry: CollectorRegistry
) -> None:
    def count() -> float | None:
        return registry.get_sample_value("orderwire_commit_to_client_seconds_count")

    give(flusher, [Recorder() for _ in range(300)], b"a")
    flusher.observe(99_500)
    assert count() == 0
    await turns(60)
    assert count() == 1
    assert registry.get_sample_value("orderwire_commit_to_client_seconds_sum") == pytest.approx(0.5)
