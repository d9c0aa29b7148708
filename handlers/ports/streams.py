"""The durable log of each channel, as realtime sees it. A port; `storage.streams` is its variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from handlers.ports.domain import Position


class StreamsAway(Exception):
    """The streams cannot be read or written now; nothing was appended, or nobody knows: append again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What to append to one channel. (channel, source, id) is its identity: a second entry with the same is dropped.

    `data` is one JSON value on one line; `time_ms` is when it happened, Unix milliseconds.
    """

    channel: str
    source: str
    id: str
    data: bytes
    time_ms: int


@dataclass(frozen=True, slots=True)
class Publication:
    """One element of a stream; offsets count 1, 2, 3 ... without a gap."""

    offset: int
    data: bytes
    time_ms: int


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

    async def append(self, entries: Sequence[Entry]) -> Sequence[Published]:
        """Append in order, all or none, durable on return; mints the offsets. What was known before is left out
        of the result. Safe with any number of concurrent callers."""
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
