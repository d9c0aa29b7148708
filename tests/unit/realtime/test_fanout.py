"""The fan-out's judgement: who may say what, who hears it, and how much goes together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from handlers.events import SOURCE, Event, LifeCycleType, OwnType
from handlers.ports.broker import BrokerAway, Deliveries, Delivery, Message
from handlers.ports.streams import Entry, Keep, Published, StreamsAway
from realtime.bus import Item, decode
from realtime.bus_memory import MemoryExchange
from realtime.cloudevents import BadEvent
from realtime.fanout import BATCH_BYTES, FanOut, FanOutOptions, batches, entries_for, judge
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import ChannelOptions, Namespaces
from tests import virtual_time
from tests.property.streams_model import ModelStreams

NOW, NOW_MS = datetime(2026, 1, 31, 9, 30, tzinfo=UTC), 1769851800000
ORDER, CUSTOMER = UUID("019c0000-0000-7000-8000-000000000001"), UUID("019c0000-0000-7000-8000-000000000002")


def event(type_: str = "invoice.sent", source: str = "/billing", channel: str | None = None) -> Event:
    return Event("7", source, type_, str(ORDER), NOW, {"version": 1}, channel=channel)


def options(configured: dict[str, str] | None = None) -> FanOutOptions:
    named = {"news": ChannelOptions(history_size=5, history_ttl=60.0), "ticker": ChannelOptions()}
    return FanOutOptions(400, configured or {}, Namespaces(retention=86_400, named=named))


def delivery(of: Event, *, trusted: bool) -> Delivery:
    return Delivery(1, of.encode(), "application/cloudevents+json", trusted=trusted)


@pytest.mark.parametrize(
    "of",
    [
        event(OwnType.ORDER_PAID),
        event(source=SOURCE),
        event(OwnType.ORDER_PAID, SOURCE),
        event(LifeCycleType.CLIENT_CONNECTED),
    ],
)
def test_only_our_relay_may_speak_as_ourselves(of: Event) -> None:
    assert judge(delivery(of, trusted=True), NOW) == of
    with pytest.raises(BadEvent, match="forged"):
        judge(delivery(of, trusted=False), NOW)


def test_what_is_told_of_clients_is_heard_where_that_is_configured_and_else_by_nobody() -> None:
    told = event(LifeCycleType.CHANNEL_OCCUPIED, SOURCE)
    assert entries_for(told, options(), NOW) == []
    [entry] = entries_for(told, options({"channel.occupied": "news:channels"}), NOW)
    assert entry.channel == "news:channels"


def test_anybody_may_send_types_of_their_own() -> None:
    assert judge(delivery(event(), trusted=False), NOW) == event()


def test_an_order_is_heard_by_the_feed_the_order_and_its_customer() -> None:
    entries = entries_for(Event("7", SOURCE, "order.paid", str(ORDER), NOW, {}, recipient=CUSTOMER), options(), NOW)
    assert [entry.channel for entry in entries] == ["orders:feed", f"order:{ORDER}", f"#{CUSTOMER}"]
    assert {(entry.source, entry.id) for entry in entries} == {(SOURCE, "7")}


@pytest.mark.parametrize(
    ("channel", "configured", "reason"),
    [
        (None, {}, "unaddressed"),
        (None, {"other.type": "orders:feed"}, "unaddressed"),
        ("nowhere", {}, "unknown_channel"),
        (None, {"invoice.sent": "nowhere:{subject}"}, "unknown_channel"),
        ("order:{subject}", {}, "unknown_channel"),
        ("order:17", {}, "unknown_channel"),
        ("news:ü", {}, "unknown_channel"),
    ],
)
def test_an_event_that_nobody_can_hear_is_refused(channel: str | None, configured: dict[str, str], reason: str) -> None:
    with pytest.raises(BadEvent, match=reason):
        entries_for(event(channel=channel), options(configured), NOW)


def test_a_type_can_be_given_its_channel_by_configuration() -> None:
    [entry] = entries_for(event(), options({"invoice.sent": "order:{subject}"}), NOW)
    assert entry.channel == f"order:{ORDER}"


def test_an_event_may_go_to_a_configured_channel_which_says_how_much_is_kept() -> None:
    [entry] = entries_for(event(channel="news:today"), options(), NOW)
    assert (entry.channel, entry.keep) == ("news:today", Keep(5, 60.0))


async def test_an_event_for_a_channel_without_history_goes_to_the_nodes_alone() -> None:
    broker = OneBatch(delivery(event(channel="ticker:a"), trusted=False))
    streams, bus = ModelStreams(), MemoryExchange().bus()
    heard: asyncio.Queue[Item] = asyncio.Queue()

    def receive(message: bytes) -> None:
        for item in decode(message):
            heard.put_nowait(item)

    fan_out = FanOut("queue", broker, streams, bus, RealtimeMetrics(CollectorRegistry()), options())
    running = [
        asyncio.create_task(bus.run(receive)),
        asyncio.create_task(fan_out.run()),
    ]
    item = await asyncio.wait_for(heard.get(), 5)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    assert isinstance(item, Published)
    assert (item.channel, item.publication.offset) == ("ticker:a", 0)
    assert not streams.history


@pytest.mark.parametrize("time", [NOW - timedelta(days=400), NOW, NOW + timedelta(days=400)])
def test_another_services_event_begins_when_it_comes_in_whatever_its_clock_says(time: datetime) -> None:
    of = Event("7", "/billing", "invoice.sent", "", time, None, channel="orders:feed")
    assert [entry.time_ms for entry in entries_for(of, options(), NOW)] == [NOW_MS]


@pytest.mark.parametrize(("age", "time_ms"), [(timedelta(seconds=3), NOW_MS - 3000), (-timedelta(seconds=3), NOW_MS)])
def test_our_own_event_begins_when_it_happened_and_never_in_the_future(age: timedelta, time_ms: int) -> None:
    of = Event("7", SOURCE, OwnType.ORDER_PAID, str(ORDER), NOW - age, None)
    assert [entry.time_ms for entry in entries_for(of, options(), NOW)] == [time_ms, time_ms]


def test_batches_are_bounded_in_bytes_and_keep_the_order() -> None:
    deliveries = [Delivery(tag, bytes(BATCH_BYTES // 4), None) for tag in range(10)]
    cut = list(batches([*deliveries, Delivery(10, bytes(2 * BATCH_BYTES), None)]))
    assert [len(batch) for batch in cut] == [4, 4, 2, 1]
    assert [one.tag for batch in cut for one in batch] == list(range(11))


class OneBatch:
    """A broker whose queue holds these; afterwards nothing comes."""

    def __init__(self, *batch: Delivery) -> None:
        self.batch: Sequence[Delivery] = batch
        self.is_through = asyncio.Event()

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Deliveries]:  # noqa: ARG002
        yield self

    async def receive(self) -> Sequence[Delivery]:
        batch, self.batch = self.batch, ()
        if not batch:
            self.is_through.set()
            await asyncio.Event().wait()
        return batch

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None: ...

    async def publish(self, messages: Sequence[Message]) -> int:
        raise NotImplementedError

    async def dead_letter(self, delivery: Delivery, *, reason: str) -> None:
        raise NotImplementedError

    async def is_reachable(self) -> bool:
        raise NotImplementedError


async def test_an_event_can_be_followed_to_where_its_channels_have_it() -> None:
    paid = Event("7", SOURCE, "order.paid", str(ORDER), NOW, {}, recipient=CUSTOMER)
    broker = OneBatch(delivery(event(channel="orders:feed"), trusted=False), delivery(paid, trusted=True))
    metrics = RealtimeMetrics(CollectorRegistry())
    with capture_logs() as logs:
        running = asyncio.create_task(
            FanOut("queue", broker, ModelStreams(), MemoryExchange().bus(), metrics, options()).run()
        )
        await broker.is_through.wait()
        running.cancel()
        await asyncio.wait([running])
    assert [(line["source"], line["event_id"], line["places"]) for line in logs] == [
        ("/billing", "7", [("orders:feed", 1)]),
        (SOURCE, "7", [("orders:feed", 2), (f"order:{ORDER}", 1), (f"#{CUSTOMER}", 1)]),
    ]


async def test_while_many_events_are_looked_into_others_have_their_turns() -> None:
    broker = OneBatch(*(delivery(event(channel="orders:feed"), trusted=False) for _ in range(100)))
    streams, turns = ModelStreams(), 0
    bus, metrics = MemoryExchange().bus(), RealtimeMetrics(CollectorRegistry())
    running = asyncio.create_task(FanOut("queue", broker, streams, bus, metrics, options()).run())
    while not broker.is_through.is_set():
        await asyncio.sleep(0)
        turns += 1
    running.cancel()
    await asyncio.wait([running])

    assert turns > 12


class Troubled(OneBatch):
    """One that fails to put letters aside, as its streams fail to append, so many times, at the moments
    `failed_at`; `steps` is what succeeded."""

    def __init__(self, *batch: Delivery, failures: int) -> None:
        super().__init__(*batch)
        self.failures = failures
        self.failed_at: list[float] = []
        self.steps: list[str] = []

    def fails(self) -> bool:
        if len(self.failed_at) == self.failures:
            return False
        self.failed_at.append(asyncio.get_running_loop().time())
        return True

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self.steps.append(f"{len(deliveries)} acknowledged")

    async def dead_letter(self, delivery: Delivery, *, reason: str) -> None:  # noqa: ARG002
        if self.fails():
            raise BrokerAway
        self.steps.append(reason)


class TroubledStreams(ModelStreams):
    def __init__(self, broker: Troubled) -> None:
        super().__init__()
        self.broker = broker

    async def append(self, entries: Sequence[Entry]) -> Mapping[int, Published]:
        if self.broker.fails():
            raise StreamsAway
        self.broker.steps.append(f"{len(entries)} appended")
        return await super().append(entries)


async def moved(broker: Troubled) -> list[str]:
    """What the nodes are told of: the channels."""
    heard: list[str] = []
    bus = MemoryExchange().bus()

    def receive(message: bytes) -> None:
        heard.extend(item.channel for item in decode(message) if isinstance(item, Published))

    fan_out = FanOut("queue", broker, TroubledStreams(broker), bus, RealtimeMetrics(CollectorRegistry()), options())
    running = [asyncio.create_task(bus.run(receive)), asyncio.create_task(fan_out.run())]
    await broker.is_through.wait()
    await asyncio.sleep(1)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    return heard


STORED = delivery(event(channel="orders:feed"), trusted=False)
PASSING = delivery(event(channel="ticker:a"), trusted=False)
FORGED = delivery(event(OwnType.ORDER_PAID), trusted=False)


@pytest.mark.parametrize("failures", [0, 3])
def test_a_batch_is_acknowledged_after_all_of_it_was_done_however_often_that_failed(failures: int) -> None:
    for batch, steps in (
        ([STORED], ["1 appended", "1 acknowledged"]),
        ([FORGED], ["forged", "1 acknowledged"]),
        ([FORGED, STORED, PASSING, FORGED], ["1 appended", "forged", "forged", "4 acknowledged"]),
    ):
        broker = Troubled(*batch, failures=failures)
        virtual_time.run(moved(broker))
        assert broker.steps == steps


@pytest.mark.parametrize("of", [STORED, FORGED], ids=["append", "dead letter"])
def test_what_failed_is_tried_again_after_a_pause_that_grows(of: Delivery) -> None:
    broker = Troubled(of, failures=10)
    virtual_time.run(moved(broker))
    pauses = [after - before for before, after in pairwise(broker.failed_at)]
    assert all(pauses)
    assert pauses[-1] > pauses[0]


def test_the_nodes_are_told_of_what_is_kept_and_of_what_is_not() -> None:
    assert virtual_time.run(moved(Troubled(STORED, PASSING, failures=0))) == ["orders:feed", "ticker:a"]


class Steady(OneBatch):
    """Has a delivery each second. `stays` says from when until when somebody consumed."""

    def __init__(self) -> None:
        super().__init__()
        self.stays: list[tuple[float, float]] = []

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Deliveries]:  # noqa: ARG002
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield self
        finally:
            self.stays.append((began, loop.time()))

    async def receive(self) -> Sequence[Delivery]:
        await asyncio.sleep(1)
        return [STORED]


async def consumed(broker: Steady, *, is_mine: bool) -> None:
    bus, metrics = MemoryExchange().bus(), RealtimeMetrics(CollectorRegistry())
    fan_out = FanOut("queue", broker, ModelStreams(), bus, metrics, options(), is_mine=lambda: is_mine)
    with suppress(TimeoutError):
        async with asyncio.timeout(99.5):
            await fan_out.run()


def test_who_consumes_its_own_queue_never_leaves_it() -> None:
    broker = Steady()
    virtual_time.run(consumed(broker, is_mine=True))
    assert broker.stays == [(0.0, 99.5)]


def test_who_consumes_anothers_queue_leaves_it_after_a_while_and_stays_away_for_long_enough() -> None:
    broker = Steady()
    virtual_time.run(consumed(broker, is_mine=False))
    (_, left), (came, left_again), *_ = broker.stays
    assert left == pytest.approx(options().tenure + 2)  # a second until the first delivery, and one until the next
    assert came - left == pytest.approx(options().absence)
    assert left_again - came == pytest.approx(left)
