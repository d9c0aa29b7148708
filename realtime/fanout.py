"""The fan-out: moves events from the broker to the streams of everyone who may hear them, and tells the nodes.

A batch is acknowledged once its effect is durable. It is never given back: while PostgreSQL is away it is tried again
in place, because everything else reorders.

One consumer of a queue is active, whichever came first: of several partitions that would be the same node for all. So
each partition is some node's, and another that is active on it leaves, and queues up again behind the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from handlers.audience import UnknownChannel, channels_for
from handlers.clock import utc_now
from handlers.events import SOURCE, Event
from handlers.ports.broker import Broker, BrokerAway, Deliveries, Delivery
from handlers.ports.streams import Entry, Publication, Published, Streams, StreamsAway
from realtime.backoff import Backoff
from realtime.bus import Bus
from realtime.cloudevents import BadEvent, Reason, parse, publication_data
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import Namespaces

log = structlog.get_logger(__name__)

BATCH_BYTES = 1024 * 1024  # of event bodies appended together; the prefetch bounds their number
_A_FEW = 8  # events that are looked into in a turn of the loop: others have theirs in between


@dataclass(frozen=True, slots=True)
class FanOutOptions:
    """`prefetch` bounds what is unacknowledged; `configured_channels` maps other services' types to channels. Who is
    active where another should be stays for `tenure` seconds at least, and then away for `absence` seconds."""

    prefetch: int
    configured_channels: Mapping[str, str]
    namespaces: Namespaces
    tenure: float = 10.0
    absence: float = 1.5  # longer than any consumer looks for its chance


@dataclass(slots=True)
class _Sorted:
    """A batch by what becomes of it: into streams, past them to whoever hears a channel without history, aside."""

    entries: list[Entry] = field(default_factory=list)
    passing: list[Published] = field(default_factory=list)
    bad: list[tuple[Delivery, BadEvent]] = field(default_factory=list)


def _always() -> bool:
    return True


class FanOut:
    """Of one queue, while `is_mine`."""

    def __init__(
        self,
        queue: str,
        broker: Broker,
        streams: Streams,
        bus: Bus,
        metrics: RealtimeMetrics,
        options: FanOutOptions,
        *,
        is_mine: Callable[[], bool] = _always,
    ) -> None:
        self._queue = queue
        self._broker = broker
        self._streams = streams
        self._bus = bus
        self._metrics = metrics
        self._options = options
        self._is_mine = is_mine

    async def run(self) -> None:
        while True:
            async with self._broker.consume(self._queue, prefetch=self._options.prefetch) as deliveries:
                await self._serve(deliveries)
            log.info("fanout_left_to_another", queue=self._queue)
            await asyncio.sleep(self._options.absence)

    async def _serve(self, deliveries: Deliveries) -> None:
        """Until it is another's."""
        loop, until = asyncio.get_running_loop(), 0.0
        while True:
            received = await deliveries.receive()
            until = until or loop.time() + self._options.tenure
            for batch in batches(received):
                await self._move(batch)
                await deliveries.acknowledge(batch)
            if loop.time() > until and not self._is_mine():
                return

    async def _move(self, batch: Sequence[Delivery]) -> None:
        """The good ones first: a bad event delays nobody."""
        found = await self._sort(batch)
        published: list[Published] = found.passing
        if found.entries:
            appended = await self._append(found.entries)
            _trace(found.entries, appended)
            self._metrics.appended.inc(len(appended))
            published = [*appended.values(), *found.passing]
        if published:
            await self._bus.publish(published)
        if found.bad:
            await self._put_aside(found.bad)

    async def _sort(self, batch: Sequence[Delivery]) -> _Sorted:
        now = utc_now()
        found = _Sorted()
        for number, delivery in enumerate(batch, 1):
            if number % _A_FEW == 0:
                await asyncio.sleep(0)
            try:
                event = judge(delivery, now)
                for entry in entries_for(event, self._options, now):
                    if entry.keep.size:
                        found.entries.append(entry)
                    else:
                        found.passing.append(Published(entry.channel, "", Publication(0, entry.data, entry.time_ms)))
            except BadEvent as verdict:
                found.bad.append((delivery, verdict))
        return found

    async def _append(self, entries: Sequence[Entry]) -> Mapping[int, Published]:
        backoff = Backoff(cap=2.0)
        while True:
            try:
                return await self._streams.append(entries)
            except StreamsAway:
                log.warning("fanout_waits_for_streams", entries=len(entries))
                await asyncio.sleep(backoff.delay())

    async def _put_aside(self, bad: Sequence[tuple[Delivery, BadEvent]]) -> None:
        log.warning("events_put_aside", reasons=dict(Counter(str(verdict) for _, verdict in bad)))
        async with asyncio.TaskGroup() as group:
            for delivery, verdict in bad:
                group.create_task(self._dead_letter(delivery, verdict.reason))

    async def _dead_letter(self, delivery: Delivery, reason: Reason) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._broker.dead_letter(delivery, reason=reason.value)
            except BrokerAway:
                await asyncio.sleep(backoff.delay())
            else:
                self._metrics.dead_letters.labels(reason.value).inc()
                return


def _trace(entries: Sequence[Entry], published: Mapping[int, Published]) -> None:
    """Say where each event went, so that one can be followed to the sockets; nowhere if all its channels had it."""
    if not log.is_enabled_for(logging.DEBUG):
        return
    places: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for index, entry in enumerate(entries):
        went = places.setdefault((entry.source, entry.id), [])
        if (item := published.get(index)) is not None:
            went.append((item.channel, item.publication.offset))
    for (source, id_), went in places.items():
        log.debug("event_appended", source=source, event_id=id_, places=went)


def judge(delivery: Delivery, now: datetime) -> Event:
    """The event, if it may speak as what it says it is. Raises BadEvent."""
    event = parse(delivery, now)
    is_ours = event.is_own_type or event.is_of_life_cycle or event.source == SOURCE
    if is_ours and not delivery.trusted:
        raise BadEvent(Reason.FORGED)
    return event


def entries_for(event: Event, options: FanOutOptions, now: datetime) -> list[Entry]:
    """One entry for each channel that hears `event`. Raises BadEvent when there is none, but should be."""
    channels = channels_for(event, options.configured_channels)
    try:
        keeps = [options.namespaces.of(channel).keep for channel in channels]
    except UnknownChannel:
        raise BadEvent(Reason.UNKNOWN_CHANNEL) from None
    if not channels and not event.is_of_life_cycle:
        raise BadEvent(Reason.UNADDRESSED)
    data = publication_data(event)
    # Delays are measured from this. Another service's clock may say anything, so its events begin when they come in.
    began = min(event.time, now) if event.is_own_type else now
    time_ms = int(began.timestamp() * 1000)
    return [
        Entry(channel, event.source, event.id, data, time_ms, keep=keep)
        for channel, keep in zip(channels, keeps, strict=True)
    ]


def batches(deliveries: Sequence[Delivery]) -> Iterator[Sequence[Delivery]]:
    """Cut into runs of at most BATCH_BYTES, at least one delivery each."""
    batch: list[Delivery] = []
    size = 0
    for delivery in deliveries:
        if batch and size + len(delivery.body) > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(delivery)
        size += len(delivery.body)
    if batch:
        yield batch
