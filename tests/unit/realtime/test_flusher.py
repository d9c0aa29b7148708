from __future__ import annotations

import asyncio
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

    def compressed(self, channel: str, publication: Publication, base: bytes | None) -> bytes:
        raise NotImplementedError(channel, publication, base)

    def membership(self, channel: str, info: bytes, *, is_join: bool) -> bytes:
        raise NotImplementedError(channel, info, is_join)


class Clock:
    """Seconds that pass when somebody says that they were at work."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class Recorder:
    """Keeps every write, which takes 10 us, unless it is too slow. Two instances are two clients."""

    clock: Clock
    writes: list[bytes] = field(default_factory=list)
    pending: list[bytes] = field(default_factory=list)
    encoding: NoEncoding = field(default_factory=NoEncoding)
    is_slow: bool = False
    is_closed: bool = False

    def send(self, data: bytes) -> bool:
        self.clock.now += 1e-5
        if not self.is_slow:
            self.writes.append(data)
        return not self.is_slow

    def overflowed(self) -> None:
        self.is_closed = True

    def hold(self, channel: str, frame: bytes) -> bool:
        raise NotImplementedError

    async def writable(self) -> None:
        raise NotImplementedError

    def dropped(self, channel: str) -> None:
        raise NotImplementedError(channel)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def flusher(registry: CollectorRegistry, clock: Clock) -> Flusher:
    return Flusher(RealtimeMetrics(registry), clock=clock, wall=lambda: 100.0)


def give(flusher: Flusher, clients: list[Recorder], frame: bytes) -> None:
    marked: dict[Subscriber, None] = {}
    for client in clients:
        client.pending.append(frame)
        marked[client] = None
    flusher.mark(marked)


def hand(flusher: Flusher, clients: list[Recorder], frame: bytes) -> None:
    flusher.hand(dict.fromkeys(clients), frame)


async def rested(clock: Clock) -> None:
    """Long enough for any round that waits for its time."""
    clock.now += 1
    await asyncio.sleep(0.03)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_pending_together_is_one_write(flusher: Flusher, clock: Clock) -> None:
    client = Recorder(clock)
    for frame in (b"a", b"b", b"c"):
        give(flusher, [client], frame)
    await turns(2)
    assert client.writes == [b"abc"]


async def test_clients_with_the_same_frames_share_one_joined_copy(flusher: Flusher, clock: Clock) -> None:
    alike, other = [Recorder(clock), Recorder(clock)], Recorder(clock)
    for frame in (b"first", b"second"):
        give(flusher, alike, frame)
    give(flusher, [other], b"else")
    give(flusher, [other], b"where")
    await turns(2)
    assert alike[0].writes[0] is alike[1].writes[0]
    assert (alike[0].writes, other.writes) == ([b"firstsecond"], [b"elsewhere"])


async def test_between_slices_of_a_millisecond_others_get_their_turn(flusher: Flusher, clock: Clock) -> None:
    clients = [Recorder(clock) for _ in range(1000)]
    give(flusher, clients, b"a")
    seen: list[int] = []
    while not seen or seen[-1] < 1000:
        await turns(1)
        seen.append(sum(len(client.writes) for client in clients))
    slices = [later - earlier for earlier, later in zip([0, *seen], seen, strict=False) if later > earlier]
    assert len(slices) == 10
    assert max(slices) <= 104  # it looks at the clock after every eighth


async def test_others_that_are_busy_have_three_times_as_long_as_a_slice_and_no_longer(
    flusher: Flusher, clock: Clock
) -> None:
    clients = [Recorder(clock) for _ in range(1000)]
    give(flusher, clients, b"a")
    others = 0.0
    while sum(len(client.writes) for client in clients) < 1000:
        clock.now += 0.0005
        others += 0.0005
        await turns(1)
    assert others == pytest.approx(3 * 0.01, rel=0.25)


async def test_what_comes_during_a_round_is_written_after_what_was_there(flusher: Flusher, clock: Clock) -> None:
    clients = [Recorder(clock) for _ in range(300)]
    give(flusher, clients, b"a")
    await turns(1)
    give(flusher, clients, b"b")
    await turns(60)
    await rested(clock)
    await turns(60)
    assert {b"".join(client.writes) for client in clients} == {b"ab"}


async def test_what_all_get_comes_after_what_one_has_pending_and_before_what_it_gets_later(
    flusher: Flusher, clock: Clock
) -> None:
    clients = [Recorder(clock) for _ in range(300)]
    give(flusher, clients[:100], b"a")
    hand(flusher, clients, b"b")
    await turns(60)
    await rested(clock)
    hand(flusher, clients, b"c")
    give(flusher, clients[100:], b"d")
    await turns(1)
    hand(flusher, clients, b"e")
    await turns(60)
    await rested(clock)
    await turns(60)
    assert {b"".join(client.writes) for client in clients[:100]} == {b"abce"}
    assert {b"".join(client.writes) for client in clients[100:]} == {b"bcde"}


async def test_what_all_get_and_what_comes_before_it_is_written_are_one_write(flusher: Flusher, clock: Clock) -> None:
    alike = [Recorder(clock), Recorder(clock)]
    hand(flusher, alike, b"a")
    hand(flusher, alike, b"b")
    await turns(3)
    assert [client.writes for client in alike] == [[b"ab"], [b"ab"]]
    assert alike[0].writes[0] is alike[1].writes[0]


async def test_one_that_is_flushed_at_once_gets_what_all_get_once_and_in_order(flusher: Flusher, clock: Clock) -> None:
    ahead, other = Recorder(clock), Recorder(clock)
    hand(flusher, [ahead, other], b"a")
    give(flusher, [ahead], b"b")
    flusher.flush(ahead)
    assert ahead.writes == [b"ab"]
    await turns(3)
    assert (ahead.writes, other.writes) == ([b"ab"], [b"a"])


async def test_who_comes_or_goes_after_something_was_handed_out_changes_nothing_of_who_gets_it(
    flusher: Flusher, clock: Clock
) -> None:
    subscribers: dict[Subscriber, None] = dict.fromkeys([first := Recorder(clock), second := Recorder(clock)])
    flusher.hand(subscribers, b"a")
    del subscribers[first]
    subscribers[late := Recorder(clock)] = None
    await turns(2)
    assert (first.writes, second.writes, late.writes) == ([b"a"], [b"a"], [])


@pytest.mark.parametrize("is_for_all", [False, True])
async def test_a_client_that_is_too_slow_is_told_so_and_nobody_else_notices(
    flusher: Flusher, clock: Clock, is_for_all: bool
) -> None:
    slow, other = Recorder(clock, is_slow=True), Recorder(clock)
    (hand if is_for_all else give)(flusher, [slow, other], b"a")
    await turns(2)
    assert (slow.is_closed, other.is_closed, other.writes) == (True, False, [b"a"])


async def test_a_round_that_comes_too_early_waits_and_joins_what_comes_meanwhile(
    registry: CollectorRegistry, clock: Clock
) -> None:
    processor = Clock()
    flusher = Flusher(RealtimeMetrics(registry), clock=clock, wall=lambda: 100.0, cpu=processor)
    busy = Recorder(clock)
    for _ in range(20):  # with others, who leave rounds a third
        clock.now += 0.1
        processor.now += 0.09
        hand(flusher, [busy], b"")
        await turns(2)
    clients = [Recorder(clock) for _ in range(3000)]
    began = clock.now
    hand(flusher, clients, b"a")
    await turns(200)
    assert clock.now - began == pytest.approx(0.03)
    hand(flusher, clients, b"b")
    hand(flusher, clients, b"c")
    await turns(200)
    assert {len(client.writes) for client in clients} == {1}
    await asyncio.sleep(0.12)  # a timer of the loop, whose clock is another
    await turns(200)
    assert {tuple(client.writes) for client in clients} == {(b"a", b"bc")}


async def test_one_round_that_took_long_does_not_hold_up_the_next(flusher: Flusher, clock: Clock) -> None:
    clients = [Recorder(clock) for _ in range(1000)]
    for frame in (b"a", b"b"):
        hand(flusher, clients, frame)
        await turns(60)
    assert {tuple(client.writes) for client in clients} == {(b"a", b"b")}


async def test_what_was_for_one_who_was_answered_before_the_round_is_for_nobody_else(
    flusher: Flusher, clock: Clock
) -> None:
    one, other = Recorder(clock), Recorder(clock)
    hand(flusher, [one], b"for one")
    one.pending.append(b"answer")
    flusher.flush(one)
    other.pending.append(b"for the other")
    flusher.mark({one: None, other: None})
    await turns(10)
    assert one.writes == [b"for oneanswer"]
    assert other.writes == [b"for the other"]


async def test_after_a_quiet_while_nothing_waits(flusher: Flusher, clock: Clock) -> None:
    clients = [Recorder(clock) for _ in range(100)]
    for frame in (b"a", b"b"):
        hand(flusher, clients, frame)
        await turns(10)
        clock.now += 0.002
    assert {tuple(client.writes) for client in clients} == {(b"a", b"b")}


async def test_an_answer_waits_for_no_round_and_comes_in_its_order(flusher: Flusher, clock: Clock) -> None:
    clients = [Recorder(clock) for _ in range(1000)]
    hand(flusher, clients, b"a")
    await turns(60)
    hand(flusher, clients, b"b")
    clients[5].pending.append(b"reply")
    flusher.answer(clients[5])
    await turns(1)
    assert (clients[5].writes, clients[6].writes) == ([b"a", b"breply"], [b"a"])
    await asyncio.sleep(0.03)
    await turns(60)
    assert {b"".join(client.writes) for client in clients[6:]} == {b"ab"}
    assert clients[5].writes == [b"a", b"breply"]


async def test_what_all_get_comes_after_an_answer_that_was_given_before_it(flusher: Flusher, clock: Clock) -> None:
    joined, other = Recorder(clock), Recorder(clock)
    joined.pending.append(b"reply")
    flusher.answer(joined)
    hand(flusher, [joined, other], b"a")
    await turns(3)
    assert (b"".join(joined.writes), other.writes) == (b"replya", [b"a"])


async def test_a_client_that_left_meanwhile_is_passed_over(flusher: Flusher, clock: Clock) -> None:
    gone, here = Recorder(clock), Recorder(clock)
    give(flusher, [gone, here], b"a")
    gone.pending.clear()
    await turns(2)
    assert (gone.writes, here.writes) == ([], [b"a"])


async def test_the_latency_of_a_publication_is_measured_once_when_everyone_has_it(
    flusher: Flusher, registry: CollectorRegistry, clock: Clock
) -> None:
    def count() -> float | None:
        return registry.get_sample_value("orderwire_commit_to_client_seconds_count")

    give(flusher, [Recorder(clock) for _ in range(300)], b"a")
    flusher.observe(99_500)
    assert count() == 0
    await turns(60)
    assert count() == 1
    assert registry.get_sample_value("orderwire_commit_to_client_seconds_sum") == pytest.approx(0.5)
