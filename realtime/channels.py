"""The channels that somebody on this node hears, and the only ways in which what they know may grow."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import orjson
import structlog

from handlers.ports.domain import Position
from handlers.ports.streams import Page, Publication, Published
from realtime.bus import Membership
from realtime.channel import RING_LENGTH, Channel, Encoding, Subscriber, Ticket
from realtime.flusher import Flusher
from realtime.metrics import RealtimeMetrics
from realtime.protocol.filters import Filter, matches
from realtime.protocol.messages import Subscribed
from realtime.recent import Recent

log = structlog.get_logger(__name__)


class Channels:
    """Every method is one synchronous step: the invariant of `Channel` holds before and after each."""

    def __init__(self, flusher: Flusher, metrics: RealtimeMetrics, *, recent_bytes: int) -> None:
        self._flusher = flusher
        self._metrics = metrics
        self._channels: dict[str, Channel] = {}
        self._recent = Recent(recent_bytes)

    def get(self, name: str) -> Channel | None:
        return self._channels.get(name)

    def enter(self, name: str, ticket: Ticket) -> Channel:
        """The stream's channel, made if need be; it stays as long as the ticket."""
        channel = self._get_or_make(name, is_stream=True)
        channel.joining[ticket.subscriber] = ticket
        return channel

    def listen(self, name: str, subscriber: Subscriber) -> None:
        """Live at once: there is nothing to catch up with."""
        self._get_or_make(name, is_stream=False).add_live(subscriber)
        self._metrics.subscriptions.inc()

    def exit(self, channel: Channel, ticket: Ticket) -> None:
        """The join that the ticket stands for has ended, one way or the other."""
        if channel.joining.get(ticket.subscriber) is ticket:
            del channel.joining[ticket.subscriber]
        self._drop_if_empty(channel)

    def opened(self) -> Sequence[Channel]:
        return [channel for channel in self._channels.values() if channel.is_open]

    def begin(self, channel: Channel, head: Position) -> None:
        """Open the channel at its stream's head, and go on with what the bus brought meanwhile."""
        channel.epoch, channel.last = head.epoch, head.offset
        channel.is_open = True
        early, channel.early = channel.early, []
        self.hear(channel, early)

    def hear(self, channel: Channel, items: Iterable[Published]) -> None:
        """The bus says this. Delivered is what comes next; with the rest the channel may be behind afterwards."""
        together: list[Publication] = []
        for item in items:
            publication = item.publication
            if not publication.offset or not channel.is_stream:
                together.append(publication)  # in no stream: past the count of offsets, to whoever is there
            elif not channel.is_open:
                channel.early = [*channel.early[1 - RING_LENGTH :], item]
            elif item.epoch != channel.epoch:
                channel.is_suspect = True
            elif publication.offset == channel.last + 1:
                self._recent.add(channel, publication)
                together.append(publication)
            else:
                channel.heard = max(channel.heard, publication.offset)
        self._hand_out(channel, together)

    def clear(self, channel: Channel) -> None:
        """Keep nothing of what was published: the stream has it no longer."""
        channel.clearings += 1
        self._recent.forget(channel)

    def recall(self, channel: Channel, publications: Sequence[Publication]) -> None:
        """Keep these, which the stream had: who comes next need not read them. They do not go beyond `last`."""
        self._recent.recall(channel, publications)
        self._metrics.recent_bytes.set(self._recent.bytes)

    def absorb(self, channel: Channel, page: Page, *, clearings: int) -> bool:
        """Deliver what of `page` is new here. False, and nothing delivered, if it does not lead on from `last`:
        the stream has begun anew, or retention took what was missed.

        `clearings` are the channel's when reading began: what was removed meanwhile is delivered, but not kept."""
        if page.top.epoch != channel.epoch:
            return False
        fresh = [item for item in page.publications if item.offset > channel.last]
        is_taken = not page.publications and page.top.offset > channel.last
        if is_taken or not is_run_after(channel.last, fresh):
            return False
        channel.is_suspect = False
        for publication in fresh:
            self._recent.add(channel, publication)
        if channel.clearings != clearings:
            self._recent.forget(channel)
        self._hand_out(channel, fresh)
        return True

    def hand_over(self, channel: Channel, ticket: Ticket, missed: Subscribed) -> bool:
        """Give a joiner this part of what it missed: in its reply, later parts as pushes. True: it is live now.

        It goes live when the part reaches up to `last`, and in the same step, so that nothing can come between.
        """
        subscriber = ticket.subscriber
        is_whole = missed.is_latest or not missed.publications
        reached = missed.position.offset if is_whole else missed.publications[-1].offset
        is_live = reached == channel.last
        if is_live:
            del channel.joining[subscriber]
            channel.add_live(subscriber)
            self._metrics.subscriptions.inc()
        if not ticket.has_replied:
            ticket.has_replied = True
            ticket.reply(missed)
            return is_live
        self._push(channel, subscriber, missed.publications)
        return is_live

    def tell(self, channel: Channel, membership: Membership) -> None:
        """Tell those who want to know that somebody joined or left."""
        watching = channel.watching
        if not watching:
            return
        frames: dict[Encoding, bytes] = {}
        for subscriber in watching:
            encoding = subscriber.encoding
            if encoding not in frames:
                frames[encoding] = encoding.membership(channel.name, membership.info, is_join=membership.is_join)
            self._flusher.give(subscriber, frames[encoding])

    def leave(self, subscriber: Subscriber, name: str) -> None:
        """Idempotent; also ends a join that is under way."""
        channel = self._channels.get(name)
        if channel is None:
            return
        ticket = channel.joining.pop(subscriber, None)
        if ticket is not None:
            ticket.is_over = True
        if channel.remove_live(subscriber):
            self._metrics.subscriptions.dec()
        self._drop_if_empty(channel)

    def reset(self, channel: Channel) -> None:
        """Its clients cannot be served without a gap: they are told so, and a new channel begins at the head."""
        if channel.is_gone:
            return
        self._forget(channel)
        self._metrics.resets.inc()
        log.warning("stream_reset", channel=channel.name, offset=channel.last)
        heard = [subscriber for roster in channel.live.values() for subscriber in roster.subscribers]
        self._metrics.subscriptions.dec(len(heard))
        channel.live.clear()
        for subscriber in heard:
            subscriber.dropped(channel.name)
        # Joiners without a reply find the channel gone and begin again by themselves.
        for ticket in [ticket for ticket in channel.joining.values() if ticket.has_replied]:
            ticket.is_over = True
            ticket.subscriber.dropped(channel.name)

    def _hand_out(self, channel: Channel, publications: Sequence[Publication]) -> None:
        """To everyone live who is meant."""
        if not publications:
            return
        self._metrics.publications.inc(len(publications))
        self._metrics.recent_bytes.set(self._recent.bytes)
        if channel.sends_all_to_all:
            self._hand_out_to_all(channel, publications)
        else:
            for publication in publications:
                self._hand_out_to_some(channel, publication)

    def _hand_out_to_all(self, channel: Channel, publications: Sequence[Publication]) -> None:
        """What comes together is one for each subscriber: so the work for one falls as more is published."""
        count = 0
        for encoding, roster in channel.live.items():
            frames = b"".join([encoding.publication(channel.name, publication) for publication in publications])
            self._flusher.hand(roster, frames)
            count += len(roster.subscribers)
        for publication in publications:
            self._handed_out(channel, publication, count)

    def _hand_out_to_some(self, channel: Channel, publication: Publication) -> None:
        count = 0
        for encoding, roster in channel.live.items():
            meant = _meant(channel, roster.subscribers, publication)
            if channel.deltas is not None:
                self._give_differences(channel, channel.deltas, encoding, meant, publication)
            else:
                frame = encoding.publication(channel.name, publication)
                for subscriber in meant:
                    if not (channel.is_conflated and subscriber.hold(channel.name, frame)):
                        self._flusher.give(subscriber, frame)
            count += len(meant)
        if channel.deltas is not None:
            channel.base = publication.data
        self._handed_out(channel, publication, count)

    def _give_differences(
        self,
        channel: Channel,
        deltas: dict[Subscriber, bool],
        encoding: Encoding,
        subscribers: Iterable[Subscriber],
        publication: Publication,
    ) -> None:
        """Each of the three kinds of frame is made when the first subscriber needs it, and shared."""
        base = channel.base if channel.sends_deltas or publication.as_delta else None
        frames: dict[bool | None, bytes] = {}
        for subscriber in subscribers:
            has_base = deltas.get(subscriber)
            if has_base not in frames:
                frames[has_base] = (
                    encoding.publication(channel.name, publication)
                    if has_base is None
                    else encoding.compressed(channel.name, publication, base if has_base else None)
                )
            frame = frames[has_base]
            is_held = has_base is None and channel.is_conflated and subscriber.hold(channel.name, frame)
            if not is_held:
                self._flusher.give(subscriber, frame)
            if has_base is False:
                deltas[subscriber] = True

    def _handed_out(self, channel: Channel, publication: Publication, count: int) -> None:
        if count:
            self._metrics.deliveries.inc(count)
            self._flusher.observe(publication.time_ms)
        if log.is_enabled_for(logging.DEBUG):
            log.debug("delivered", channel=channel.name, offset=publication.offset, subscribers=count)

    def _get_or_make(self, name: str, *, is_stream: bool) -> Channel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, is_stream=is_stream)
            self._metrics.channels.inc()
        return channel

    def _push(self, channel: Channel, subscriber: Subscriber, publications: Iterable[Publication]) -> None:
        encoding = subscriber.encoding
        filter_ = None if channel.filters is None else channel.filters.get(subscriber)
        let_through = publications if filter_ is None else passing(filter_, publications)
        if channel.deltas is not None and subscriber in channel.deltas:
            frames = (encoding.compressed(channel.name, item, None) for item in let_through)
        else:
            frames = (encoding.publication(channel.name, item) for item in let_through)
        for frame in frames:
            self._flusher.give(subscriber, frame)

    def _drop_if_empty(self, channel: Channel) -> None:
        if channel.is_empty and not channel.is_gone:
            self._forget(channel)

    def _forget(self, channel: Channel) -> None:
        channel.is_gone = True
        del self._channels[channel.name]
        self._recent.forget(channel)
        self._metrics.channels.dec()


def passing(filter_: Filter, publications: Iterable[Publication]) -> list[Publication]:
    """Those that a filter lets through."""
    return [item for item in publications if matches(filter_, _tags(item))]


def _meant(
    channel: Channel, subscribers: Mapping[Subscriber, None], publication: Publication
) -> Mapping[Subscriber, None]:
    filters, publishers = channel.filters, channel.publishers
    if filters is not None:
        tags = _tags(publication)
        subscribers = {each: None for each in subscribers if each not in filters or matches(filters[each], tags)}
    if publishers is not None and publication.info:
        publisher = orjson.loads(publication.info)["client"]
        subscribers = {each: None for each in subscribers if publishers.get(each) != publisher}
    return subscribers


def _tags(publication: Publication) -> Mapping[str, str]:
    tags: Mapping[str, str] = orjson.loads(publication.tags) if publication.tags else {}
    return tags


def is_run_after(offset: int, publications: Sequence[Publication]) -> bool:
    """Are these, one by one and without a hole, what follows `offset`? Nothing is such a run too."""
    return all(item.offset == offset + step for step, item in enumerate(publications, 1))
