"""Publishing for clients and backends: to the stream and then to every node, or without a history to the nodes alone.

Skips the broker: what is published here has no other consumers. Concurrent publications are appended together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import structlog

from handlers.clock import utc_now
from handlers.ports.domain import Position
from handlers.ports.streams import Entry, Publication, Published, Streams, StreamsAway
from realtime.bus import Bus, BusAway
from realtime.errands import Errands
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import ChannelOptions

log = structlog.get_logger(__name__)

_TOGETHER: Final = 500  # publications
_TOGETHER_BYTES: Final = 1024 * 1024
_MOST_WAITING: Final = 10_000
_MOST_WAITING_BYTES: Final = 64 * 1024 * 1024  # with which a node keeps going while PostgreSQL is away


class PublisherBusy(Exception):
    """So many publications wait that another would only wait too long; nothing was published."""


@dataclass(frozen=True, slots=True)
class Version:
    """Of what a publication tells the state of. One that is not above its channel's, in the same epoch, is left out."""

    number: int
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody wants published. `data` is one JSON value on one line; `info` and `tags` as in `Entry`.

    (source, id) is its identity in the channel; without an id it has none. `skip_history`: for those who are there.
    `as_delta` as in `Publication`.
    """

    channel: str
    data: bytes
    source: str
    id: str = ""
    info: bytes = b""
    tags: bytes = b""
    version: Version | None = None
    skip_history: bool = False
    as_delta: bool = False


@dataclass(slots=True)
class _Waiting:
    entry: Entry
    version: Version | None
    as_delta: bool
    outcome: asyncio.Future[Position]


class Publisher:
    """Guarantee: publications of one caller, each awaited before the next, are in that order in their stream.

    What takes more than one step belongs to `run`, so a caller that goes away changes nothing: it is finished.
    """

    def __init__(self, streams: Streams, bus: Bus, metrics: RealtimeMetrics) -> None:
        self._streams = streams
        self._bus = bus
        self._metrics = metrics
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._woken = asyncio.Event()
        self._errands = Errands()

    async def publish(self, draft: Draft, options: ChannelOptions) -> Position | None:
        """Where it is in its stream, durably; for a repeated identity, where the first is; for a version that is not
        new, where the stream is. None: it went to whoever hears the channel now, at most once. Nodes have been told.

        Raises StreamsAway (then nobody knows whether it is there), BusAway (then it may be tried again) and
        PublisherBusy.
        """
        now_ms = int(utc_now().timestamp() * 1000)
        if options.has_history and not draft.skip_history:
            entry = Entry(
                draft.channel, draft.source, draft.id, draft.data, now_ms, draft.info, draft.tags, options.keep
            )
            return await self._append(entry, draft)
        publication = Publication(0, draft.data, now_ms, draft.info, draft.tags, draft.as_delta)
        if draft.id:
            await self._errands.run(lambda: self._send_once(draft, publication))
        else:
            await self._send(draft.channel, publication)
        return None

    async def _append(self, entry: Entry, draft: Draft) -> Position:
        if len(self._waiting) >= _MOST_WAITING or self._waiting_bytes >= _MOST_WAITING_BYTES:
            self._metrics.drops.labels("publisher_busy").inc()
            raise PublisherBusy
        outcome: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(entry, draft.version, draft.as_delta, outcome))
        self._waiting_bytes += len(entry.data)
        self._woken.set()
        return await outcome

    async def _send_once(self, draft: Draft, publication: Publication) -> None:
        """Unless the channel has had it. Were its identity remembered and it not sent, whoever tried it again would be
        told that it was."""
        if await self._streams.remember(draft.channel, draft.source, draft.id):
            try:
                await self._send(draft.channel, publication)
            except BusAway:
                await self._streams.forget(draft.channel, draft.source, draft.id)
                raise

    async def _send(self, channel: str, publication: Publication) -> None:
        if not await self._bus.publish([Published(channel, "", publication)]):
            raise BusAway

    async def run(self) -> None:
        """Append what waits, until cancelled."""
        async with self._errands.open():
            while True:
                await self._woken.wait()
                while self._waiting:
                    await self._append_some(list(self._next()))
                self._woken.clear()

    def _next(self) -> Iterator[_Waiting]:
        size = 0
        for _ in range(min(len(self._waiting), _TOGETHER)):
            size += len(self._waiting[0].entry.data)
            if size > _TOGETHER_BYTES and size > len(self._waiting[0].entry.data):
                return
            self._waiting_bytes -= len(self._waiting[0].entry.data)
            yield self._waiting.popleft()

    async def _append_some(self, batch: list[_Waiting]) -> None:
        """In order, so a version, which is appended by itself, divides the batch."""
        for has_version, run in groupby(batch, key=lambda waiting: waiting.version is not None):
            for together in [[one] for one in run] if has_version else [list(run)]:
                try:
                    await self._append_together(together)
                except StreamsAway as error:
                    _settle_all(together, error)
                except Exception:
                    log.exception("append_failed", publications=len(together))  # who waits suffers it, not the node
                    _settle_all(together, StreamsAway())

    async def _append_together(self, batch: list[_Waiting]) -> None:
        appended = await self._written(batch)
        if appended:
            self._metrics.appended.inc(len(appended))
            await self._bus.publish(_wanted(item, batch[index]) for index, item in appended.items())
        for index, waiting in enumerate(batch):
            item = appended.get(index)
            _settle(waiting, await self._found(waiting.entry) if item is None else _position(item))

    async def _written(self, batch: list[_Waiting]) -> Mapping[int, Published]:
        entry, version = batch[0].entry, batch[0].version
        if version is None:
            return await self._streams.append([waiting.entry for waiting in batch])
        item = await self._streams.append_newer(entry, version.number, version.epoch)
        return {} if item is None else {0: item}

    async def _found(self, entry: Entry) -> Position:
        """Of an entry that was not appended. Rare, so each by itself."""
        found = await self._streams.find(entry.channel, entry.source, entry.id) if entry.id else None
        return found or (await self._streams.open([entry.channel]))[entry.channel]


def _wanted(item: Published, waiting: _Waiting) -> Published:
    """As whoever published it wants it sent."""
    if not waiting.as_delta:
        return item
    return replace(item, publication=replace(item.publication, as_delta=True))


def _position(item: Published) -> Position:
    return Position(item.publication.offset, item.epoch)


def _settle_all(batch: Sequence[_Waiting], error: StreamsAway) -> None:
    for waiting in batch:
        _settle(waiting, error)


def _settle(waiting: _Waiting, outcome: Position | StreamsAway) -> None:
    if waiting.outcome.done():
        return  # its caller is gone
    if isinstance(outcome, Position):
        waiting.outcome.set_result(outcome)
    else:
        waiting.outcome.set_exception(outcome)
