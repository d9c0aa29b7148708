"""The relay: order per subject whatever fails, no row given up, and the lead given up when it cannot work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from handlers.ports.broker import BrokerAway, Deliveries, Delivery, Message
from handlers.ports.outbox import Leadership, OutboxAway, OutboxRow
from realtime.metrics import RealtimeMetrics
from realtime.relay import PAUSE_SECONDS, STUCK_SECONDS, Relay, waves
from tests import virtual_time


def row(number: int, subject: str) -> OutboxRow:
    return OutboxRow(number, Message(f"id-{number}", "order.paid", subject, b"%d" % number))


class MemoryOutbox:
    """One process's outbox; `fail_reads` loses the leadership so many times."""

    def __init__(self, rows: Sequence[OutboxRow]) -> None:
        self.rows = {row.id: row for row in rows}
        self.leads: list[float] = []
        self.fail_reads = 0
        self.limits: list[int] = []

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[Leadership]:
        self.leads.append(asyncio.get_running_loop().time())
        yield self

    async def pending(self, limit: int, *, published: Sequence[int]) -> Sequence[OutboxRow]:
        if self.fail_reads:
            self.fail_reads -= 1
            raise OutboxAway
        for id_ in published:
            del self.rows[id_]
        self.limits.append(limit)
        return [self.rows[id_] for id_ in sorted(self.rows)[:limit]]

    async def wait(self, timeout: float) -> None:
        await asyncio.sleep(timeout)


class UnreliableBroker:
    """Keeps a random part of each batch, and confirms no more than the run at its beginning: as RabbitMQ may."""

    def __init__(self, seed: int = 0, loss: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.kept: list[Message] = []
        self.batches: list[list[Message]] = []

    async def publish(self, messages: Sequence[Message]) -> int:
        self.batches.append(list(messages))
        keeps = [self.random.random() >= self.loss for _ in messages]
        self.kept += [message for message, kept in zip(messages, keeps, strict=True) if kept]
        durable = [*keeps, False].index(False)
        if not durable:
            raise BrokerAway
        return durable

    def consume(self, queue: str, *, prefetch: int) -> AbstractAsyncContextManager[Deliveries]:
        raise NotImplementedError

    async def dead_letter(self, delivery: Delivery, *, reason: str) -> None:
        raise NotImplementedError

    async def is_reachable(self) -> bool:
        return True


class SlowBroker(UnreliableBroker):
    """Takes a second for each batch, and is away at these of them."""

    def __init__(self, away: Sequence[int]) -> None:
        super().__init__()
        self.away = away

    async def publish(self, messages: Sequence[Message]) -> int:
        await asyncio.sleep(1)
        if len(self.batches) in self.away:
            self.batches.append([])
            raise BrokerAway
        return await super().publish(messages)


async def nothing() -> None:
    """Happens meanwhile."""


def relay_for(
    seconds: float,
    outbox: MemoryOutbox,
    broker: UnreliableBroker,
    meanwhile: Callable[[], Coroutine[None, None, None]] = nothing,
) -> CollectorRegistry:
    registry = CollectorRegistry()

    async def run() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                group.create_task(meanwhile())
                group.create_task(Relay(outbox, broker, RealtimeMetrics(registry)).run())

    virtual_time.run(run())
    return registry


@settings(max_examples=50)
@given(st.integers(), st.lists(st.sampled_from("abc"), max_size=30), st.floats(0, 0.5))
def test_however_publishing_fails_every_event_arrives_and_each_subject_in_order(
    seed: int, subjects: list[str], loss: float
) -> None:
    outbox = MemoryOutbox([row(number, subject) for number, subject in enumerate(subjects)])
    broker = UnreliableBroker(seed, loss)
    relay_for(120, outbox, broker)
    assert not outbox.rows
    for subject in "abc":
        first_arrivals = list(dict.fromkeys(int(m.body) for m in broker.kept if m.subject == subject))
        assert first_arrivals == [number for number, of in enumerate(subjects) if of == subject]


def test_within_a_wave_each_subject_occurs_once_and_waves_keep_the_rows_order() -> None:
    rows = [row(number, subject) for number, subject in enumerate("abcaabbc")]
    cut = list(waves(rows))
    assert [item for wave in cut for item in wave] == rows
    assert ["".join(item.message.subject for item in wave) for wave in cut] == ["abc", "a", "ab", "bc"]


def test_a_wave_is_bounded_in_bytes_but_takes_one_row_whatever_its_size() -> None:
    big = [OutboxRow(n, Message(f"{n}", "order.paid", f"s{n}", bytes(3_000_000))) for n in range(3)]
    huge = OutboxRow(9, Message("9", "order.paid", "s9", bytes(9_000_000)))
    assert [len(wave) for wave in waves([*big, huge])] == [1, 1, 1, 1]
    assert list(waves([])) == []


def test_reads_grow_with_the_backlog_and_shrink_again() -> None:
    outbox = MemoryOutbox([row(number, f"s{number}") for number in range(2000)])
    relay_for(1, outbox, UnreliableBroker())
    assert outbox.limits[:6] == [20, 40, 80, 160, 320, 500]
    assert outbox.limits[-1] == 20


def test_a_relay_that_cannot_publish_gives_the_lead_up_and_pauses_before_it_leads_again() -> None:
    outbox = MemoryOutbox([row(1, "a")])
    relay_for(60, outbox, UnreliableBroker(loss=1))
    assert outbox.rows
    assert len(outbox.leads) > 2
    assert all(
        later - earlier > STUCK_SECONDS + PAUSE_SECONDS
        for earlier, later in zip(outbox.leads, outbox.leads[1:], strict=False)
    )


def test_a_relay_that_is_never_done_keeps_the_lead_when_the_broker_goes_for_a_moment() -> None:
    outbox, broker = MemoryOutbox([row(number, "a") for number in range(60)]), SlowBroker(away=[int(2 * STUCK_SECONDS)])
    relay_for(40 * STUCK_SECONDS, outbox, broker)
    assert not outbox.rows
    assert outbox.leads == [0.0]


def test_each_outage_of_the_broker_is_told_once() -> None:
    outbox = MemoryOutbox([row(number, "a") for number in range(10)])
    with capture_logs() as logs:
        relay_for(60, outbox, SlowBroker(away=[3, 4, 5, 9]))
    assert not outbox.rows
    assert [line["event"] for line in logs].count("relay_waits_for_broker") == 2


def test_an_idle_relay_keeps_the_lead() -> None:
    outbox = MemoryOutbox([])
    relay_for(300, outbox, UnreliableBroker())
    assert outbox.leads == [0.0]


def test_a_broker_that_is_away_is_tried_again_with_growing_pauses_of_at_most_two_seconds() -> None:
    outbox, broker = MemoryOutbox([row(1, "a")]), UnreliableBroker(loss=1)
    relay_for(STUCK_SECONDS, outbox, broker)
    assert 6 < len(broker.batches) < 25


def test_a_lost_outbox_is_led_again() -> None:
    outbox = MemoryOutbox([row(1, "a")])
    outbox.fail_reads = 3
    registry = relay_for(60, outbox, UnreliableBroker())
    assert len(outbox.leads) == 4
    assert not outbox.rows
    assert registry.get_sample_value("orderwire_relayed_events_total") == 1
    assert registry.get_sample_value("orderwire_relay_leads") == 0


def test_an_outbox_that_can_be_led_and_not_read_is_tried_again_with_growing_pauses() -> None:
    outbox = MemoryOutbox([row(1, "a")])
    outbox.fail_reads = 1_000_000
    relay_for(60, outbox, UnreliableBroker())
    assert 12 < len(outbox.leads) < 35


def test_after_an_outbox_was_read_the_next_loss_is_tried_again_at_once() -> None:
    outbox = MemoryOutbox([row(1, "a")])
    outbox.fail_reads = 8
    lost_at = 40

    async def lose() -> None:
        await asyncio.sleep(lost_at)
        outbox.fail_reads = 1

    relay_for(60, outbox, UnreliableBroker(), lose)
    assert lost_at < outbox.leads[-1] < lost_at + 0.5
