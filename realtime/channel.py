"""One channel as this node knows it: where its stream is, what was published lately, who hears it. Pure.

Invariant, kept by everyone who touches a channel: each *live* subscriber has been sent exactly everything up to
`last` that it did not have when it joined. So fanning out needs no check per subscriber.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from handlers.ports.domain import Position
from handlers.ports.streams import Publication, Published
from realtime.protocol.filters import Filter
from realtime.protocol.messages import Subscribed
from realtime.wire import Batch, Sink

RING_LENGTH: Final = 128
RING_BYTES: Final = 256 * 1024
_OBJECT_BYTES: Final = 256  # what Python takes for a publication beside its payload

NOWHERE: Final = Position(0, "")
"""Where a reader is in a stream that was not there when it looked: it has everything up to nothing."""


class Encoding(Protocol):
    """A codec in its transport's framing. Publications are encoded once for all who share an instance."""

    def publication(self, channel: str, publication: Publication) -> bytes: ...

    def compressed(self, channel: str, publication: Publication, base: bytes | None) -> bytes: ...

    def membership(self, channel: str, info: bytes, *, is_join: bool) -> bytes: ...


class Subscriber(Protocol):
    """A connection as the hub sees it. Hashed by identity."""

    @property
    def encoding(self) -> Encoding: ...

    pending: list[bytes]
    """Frames to be written at the next flush, in order: the flusher's, which puts new lists in its place."""

    @property
    def wire(self) -> Sink: ...

    def overflowed(self) -> None:
        """What the wire did not write is not kept: the connection closes itself."""
        ...

    def hold(self, channel: str, frame: bytes) -> bool:
        """Keep the frame for later, in the place of an earlier one of this channel, if the client is behind. False: it
        is not, and the frame is to be sent."""
        ...

    async def writable(self, *, is_more: bool) -> None:
        """Write what is pending and return when the client has taken most of it; one that takes nothing is closed.
        `is_more` follows a reply: the client has to have that first."""
        ...

    def dropped(self, channel: str) -> None:
        """The hub no longer serves this subscription: it cannot do so without a gap."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """Subscribers, and their wires in the same order."""

    subscribers: Sequence[Subscriber]
    wires: Batch


@dataclass(frozen=True, slots=True, eq=False)
class Crowd:
    """The subscribers of a roster as they were, and the same in groups."""

    members: Mapping[Subscriber, None]
    groups: Sequence[Group]


class Roster:
    """The subscribers that share an encoding. `crowd` is made by who writes to them; None since they changed."""

    __slots__ = ("crowd", "subscribers")

    def __init__(self) -> None:
        self.subscribers: dict[Subscriber, None] = {}
        self.crowd: Crowd | None = None

    def add(self, subscriber: Subscriber) -> None:
        self.subscribers[subscriber] = None
        self.crowd = None

    def remove(self, subscriber: Subscriber) -> None:
        """Raises KeyError."""
        del self.subscribers[subscriber]
        self.crowd = None


class Ticket:
    """A join under way. `is_over` once nobody waits for it any more: left, or told that it was dropped.

    `latest_within`: not what was missed is wanted but the latest publication, whatever came before it, if it is not
    older than so many seconds; with `filter` the latest that this lets through.
    """

    __slots__ = ("filter", "has_replied", "is_over", "latest_within", "reply", "since", "subscriber")

    def __init__(
        self,
        subscriber: Subscriber,
        since: Position | None,
        reply: Callable[[Subscribed], None],
        *,
        latest_within: float | None = None,
        filter_: Filter | None = None,
    ) -> None:
        self.latest_within = latest_within
        self.filter = filter_
        self.subscriber = subscriber
        self.since = since
        self.reply = reply
        self.has_replied = False
        self.is_over = False


class Channel:
    """`is_stream`: what is published here has offsets and is kept. Else it is never open, and delivers what comes.

    `epoch` and `last` mean nothing before it `is_open`; what the bus says until then is `early`, the newest of it.

    `heard` is the highest offset that the bus or a head spoke of.
    `held`: what the bus said since the last hand-out, `write_delay` seconds ago at most; None: nothing has to wait.
    `clearings`: how often its history was removed, while somebody was here.
    `opening` is pending while somebody waits for the channel to open; False means that the streams are away.
    `is_suspect`: something spoke of another epoch; only the stream itself can tell.
    `is_gone`: dropped or reset; whoever still holds it starts again with a new one.
    `is_conflated`: subscribers that are behind are sent the latest publication only.
    `sends_deltas`: every publication goes to subscribers that take differences as one, not only those that ask for it.
    """

    __slots__ = (
        "_ring", "_ring_bytes", "awaits_repair", "base", "clearings", "deltas", "early", "epoch", "filters", "heard",
        "held", "is_conflated", "is_gone", "is_open", "is_stream", "is_suspect", "joining", "last", "live", "name",
        "opening", "publishers", "sends_deltas", "watching", "write_delay",
    )  # fmt: skip

    def __init__(self, name: str, *, is_stream: bool = True) -> None:
        self.name = name
        self.is_stream = is_stream
        self.epoch = ""
        self.last = 0
        self.heard = 0
        self.held: list[Published] | None = None
        self.write_delay = 0.0
        self.clearings = 0
        self.is_open = False
        self.is_gone = False
        self.is_suspect = False
        self.is_conflated = False
        self.sends_deltas = False
        self.awaits_repair = False
        self.opening: asyncio.Future[bool] | None = None
        self.early: list[Published] = []
        self.live: dict[Encoding, Roster] = {}
        self.joining: dict[Subscriber, Ticket] = {}
        # Of the live ones those that are told who joins and leaves; made when needed.
        self.watching: set[Subscriber] | None = None
        # Of the subscribers that are not sent everything; made when needed.
        self.filters: dict[Subscriber, Filter] | None = None
        # Of the subscribers that are not sent what they publish themselves, under which client; made when needed.
        self.publishers: dict[Subscriber, str] | None = None
        # Of the subscribers that take differences; true once they have the `base`, what was handed out last.
        self.deltas: dict[Subscriber, bool] | None = None
        self.base = b""
        self._ring: deque[Publication] = deque()
        self._ring_bytes = 0

    @property
    def position(self) -> Position:
        return Position(self.last, self.epoch)

    @property
    def is_empty(self) -> bool:
        return not self.live and not self.joining

    @property
    def is_behind(self) -> bool:
        return self.is_suspect or self.heard > self.last

    @property
    def sends_all_to_all(self) -> bool:
        """Every subscriber of an encoding is sent the same bytes."""
        return self.deltas is None and self.filters is None and self.publishers is None and not self.is_conflated

    def serves(self, ticket: Ticket) -> bool:
        return not self.is_gone and not ticket.is_over

    def knows(self, since: Position) -> bool:
        """Can a client at `since` be served from what this node knows?"""
        return since.offset <= self.last and (since.epoch == self.epoch or since == NOWHERE)

    def advance(self, publication: Publication) -> int:
        """`publication` is the next one: its offset is `last` + 1. By how many bytes what is kept has grown."""
        before = self._ring_bytes
        self.last = publication.offset
        self._ring.append(publication)
        self._ring_bytes += _size(publication)
        while len(self._ring) > RING_LENGTH or self._ring_bytes > RING_BYTES:
            self._ring_bytes -= _size(self._ring.popleft())
        return self._ring_bytes - before

    def recall(self, publications: Sequence[Publication]) -> int:
        """Keep those of these, oldest first and none beyond `last`, that lead up to what is kept, as far as there is
        room. By how many bytes what is kept has grown."""
        before = self._ring_bytes
        first = self._ring[0].offset if self._ring else self.last + 1
        for publication in reversed(publications):
            if publication.offset >= first:
                continue
            size = _size(publication)
            is_next = publication.offset == first - 1
            if not is_next or len(self._ring) == RING_LENGTH or self._ring_bytes + size > RING_BYTES:
                break
            self._ring.appendleft(publication)
            self._ring_bytes += size
            first -= 1
        return self._ring_bytes - before

    def forget(self) -> int:
        """Keep nothing of what was published. How many bytes that were."""
        self._ring.clear()
        freed, self._ring_bytes = self._ring_bytes, 0
        return freed

    def after(self, offset: int) -> list[Publication] | None:
        """What was published after `offset`, oldest first; None where memory does not reach back that far."""
        missed = self.last - offset
        if missed > len(self._ring):
            return None
        return list(islice(self._ring, len(self._ring) - missed, None))

    def recent(self) -> list[Publication]:
        """What memory has of what was published, up to `last`, oldest first."""
        return list(self._ring)

    def add_live(self, subscriber: Subscriber) -> None:
        if (roster := self.live.get(subscriber.encoding)) is None:
            roster = self.live[subscriber.encoding] = Roster()
        roster.add(subscriber)

    def watch(self, subscriber: Subscriber) -> None:
        """Tell a live subscriber from now on who joins and leaves."""
        if self.watching is None:
            self.watching = set()
        self.watching.add(subscriber)

    def narrow(self, subscriber: Subscriber, filter_: Filter) -> None:
        """Send a subscriber from now on what its filter lets through."""
        if self.filters is None:
            self.filters = {}
        self.filters[subscriber] = filter_

    def spare(self, subscriber: Subscriber, client: str) -> None:
        """Send a subscriber from now on nothing that this client published."""
        if self.publishers is None:
            self.publishers = {}
        self.publishers[subscriber] = client

    def compress(self, subscriber: Subscriber) -> None:
        """Send a subscriber differences from now on, after one whole document."""
        if self.deltas is None:
            self.deltas = {}
        self.deltas[subscriber] = False

    def remove_live(self, subscriber: Subscriber) -> bool:
        if self.deltas is not None:
            self.deltas.pop(subscriber, None)
            self.deltas = self.deltas or None
        if self.filters is not None:
            self.filters.pop(subscriber, None)
            self.filters = self.filters or None
        if self.publishers is not None:
            self.publishers.pop(subscriber, None)
            self.publishers = self.publishers or None
        if self.watching is not None:
            self.watching.discard(subscriber)
        roster = self.live.get(subscriber.encoding)
        if roster is None or subscriber not in roster.subscribers:
            return False
        roster.remove(subscriber)
        if not roster.subscribers:
            del self.live[subscriber.encoding]
        return True


def _size(publication: Publication) -> int:
    return len(publication.data) + len(publication.info) + len(publication.tags) + _OBJECT_BYTES
