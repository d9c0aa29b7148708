"""Who is connected here and subscribed to what; every publication goes through here to the clients of this node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Final, cast

from handlers.ports.domain import Position
from handlers.ports.streams import Published, Streams, StreamsAway
from realtime.bus import Bus, BusAway, Membership, Order
from realtime.channel import Channel, Subscriber, Ticket
from realtime.channels import Channels
from realtime.errands import Errands
from realtime.flusher import Flusher
from realtime.history import read_history
from realtime.metrics import RealtimeMetrics
from realtime.openings import Openings
from realtime.pacing import Pacing
from realtime.protocol.filters import Filter
from realtime.protocol.messages import HistoryPage, Span, Subscribed
from realtime.recovery import Recovery
from realtime.repair import Repairs
from realtime.shared_reads import SharedReads

FORGET: Final = "forget"
"""The kind of order that `Hub.forget` takes."""


@dataclass(frozen=True, slots=True)
class HubOptions:
    """From section [streams] of the settings. Publications, bytes, seconds."""

    recovery_limit: int
    recent_bytes: int
    head_check_interval: float
    head_check_interval_without_bus: float


class Hub:
    """Guarantee: what a live client is sent on a channel is the stream, in order, without a gap or a double, from the
    position of its reply on; or it is told (`Subscriber.dropped`) that this is no longer so.

    The bus carries, the streams decide: a lost bus message costs a read, never a publication.
    """

    def __init__(
        self, streams: Streams, bus: Bus, flusher: Flusher, metrics: RealtimeMetrics, options: HubOptions
    ) -> None:
        self._metrics = metrics
        self._streams = streams
        self._bus = bus
        self._channels = Channels(flusher, metrics, recent_bytes=options.recent_bytes)
        self._pacing = Pacing(self._hear)
        self._repairs = Repairs(
            self._channels,
            self._pacing,
            streams,
            bus,
            metrics,
            interval=options.head_check_interval,
            interval_without_bus=options.head_check_interval_without_bus,
        )
        self._openings = Openings(self._channels, self._repairs, streams)
        self._reads = SharedReads(streams)
        self._errands = Errands()
        self._recovery = Recovery(
            self._channels, self._openings, self._repairs, self._reads, metrics, limit=options.recovery_limit
        )

    def hears(self, name: str) -> bool:
        """Is there anybody to tell of this channel?"""
        return self._channels.get(name) is not None

    def hear(self, items: Iterable[Published | Membership]) -> None:
        """What the bus says of channels."""
        for (name, kind), run in groupby(items, key=lambda item: (item.channel, type(item))):
            channel = self._channels.get(name)
            if channel is None:
                continue
            if kind is Membership:
                for item in run:
                    self._channels.tell(channel, cast("Membership", item))
            else:
                hear = self._pacing.hear if channel.write_delay else self._hear
                hear(channel, cast("Iterable[Published]", run))

    def _hear(self, channel: Channel, items: Iterable[Published]) -> None:
        self._channels.hear(channel, items)
        if channel.is_behind:
            self._repairs.want(channel)

    async def join(
        self,
        subscriber: Subscriber,
        name: str,
        since: Position | None,
        reply: Callable[[Subscribed], None],
        *,
        latest_within: float | None = None,
        filter_: Filter | None = None,
    ) -> None:
        """Subscribe. `reply` is called once, in the very step that fixes the position that it gets, before anything is
        delivered; a large recovery goes on after it, and this returns when the subscriber is live. With
        `latest_within` the reply has the latest publication alone (that the filter, if there is one, lets through),
        unless the subscriber is there already or it is older than so many seconds.

        Raises StreamsAway before the reply; what fails after it ends in `Subscriber.dropped`. A subscriber joins a
        channel once at a time; `leave` ends a join that is under way.
        """
        is_settled = False
        while not is_settled:
            ticket = Ticket(subscriber, since, reply, latest_within=latest_within, filter_=filter_)
            channel = self._channels.enter(name, ticket)
            try:
                is_settled = await self._recovery.admit(channel, ticket)
            except StreamsAway:
                if not ticket.has_replied:
                    raise
                if not ticket.is_over:
                    self._recovery.abandon(channel, ticket)
                is_settled = True
            finally:
                self._channels.exit(channel, ticket)

    def listen(self, subscriber: Subscriber, name: str) -> None:
        """Subscribe to a channel without history: from now on, whatever comes, at most once."""
        if (channel := self._channels.get(name)) is not None:
            self._pacing.release(channel)  # it came before
        self._channels.listen(name, subscriber)

    async def remove_history(self, channel: str) -> None:
        """On all nodes. Raises StreamsAway, and BusAway when other nodes may still remember some of it."""
        await self._errands.run(lambda: self._remove_history(channel))

    async def _remove_history(self, channel: str) -> None:
        await self._streams.clear(channel)
        if not await self._bus.publish([Order(FORGET, channel.encode())]):
            raise BusAway

    def forget(self, body: bytes) -> None:
        """A node removed the history of the channel of this name."""
        name = body.decode()
        self._reads.forget(name)
        channel = self._channels.get(name)
        if channel is not None:
            self._pacing.release(channel)  # it was published before
            self._channels.clear(channel)

    async def history(self, channel: str, span: Span) -> HistoryPage | None:
        """A part of the channel's stream; None when it begins at a position of another epoch. Raises StreamsAway."""
        return await read_history(self._streams, channel, span)

    def watch(self, subscriber: Subscriber, name: str) -> None:
        """Tell a subscriber of the channel, from now on, who joins and leaves."""
        channel = self._channels.get(name)
        if channel is not None:
            channel.watch(subscriber)

    def compress(self, subscriber: Subscriber, name: str, *, always: bool) -> None:
        """Send a subscriber of the channel differences from now on."""
        channel = self._channels.get(name)
        if channel is not None:
            channel.compress(subscriber)
            channel.sends_deltas = always

    def narrow(self, subscriber: Subscriber, name: str, filter_: Filter) -> None:
        """Send a subscriber of the channel, from now on, what its filter lets through. Its positions skip the rest."""
        channel = self._channels.get(name)
        if channel is not None:
            channel.narrow(subscriber, filter_)

    def spare(self, subscriber: Subscriber, name: str, client: str) -> None:
        """Send a subscriber of the channel, from now on, nothing that this client published."""
        channel = self._channels.get(name)
        if channel is not None:
            channel.spare(subscriber, client)

    def conflate(self, name: str) -> None:
        """Send subscribers of the channel that are behind its latest publication only."""
        channel = self._channels.get(name)
        if channel is not None:
            channel.is_conflated = True

    def pace(self, name: str, write_delay: float) -> None:
        """Hand out what is published in the channel together, once in so many seconds at most."""
        channel = self._channels.get(name)
        if channel is not None:
            channel.write_delay = write_delay

    def leave(self, subscriber: Subscriber, channel: str) -> None:
        """Nothing is delivered from now on. Idempotent."""
        self._channels.leave(subscriber, channel)

    async def run(self) -> None:
        """Open channels, find and repair what the bus lost, until cancelled. Nobody joins before it runs."""
        async with self._errands.open(), asyncio.TaskGroup() as tasks:
            tasks.create_task(self._openings.run())
            tasks.create_task(self._reads.run())
            tasks.create_task(self._repairs.run())
