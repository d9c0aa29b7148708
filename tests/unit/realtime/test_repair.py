"""Looking at the heads of many channels."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from prometheus_client import CollectorRegistry

from handlers.ports.domain import Position
from handlers.ports.streams import Page, Publication, Published
from realtime.bus import Item, Receiver
from realtime.channel import Channel, Ticket
from realtime.channels import Channels
from realtime.flusher import Flusher
from realtime.metrics import RealtimeMetrics
from realtime.pacing import Pacing
from realtime.repair import Repairs
from tests import virtual_time
from tests.property.streams_model import ModelStreams
from tests.subscribers import BareSubscriber

INTERVAL, INTERVAL_WITHOUT_BUS = 2.0, 0.25


@dataclass
class Streams(ModelStreams):
    """Notes when it was asked for how many heads."""

    looks: list[tuple[float, int]] = field(default_factory=list)

    async def moved(self, known: Mapping[str, Position]) -> Mapping[str, Position]:
        self.looks.append((asyncio.get_running_loop().time(), len(known)))
        return await super().moved(known)


@dataclass
class Bus:
    is_connected: bool = True

    async def publish(self, items: Iterable[Item]) -> bool:
        raise NotImplementedError

    async def run(self, receiver: Receiver) -> None:
        raise NotImplementedError


def repairs_of(channels: Channels, streams: Streams, bus: Bus, metrics: RealtimeMetrics) -> Repairs:
    pacing = Pacing(channels.hear)
    return Repairs(
        channels, pacing, streams, bus, metrics, interval=INTERVAL, interval_without_bus=INTERVAL_WITHOUT_BUS
    )


async def watched(count: int, bus: Bus, streams: Streams, work: float) -> None:
    """Look at so many open channels for `work` seconds; then the bus goes, and as long again."""
    metrics = RealtimeMetrics(CollectorRegistry())
    channels = Channels(Flusher(metrics), metrics, recent_bytes=1024 * 1024)
    heads = await streams.open([f"c{number}" for number in range(count)])
    for name in heads:
        channels.begin(channels.enter(name, Ticket(BareSubscriber(), None, lambda _: None)), heads[name])
    repairs = repairs_of(channels, streams, bus, metrics)
    streams.looks.clear()
    upkeep = asyncio.create_task(repairs.run())
    await asyncio.sleep(work)
    bus.is_connected = False
    await asyncio.sleep(work)
    upkeep.cancel()
    await asyncio.wait([upkeep])


def test_a_round_takes_an_interval_in_looks_of_bounded_size() -> None:
    streams, bus = Streams(), Bus()
    virtual_time.run(watched(1200, bus, streams, INTERVAL_WITHOUT_BUS + 3 * INTERVAL))
    calm = [(at, size) for at, size in streams.looks if INTERVAL_WITHOUT_BUS <= at < INTERVAL_WITHOUT_BUS + 6]
    assert [size for _, size in calm] == [500, 500, 200] * 3
    pauses = [after - before for (before, _), (after, _) in pairwise(calm)]
    assert all(abs(pause - INTERVAL / 3) < 0.001 for pause in pauses)


def test_looks_come_faster_from_when_the_bus_goes() -> None:
    streams, bus = Streams(), Bus()
    virtual_time.run(watched(1, bus, streams, 5.0))
    after = [at for at, _ in streams.looks if at >= 5.0]
    assert after[0] <= 5.0 + INTERVAL_WITHOUT_BUS
    assert len(after) >= 5.0 / INTERVAL_WITHOUT_BUS - 2


def test_a_node_with_nobody_on_it_asks_nothing() -> None:
    streams, bus = Streams(), Bus()
    virtual_time.run(watched(0, bus, streams, 5.0))
    assert streams.looks == []


async def kept_after(*connected: bool) -> list[Publication]:
    """What memory has of a channel after the bus was there, or not, for two seconds each."""
    metrics, streams, bus = RealtimeMetrics(CollectorRegistry()), Streams(), Bus()
    channels = Channels(Flusher(metrics), metrics, recent_bytes=1024 * 1024)
    streams.publish("c")
    channel = channels.enter("c", Ticket(BareSubscriber(), None, lambda _: None))
    channels.begin(channel, streams.position("c"))
    upkeep = asyncio.create_task(repairs_of(channels, streams, bus, metrics).run())
    await asyncio.sleep(2)
    channels.recall(channel, streams.streams["c"].publications)
    for bus.is_connected in connected:
        await asyncio.sleep(2)
    upkeep.cancel()
    await asyncio.wait([upkeep])
    return channel.recent()


def test_what_may_have_been_removed_while_the_bus_was_away_is_forgotten_when_it_is_back() -> None:
    assert len(virtual_time.run(kept_after(True))) == 1
    assert virtual_time.run(kept_after(False, True)) == []


class Short(Streams):
    """Keeps the last of ten publications."""

    async def read(self, channel: str, *, after: int, limit: int, max_bytes: int) -> Page:  # noqa: ARG002
        kept = [Publication(10, b"10", 0)] if after < 10 else []
        return Page(kept, Position(10, (await self.open([channel]))[channel].epoch))


async def repaired(*, brings: int) -> Channel:
    """A channel that is to be brought up while the bus brings so many of what the stream has no longer."""
    metrics, streams = RealtimeMetrics(CollectorRegistry()), Short()
    channels = Channels(Flusher(metrics), metrics, recent_bytes=1024 * 1024)
    repairs = repairs_of(channels, streams, Bus(), metrics)
    head = (await streams.open(["c"]))["c"]
    channel = channels.enter("c", Ticket(BareSubscriber(), None, lambda _: None))
    channels.begin(channel, head)
    channel.heard = 10
    bringing = asyncio.create_task(repairs.bring_up(channel))
    await asyncio.sleep(0.05)
    for offset in range(1, brings + 1):
        channels.hear(channel, [Published("c", head.epoch, Publication(offset, b"%d" % offset, 0))])
    await bringing
    return channel


def test_what_the_stream_has_no_longer_may_still_come_by_the_bus() -> None:
    for brings in (9, 10):
        channel = virtual_time.run(repaired(brings=brings))
        assert (channel.last, channel.is_gone) == (10, False)


def test_what_neither_has_ends_the_channel() -> None:
    for brings in (0, 3):
        assert virtual_time.run(repaired(brings=brings)).is_gone


async def brought_up(count: int) -> Channel:
    """A channel that has missed so many publications, after one repair."""
    metrics, streams = RealtimeMetrics(CollectorRegistry()), Streams()
    channels = Channels(Flusher(metrics), metrics, recent_bytes=1024 * 1024)
    head = (await streams.open(["c"]))["c"]
    channel = channels.enter("c", Ticket(BareSubscriber(), None, lambda _: None))
    channels.begin(channel, head)
    for number in range(count):
        streams.publish("c", b"%d" % number)
    channel.heard = count
    await repairs_of(channels, streams, Bus(), metrics).bring_up(channel)
    return channel


def test_one_repair_reads_as_many_pages_as_are_missing() -> None:
    channel = virtual_time.run(brought_up(10))
    assert (channel.last, channel.is_behind) == (10, False)


@dataclass
class Away(Streams):
    """Notes of which channels reads were under way together."""

    under_way: list[str] = field(default_factory=list)
    together: list[list[str]] = field(default_factory=list)

    async def read(self, channel: str, *, after: int, limit: int, max_bytes: int) -> Page:
        self.under_way.append(channel)
        self.together.append(sorted(self.under_way))
        await asyncio.sleep(3)
        self.under_way.remove(channel)
        return await super().read(channel, after=after, limit=limit, max_bytes=max_bytes)


async def wanted_again_and_again(streams: Away) -> None:
    """Two channels, of which every message of the bus says that they are behind, while the streams are away."""
    metrics = RealtimeMetrics(CollectorRegistry())
    channels = Channels(Flusher(metrics), metrics, recent_bytes=1024 * 1024)
    repairs = repairs_of(channels, streams, Bus(), metrics)
    upkeep = asyncio.create_task(repairs.run())
    opened = []
    for name, head in (await streams.open(["a", "b"])).items():
        opened.append(channels.enter(name, Ticket(BareSubscriber(), None, lambda _: None)))
        channels.begin(opened[-1], head)
    streams.is_away = True
    for channel in opened:
        channel.heard = 10
        for _ in range(20):
            repairs.want(channel)
            await asyncio.sleep(0.1)
    await asyncio.sleep(10)
    upkeep.cancel()
    await asyncio.wait([upkeep])


def test_a_channel_that_is_wanted_again_and_again_is_repaired_once_at_a_time_and_keeps_no_other_waiting() -> None:
    streams = Away()
    virtual_time.run(wanted_again_and_again(streams))
    assert ["a", "b"] in streams.together
    assert all(len(set(names)) == len(names) for names in streams.together)
