"""Joining: a client that says where it is gets what it missed, then goes live, with nothing lost or doubled between."""

from __future__ import annotations

from typing import Final

from handlers.clock import utc_now
from handlers.ports.domain import Position
from handlers.ports.streams import Publication
from realtime.channel import Channel, Ticket
from realtime.channels import Channels, is_run_after, passing
from realtime.metrics import RealtimeMetrics
from realtime.openings import Openings
from realtime.protocol.filters import Filter
from realtime.protocol.messages import Subscribed
from realtime.repair import Repairs
from realtime.shared_reads import SharedReads

_KEPT_SECONDS: Final = 60.0  # by streams after its time at most; and no two nodes' clocks are the same


class Recovery:
    """`limit`: a client that missed more publications than this is told to reload."""

    def __init__(
        self,
        channels: Channels,
        openings: Openings,
        repairs: Repairs,
        reads: SharedReads,
        metrics: RealtimeMetrics,
        *,
        limit: int,
    ) -> None:
        self._channels = channels
        self._openings = openings
        self._repairs = repairs
        self._reads = reads
        self._metrics = metrics
        self._limit = limit

    async def admit(self, channel: Channel, ticket: Ticket) -> bool:
        """Bring the joiner to where the channel is. True: settled; False: the channel is gone, join its successor.

        Raises StreamsAway.
        """
        await self._openings.open(channel)
        since = ticket.since
        if since is not None and not channel.knows(since):
            # A position from REST or from another node may be ahead of what this node has heard.
            await self._repairs.bring_up(channel)
        if ticket.latest_within is not None:
            return await self._give_latest(channel, ticket, ticket.latest_within)
        if not channel.serves(ticket):
            return ticket.is_over
        if since is None:
            return self._channels.hand_over(channel, ticket, Subscribed(channel.position))
        if not channel.knows(since) or channel.last - since.offset > self._limit:
            return self._start_afresh(channel, ticket)
        return await self._catch_up(channel, ticket, since.offset)

    async def _give_latest(self, channel: Channel, ticket: Ticket, within: float) -> bool:
        """As if it had missed the latest publication and nothing else. Memory may still have it when the stream, by the
        channel's options, has it no longer."""
        while channel.serves(ticket):
            latest = await self._latest(channel, ticket)
            if latest is None:
                continue
            if not channel.serves(ticket):
                break
            oldest_ms = (utc_now().timestamp() - within - _KEPT_SECONDS) * 1000
            latest = [publication for publication in latest if publication.time_ms > oldest_ms]
            # Without one there is no latest state, unless the subscriber knows that and is up to date.
            is_there = bool(latest) or ticket.since == channel.position
            self._metrics.recoveries.labels("recovered" if is_there else "not_recovered").inc()
            found = Subscribed(
                channel.position, was_recovering=True, recovered=is_there, publications=latest, is_latest=True
            )
            return self._channels.hand_over(channel, ticket, found)
        return ticket.is_over

    async def _latest(self, channel: Channel, ticket: Ticket) -> list[Publication] | None:
        """What the joiner has not of it, one or none; None: more came while it was read."""
        at = channel.last - 1
        if ticket.since == channel.position or at < 0:
            return []
        if ticket.filter is not None:
            return await self._latest_passing(channel, ticket.filter)
        latest = channel.after(at)
        if latest is None and (latest := await self._read(channel, at)) is not None and channel.last != at + 1:
            return None
        return latest or []

    async def _latest_passing(self, channel: Channel, filter_: Filter) -> list[Publication] | None:
        """Memory may not reach back to it: then the stream is read backwards, no further than for who resumes."""
        top, clearings = channel.last, channel.clearings
        found, before = passing(filter_, channel.recent())[-1:], top + 1
        while not found and top - before < self._limit:
            page = await self._reads.read_back(channel.name, before)
            if channel.is_gone:
                return []
            if page.top.epoch != channel.epoch:
                self._channels.reset(channel)
                return []
            if not page.publications:
                break
            if channel.clearings == clearings:
                self._channels.recall(channel, page.publications[::-1])
            found, before = passing(filter_, page.publications)[:1], page.publications[-1].offset
        came = channel.after(top)
        return None if came is None else passing(filter_, came)[-1:] or found

    async def _catch_up(self, channel: Channel, ticket: Ticket, at: int) -> bool:
        while True:
            # Before the reply too: a hundred large ones in a row would else look like a slow client.
            await ticket.subscriber.writable(is_more=ticket.has_replied)
            if not channel.serves(ticket):
                return ticket.is_over
            missed = channel.after(at)
            if missed is None:
                missed = await self._read(channel, at)
                if not channel.serves(ticket):
                    return ticket.is_over
            if missed is None:
                return self._lost(channel, ticket)
            if not ticket.has_replied:
                self._metrics.recoveries.labels("recovered").inc()
            part = Subscribed(Position(at, channel.epoch), was_recovering=True, recovered=True, publications=missed)
            if self._channels.hand_over(channel, ticket, part):
                return True
            at += len(missed)

    async def _read(self, channel: Channel, at: int) -> list[Publication] | None:
        """The next page after `at`; None when the stream does not have it any more, and the channel may be gone."""
        clearings = channel.clearings
        page = await self._reads.read(channel.name, at)
        if channel.is_gone:
            return None
        if page.top.epoch != channel.epoch:
            self._channels.reset(channel)
            return None
        if not page.publications or not is_run_after(at, page.publications):
            return None
        # It may reach beyond what the others have: they get that first, so that nobody live is ever behind `last`.
        self._channels.absorb(channel, page, clearings=clearings)
        if channel.clearings == clearings:
            self._channels.recall(channel, page.publications)
        return list(page.publications)

    def _lost(self, channel: Channel, ticket: Ticket) -> bool:
        if not ticket.has_replied:
            return self._start_afresh(channel, ticket)
        self.abandon(channel, ticket)
        return True

    def _start_afresh(self, channel: Channel, ticket: Ticket) -> bool:
        self._metrics.recoveries.labels("not_recovered").inc()
        return self._channels.hand_over(channel, ticket, Subscribed(channel.position, was_recovering=True))

    def abandon(self, channel: Channel, ticket: Ticket) -> None:
        """The recovery failed after its reply."""
        self._metrics.recoveries.labels("abandoned").inc()
        ticket.is_over = True
        ticket.subscriber.dropped(channel.name)
