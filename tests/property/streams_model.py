"""The streams as a model with controllable time: each read takes its snapshot, then waits until it is let go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from handlers.ports.domain import Position
from handlers.ports.streams import Entry, Page, Publication, Published, StreamsAway


@dataclass
class Stream:
    epoch: str = ""
    top: int = 0
    publications: list[Publication] = field(default_factory=list)


@dataclass
class ModelStreams:
    """`history` has everything ever published, by (channel, epoch, offset)."""

    streams: dict[str, Stream] = field(default_factory=dict)
    history: dict[tuple[str, str, int], bytes] = field(default_factory=dict)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    is_away: bool = False
    is_held: bool = False
    epochs: int = 0
    _has_more_waiting: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, channel: str, data: bytes = b"") -> Published:
        stream = self._begun(channel)
        stream.top += 1
        data = data or b'"%b %b %d"' % (channel.encode(), stream.epoch.encode(), stream.top)
        self.history[channel, stream.epoch, stream.top] = data
        publication = Publication(stream.top, data, 0)
        stream.publications.append(publication)
        return Published(channel, stream.epoch, publication)

    def trim(self, channel: str, keep: int) -> None:
        stream = self.streams.get(channel, Stream())
        stream.publications = stream.publications[len(stream.publications) - keep :] if keep else []

    def change_epoch(self, channel: str) -> None:
        stream = self.streams.get(channel)
        if stream is not None:
            self.streams[channel] = Stream(self._new_epoch(), stream.top)

    def drop(self, channel: str) -> None:
        self.streams.pop(channel, None)

    def position(self, channel: str) -> Position:
        stream = self.streams.get(channel, Stream())
        return Position(stream.top, stream.epoch)

    async def until_held(self, count: int = 1) -> None:
        """Until so many reads wait to be let go."""
        while len(self.waiting) < count:
            self._has_more_waiting.clear()
            await self._has_more_waiting.wait()

    def let_go(self, index: int) -> None:
        if self.waiting:
            waiter = self.waiting.pop(index % len(self.waiting))
            if not waiter.done():
                waiter.set_result(None)

    async def append(self, entries: Sequence[Entry]) -> Mapping[int, Published]:
        return {index: self.publish(entry.channel, entry.data) for index, entry in enumerate(entries)}

    async def append_newer(self, entry: Entry, version: int, version_epoch: str) -> Published | None:
        raise NotImplementedError(entry, version, version_epoch)

    async def remember(self, channel: str, source: str, entry_id: str) -> bool:
        raise NotImplementedError(channel, source, entry_id)

    async def forget(self, channel: str, source: str, entry_id: str) -> None:
        raise NotImplementedError(channel, source, entry_id)

    async def find(self, channel: str, source: str, entry_id: str) -> Position | None:
        raise NotImplementedError(channel, source, entry_id)

    async def clear(self, channel: str) -> None:
        self.trim(channel, 0)

    async def read(self, channel: str, *, after: int, limit: int, max_bytes: int) -> Page:
        stream = self.streams.get(channel, Stream())
        # Small pages: the paths between pages are what is tested.
        newer = [item for item in stream.publications if item.offset > after][: min(limit, max_bytes, 3)]
        page = Page(newer, self.position(channel))
        await self._hold()
        return page

    async def read_back(self, channel: str, *, before: int | None, limit: int, max_bytes: int) -> Page:
        stream = self.streams.get(channel, Stream())
        older = [item for item in reversed(stream.publications) if before is None or item.offset < before]
        page = Page(older[: min(limit, max_bytes)], self.position(channel))
        await self._hold()
        return page

    async def open(self, channels: Sequence[str]) -> Mapping[str, Position]:
        for channel in channels:
            self._begun(channel)
        return await self.moved(dict.fromkeys(channels, Position(0, "")))

    async def moved(self, known: Mapping[str, Position]) -> Mapping[str, Position]:
        heads = {channel: self.position(channel) for channel in known}
        await self._hold()
        return {channel: head for channel, head in heads.items() if head != known[channel]}

    async def _hold(self) -> None:
        if self.is_held:
            waiter = asyncio.get_running_loop().create_future()
            self.waiting.append(waiter)
            self._has_more_waiting.set()
            await waiter
        if self.is_away:
            raise StreamsAway

    def _begun(self, channel: str) -> Stream:
        if channel not in self.streams:
            self.streams[channel] = Stream(self._new_epoch())
        return self.streams[channel]

    def _new_epoch(self) -> str:
        self.epochs += 1
        return f"epoch-{self.epochs}"
