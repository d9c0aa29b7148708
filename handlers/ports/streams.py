"""The durable log of each channel, as realtime sees it. A port; `storage.streams` is its variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from handlers.ports.domain import Position


class StreamsAway(Exception):
    """The streams cannot be read or written now; nothing was appended, or nobody knows: append again."""


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A connection as others see it. `user` is empty for an anonymous one; `conn_info` and `chan_info` are one JSON
    value each, or empty."""

    user: str
    client: str
    conn_info: bytes = b""
    chan_info: bytes = b""


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of a stream is kept: its last `size` publications, each for `ttl` seconds."""

    size: int = 2**63 - 1
    ttl: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What to append to one channel. (channel, source, id) is its identity: a second entry with the same is dropped.
    An empty `id` is nobody's: such an entry is always new.

    `data` is one JSON value on one line; `time_ms` is when it happened, Unix milliseconds. `info` (who published it)
    and `tags` (strings by name) are JSON objects as clients get them, or empty.
    """

    channel: str
    source: str
    id: str
    data: bytes
    time_ms: int
    info: bytes = b""
    tags: bytes = b""
    keep: Keep = Keep()


@dataclass(frozen=True, slots=True)
class Publication:
    """One element of a stream; offsets count 1, 2, 3 ... without a gap. Offset 0 is in no stream: it goes to whoever
    hears the channel now, and is gone. `info` and `tags` as in `Entry`. `as_delta`: whoever published it wants it sent
    as the difference to the one before; the stream does not keep that."""

    offset: int
    data: bytes
    time_ms: int
    info: bytes = b""
    tags: bytes = b""
    as_delta: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    channel: str
    epoch: str
    publication: Publication


@dataclass(frozen=True, slots=True)
class Page:
    """A run of publications read in one snapshot, with the head (`top`) of the stream at that moment."""

    publications: Sequence[Publication]
    top: Position


class Streams(Protocol):
    """Every method raises StreamsAway when PostgreSQL cannot be reached or answers too late."""

    async def append(self, entries: Sequence[Entry]) -> Mapping[int, Published]:
        """Append in order, all or none, durable on return; mints the offsets. The result is by index in `entries`;
        what was known before is left out of it. Safe with any number of concurrent callers."""
        ...

    async def append_newer(self, entry: Entry, version: int, version_epoch: str) -> Published | None:
        """Append unless the stream's last versioned publication was of this `version` or a higher one of the same
        `version_epoch`. None: nothing was appended, for that reason or because the entry was known."""
        ...

    async def remember(self, channel: str, source: str, entry_id: str) -> bool:
        """Note an identity of something that is in no stream. False if the channel has had it."""
        ...

    async def forget(self, channel: str, source: str, entry_id: str) -> None:
        """What was remembered, and did not come about."""
        ...

    async def find(self, channel: str, source: str, entry_id: str) -> Position | None:
        """Where the entry of this identity was appended; None if that is not known (any more)."""
        ...

    async def clear(self, channel: str) -> None:
        """Delete the stream's publications. It goes on from where it is, so nothing is published twice under one
        offset."""
        ...

    async def read(self, channel: str, *, after: int, limit: int, max_bytes: int) -> Page:
        """Publications with offset > `after`, oldest first: at most `limit`, and no more than `max_bytes` of data
        unless the first alone is larger. Retention may have taken the first ones: look at the first offset."""
        ...

    async def read_back(self, channel: str, *, before: int | None, limit: int, max_bytes: int) -> Page:
        """Like `read`, but publications with offset < `before` (any, if None), newest first."""
        ...

    async def open(self, channels: Sequence[str]) -> Mapping[str, Position]:
        """The heads of these streams; one that is not there begins now, so that it has an epoch before its first
        publication. Safe with any number of concurrent callers, of `append` too."""
        ...

    async def moved(self, known: Mapping[str, Position]) -> Mapping[str, Position]:
        """The heads of those streams that are not where they are known to be, in one query; of one that is gone
        Position(0, ""). Finds out as well whether the database is another one: then every epoch is new."""
        ...
