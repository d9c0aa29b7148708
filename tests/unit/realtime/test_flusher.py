from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from realtime.channel import Roster
from realtime.flusher import Flusher
from realtime.metrics import RealtimeMetrics
from realtime.wire import Batch, OneByOne, Sink
from tests.subscribers import BareSubscriber


class Clock:
    """Seconds that pass when somebody says that they were at work."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class Recorder(BareSubscriber):
    """Keeps every write, which takes 10 us, unless it is too slow. Two instances are two clients."""

    clock: Clock
    writes: list[bytes] = field(default_factory=list)
    is_slow: bool = False
    is_closed: bool = False

    def write(self, data: bytes) -> bool:
        self.clock.now += 1e-5
        if not self.is_slow:
            self.writes.append(data)
        return not self.is_slow

    def overflowed(self) -> None:
        self.is_closed = True


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
    for client in clients:
        flusher.give(client, frame)


def hand(flusher: Flusher, clients: list[Recorder], *frames: bytes) -> None:
    roster = roster_of(clients)
    for frame in frames:
        flusher.hand(roster, frame)


def roster_of(clients: list[Recorder]) -> Roster:
    roster = Roster()
    for client in clients:
        roster.add(client)
    return roster


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


async def test_between_slices_of_two_milliseconds_others_get_their_turn(flusher: Flusher, clock: Clock) -> None:
    clients = [Recorder(clock) for _ in range(1000)]
    give(flusher, clients, b"a")
    seen: list[int] = []
    while not seen or seen[-1] < 1000:
        await turns(1)
        seen.append(sum(len(client.writes) for client in clients))
    slices = [later - earlier for earlier, later in zip([0, *seen], seen, strict=False) if later > earlier]
    assert slices == [256, 256, 256, 232]  # it looks at the clock after every 128


async def test_others_that_are_busy_have_as_long_as_a_slice_and_no_longer(flusher: Flusher, clock: Clock) -> None:
    clients = [Recorder(clock) for _ in range(1000)]
    give(flusher, clients, b"a")
    others = 0.0
    while sum(len(client.writes) for client in clients) < 1000:
        clock.now += 0.0005
        others += 0.0005
        await turns(1)
    assert others == pytest.approx(0.01, rel=0.25)


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


@pytest.mark.parametrize("count", [2, 100])
async def test_what_all_get_and_what_comes_before_it_is_written_are_one_write(
    flusher: Flusher, clock: Clock, count: int
) -> None:
    alike = [Recorder(clock) for _ in range(count)]
    hand(flusher, alike, b"a")
    hand(flusher, alike, b"b")
    await turns(3)
    assert {tuple(client.writes) for client in alike} == {(b"ab",)}
    assert alike[0].writes[0] is alike[1].writes[0]


@pytest.mark.parametrize("count", [1, 100])
async def test_one_that_is_flushed_at_once_gets_what_all_get_once_and_in_order(
    flusher: Flusher, clock: Clock, count: int
) -> None:
    ahead, *others = (Recorder(clock) for _ in range(1 + count))
    hand(flusher, [*others, ahead], b"a")
    give(flusher, [ahead], b"b")
    flusher.flush(ahead)
    assert b"".join(ahead.writes) == b"ab"
    await turns(10)
    assert (b"".join(ahead.writes), {tuple(each.writes) for each in others}) == (b"ab", {(b"a",)})


async def test_who_comes_or_goes_after_something_was_handed_out_changes_nothing_of_who_gets_it(
    flusher: Flusher, clock: Clock
) -> None:
    first, second, late, *others = (Recorder(clock) for _ in range(20))
    roster = roster_of([first, second, *others])
    flusher.hand(roster, b"a")
    roster.remove(first)
    roster.add(late)
    await turns(2)
    assert (first.writes, second.writes, late.writes) == ([b"a"], [b"a"], [])
    await rested(clock)
    flusher.hand(roster, b"b")
    await turns(2)
    assert (first.writes, second.writes, late.writes) == ([b"a"], [b"a", b"b"], [b"b"])


@pytest.mark.parametrize("is_for_all", [False, True])
@pytest.mark.parametrize("others", [1, 100])
async def test_a_client_that_is_too_slow_is_told_so_and_nobody_else_notices(
    flusher: Flusher, clock: Clock, is_for_all: bool, others: int
) -> None:
    before, slow, after = Recorder(clock), Recorder(clock, is_slow=True), [Recorder(clock) for _ in range(others)]
    (hand if is_for_all else give)(flusher, [before, slow, *after], b"a")
    await turns(10)
    assert slow.is_closed
    assert {(each.is_closed, *each.writes) for each in (before, *after)} == {(False, b"a")}


async def test_who_is_written_to_together_is_found_out_once_until_somebody_comes_or_goes(
    registry: CollectorRegistry, clock: Clock
) -> None:
    made: list[int] = []

    def make(sinks: Sequence[Sink]) -> Batch:
        made.append(len(sinks))
        return OneByOne(sinks)

    flusher = Flusher(RealtimeMetrics(registry), make, clock=clock, wall=lambda: 100.0)
    first, *others = (Recorder(clock) for _ in range(200))
    roster = roster_of([first, *others])
    for frame in (b"a", b"b"):
        flusher.hand(roster, frame)
        await turns(10)
        await rested(clock)
    assert made == [128, 72]
    roster.remove(first)
    flusher.hand(roster, b"c")
    await turns(10)
    assert made == [128, 72, 128, 71]
    assert (b"".join(first.writes), {b"".join(each.writes) for each in others}) == (b"ab", {b"abc"})


async def test_what_one_gets_while_something_for_all_waits_comes_after_it(flusher: Flusher, clock: Clock) -> None:
    one, *others = (Recorder(clock) for _ in range(100))
    hand(flusher, [one, *others], b"a")
    give(flusher, [one], b"b")
    await turns(10)
    assert (b"".join(one.writes), {tuple(each.writes) for each in others}) == (b"ab", {(b"a",)})


async def test_a_round_that_comes_too_early_waits_and_joins_what_comes_meanwhile(
    registry: CollectorRegistry, clock: Clock
) -> None:
    processor = Clock()
    flusher = Flusher(RealtimeMetrics(registry), clock=clock, wall=lambda: 100.0, cpu=processor)
    busy = Recorder(clock)
    for _ in range(20):  # with others, who leave rounds two fifths
        clock.now += 0.1
        processor.now += 0.09
        hand(flusher, [busy], b"")
        await turns(2)
    clients = [Recorder(clock) for _ in range(3000)]
    began = clock.now
    hand(flusher, clients, b"a")
    await turns(200)
    assert clock.now - began == pytest.approx(0.03)
    hand(flusher, clients, b"b", b"c")
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
    flusher.give(one, b"answer")
    flusher.flush(one)
    flusher.give(other, b"for the other")
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
    flusher.answer(clients[5], b"reply")
    await turns(1)
    assert (b"".join(clients[5].writes), clients[500].writes) == (b"abreply", [b"a"])
    await asyncio.sleep(0.03)
    await turns(60)
    assert {b"".join(client.writes) for client in clients[6:]} == {b"ab"}
    assert b"".join(clients[5].writes) == b"abreply"


async def test_what_all_get_comes_after_an_answer_that_was_given_before_it(flusher: Flusher, clock: Clock) -> None:
    joined, other = Recorder(clock), Recorder(clock)
    flusher.answer(joined, b"reply")
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


@dataclass(eq=False)
class Broken(Recorder):
    is_slow: bool = True

    def overflowed(self) -> None:
        raise LookupError("a bug")


@pytest.mark.parametrize("say", [give, hand])
async def test_a_client_whose_end_fails_takes_nothing_from_the_others(
    flusher: Flusher, clock: Clock, say: Callable[[Flusher, list[Recorder], bytes], None]
) -> None:
    """A loop only reports what fails in it, and whatever that was to do next is not done."""
    others = [Recorder(clock) for _ in range(20)]
    with capture_logs() as logs:
        for frame in (b"a", b"b"):
            say(flusher, [*others[:10], Broken(clock), *others[10:]], frame)
            await rested(clock)
    assert [client.writes for client in others] == [[b"a", b"b"]] * 20
    assert {(log["event"], log["log_level"]) for log in logs} == {("overflow_failed", "error")}
