"""The streams: each channel's durable log. Appended to in batches, deduplicated, offsets minted under a row lock."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import asyncpg
import structlog

from handlers.ports.domain import Position
from handlers.ports.streams import Entry, Page, Publication, Published, StreamsAway
from storage.pool import Pool, PoolOptions, in_transaction, open_pool
from storage.positions import NEVER_WRITTEN
from storage.queries import load
from storage.sqlstates import raising

if TYPE_CHECKING:
    from storage.pool import Connection

log = structlog.get_logger(__name__)

T = TypeVar("T")

SQL = load("streams")

ATTEMPTS = 8
TRIM_EVERY = 64  # publications of one stream
JITTER = 0.005  # seconds, times the attempt
_SALT_BYTES = 8
_NEWEST = 2**63 - 1  # above every offset


@dataclass(frozen=True, slots=True)
class StreamsOptions:
    """Times are seconds. Appending has connections of its own: no storm of recoveries can delay the fan-out."""

    url: str = field(repr=False)
    writers: int = 2
    readers: int = 2
    acquire_timeout: float = 2.0
    read_deadline: float = 2.5
    append_deadline: float = 5.0


class PostgresStreams:
    def __init__(self, writers: Pool, readers: Pool) -> None:
        self._writers = writers
        self._readers = readers

    async def append(self, entries: Sequence[Entry]) -> Mapping[int, Published]:
        unique = _first_of_each(entries)
        if not unique:
            return {}
        appended = await self._write(lambda connection: _append(connection, unique))
        await self._trim({item.channel for n, item in appended.items() if _is_full(unique[n], item)})
        return appended

    async def append_newer(self, entry: Entry, version: int, version_epoch: str) -> Published | None:
        appended = await self._write(lambda connection: _append_newer(connection, entry, version, version_epoch))
        if appended is not None and _is_full(entry, appended):
            await self._trim([entry.channel])
        return appended

    async def remember(self, channel: str, source: str, entry_id: str) -> bool:
        with raising(StreamsAway):
            async with self._writers.connection() as connection:
                return await connection.fetchval(SQL["remember"], channel, source, entry_id) is True

    async def forget(self, channel: str, source: str, entry_id: str) -> None:
        with raising(StreamsAway):
            async with self._writers.connection() as connection:
                await connection.execute(SQL["forget"], channel, source, entry_id)

    async def _write(self, write: Callable[[Connection], Awaitable[T]]) -> T:
        """What is written once, on a connection for that."""
        with raising(StreamsAway):
            for attempt in range(ATTEMPTS):
                try:
                    async with self._writers.connection() as connection:
                        return await write(connection)
                except SeenMeanwhile:
                    await asyncio.sleep(random.uniform(0, JITTER * attempt))  # noqa: S311 jitter
        raise StreamsAway

    async def _trim(self, channels: Collection[str]) -> None:
        """The append stands, whatever becomes of this: next time will do. By the readers, whose plans suit it."""
        if not channels:
            return
        with suppress(StreamsAway), raising(StreamsAway):
            async with self._readers.connection() as connection:
                await connection.execute(SQL["trim"], list(channels))

    async def find(self, channel: str, source: str, entry_id: str) -> Position | None:
        with raising(StreamsAway):
            async with self._readers.connection() as connection:
                row = await connection.fetchrow(SQL["find"], channel, source, entry_id)
        return None if row is None else Position(row["offset"], row["epoch"])

    async def clear(self, channel: str) -> None:
        with raising(StreamsAway):
            async with self._readers.connection() as connection:
                await connection.execute(SQL["clear"], channel)

    async def read(self, channel: str, *, after: int, limit: int, max_bytes: int) -> Page:
        return await self._page(SQL["read"], channel, after, limit, max_bytes)

    async def read_back(self, channel: str, *, before: int | None, limit: int, max_bytes: int) -> Page:
        return await self._page(SQL["read_back"], channel, _NEWEST if before is None else before, limit, max_bytes)

    async def _page(self, query: str, channel: str, edge: int, limit: int, max_bytes: int) -> Page:
        with raising(StreamsAway):
            async with self._readers.connection() as connection:
                rows = await connection.fetch(query, channel, min(edge, _NEWEST), limit, max_bytes)
        if not rows:
            return Page((), NEVER_WRITTEN)
        publications = [
            Publication(row["offset"], row["data"], row["time_ms"], row["info"] or b"", row["tags"] or b"")
            for row in rows
            if row["offset"] is not None
        ]
        return Page(publications, Position(rows[0]["top"], rows[0]["epoch"]))

    async def open(self, channels: Sequence[str]) -> Mapping[str, Position]:
        nowhere = dict.fromkeys(channels, NEVER_WRITTEN)
        with raising(StreamsAway):
            async with self._readers.connection() as connection:
                heads = await _moved(connection, nowhere)
                missing = nowhere.keys() - heads.keys()
                if missing:
                    await connection.execute(SQL["begin"], list(missing), _new_salt())
                    heads = await _moved(connection, nowhere)
        return heads

    async def moved(self, known: Mapping[str, Position]) -> Mapping[str, Position]:
        with raising(StreamsAway):
            async with self._readers.connection() as connection:
                return await _moved(connection, known)

    async def new_epoch(self) -> int:
        """Change every stream's epoch, so that all clients reload: for the operator who restored a snapshot of the
        database's files, which nobody can notice. Returns the new generation."""
        with raising(StreamsAway):
            async with self._readers.connection() as connection:
                generation: int = await connection.fetchval(SQL["new_epoch"])
        return generation


@asynccontextmanager
async def open_streams(options: StreamsOptions) -> AsyncIterator[PostgresStreams]:
    """Does not wait for PostgreSQL: while it is away, every use raises StreamsAway."""
    readers = PoolOptions(
        url=options.url,
        name="orderwire streams",
        size=options.readers,
        acquire_timeout=options.acquire_timeout,
        deadline=options.read_deadline,
    )
    writers = replace(
        readers,
        name="orderwire append",
        size=options.writers,
        deadline=options.append_deadline,
        settings={
            # Planned once: planning took longer than appending one event. So the plan must be good for every size of
            # batch and table: each look-up a probe of an index, each join a hash.
            "plan_cache_mode": "force_generic_plan",
            "enable_seqscan": "off",
            "jit": "off",
            # The size of what was not seen is a guess to the planner; a nested loop over it would be quadratic.
            "enable_nestloop": "off",
        },
    )
    async with (
        open_pool(readers, on_connect=_follow_database) as reading,
        open_pool(writers, on_connect=_follow_database) as writing,
    ):
        yield PostgresStreams(writing, reading)


class SeenMeanwhile(Exception):
    """Another transaction appended one of the entries between our look and our write."""


def _new_salt() -> str:
    """One for all streams that begin together: epochs are only ever compared within one channel."""
    return secrets.token_hex(_SALT_BYTES)


def _first_of_each(entries: Sequence[Entry]) -> Mapping[int, Entry]:
    """By index; without repeats of an identity."""
    known: set[tuple[str, str, str]] = set()
    unique: dict[int, Entry] = {}
    for index, entry in enumerate(entries):
        identity = (entry.channel, entry.source, entry.id)
        if entry.id and identity in known:
            continue
        known.add(identity)
        unique[index] = entry
    return unique


async def _append(connection: Connection, unique: Mapping[int, Entry]) -> Mapping[int, Published]:
    indexes, entries = list(unique), unique.values()
    try:
        rows = await connection.fetch(
            SQL["append"],
            [entry.channel for entry in entries],
            [entry.source for entry in entries],
            [entry.id for entry in entries],
            [entry.data for entry in entries],
            [entry.time_ms for entry in entries],
            [entry.info or None for entry in entries],
            [entry.tags or None for entry in entries],
            [entry.keep.size for entry in entries],
            [entry.keep.ttl for entry in entries],
            _new_salt(),
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "seen_pkey":
            raise
        raise SeenMeanwhile from error
    appended: dict[int, Published] = {}
    for row in rows:
        index = indexes[row["n"] - 1]
        appended[index] = _published(unique[index], row["offset"], row["epoch"])
    return appended


async def _append_newer(connection: Connection, entry: Entry, version: int, version_epoch: str) -> Published | None:
    async with in_transaction(connection):
        last = await connection.fetchrow(SQL["lock_version"], entry.channel, _new_salt())
        if last is None or (last["version_epoch"] == version_epoch and version <= last["version"]):
            return None
        appended = (await _append(connection, {0: entry})).get(0)
        if appended is not None:
            await connection.execute(SQL["set_version"], entry.channel, version, version_epoch)
        return appended


def _published(entry: Entry, offset: int, epoch: str) -> Published:
    publication = Publication(offset, entry.data, entry.time_ms, entry.info, entry.tags)
    return Published(entry.channel, epoch, publication)


def _is_full(entry: Entry, item: Published) -> bool:
    """Should the stream be trimmed now? Every so often is enough: what is beyond its size is not read any more."""
    return item.publication.offset > entry.keep.size and item.publication.offset % TRIM_EVERY == 0


async def _moved(connection: Connection, known: Mapping[str, Position]) -> Mapping[str, Position]:
    offsets = [position.offset for position in known.values()]
    epochs = [position.epoch for position in known.values()]
    rows = await connection.fetch(SQL["moved"], list(known), offsets, epochs)
    if rows[0]["is_another_database"]:
        await _follow_database(connection)
        rows = await connection.fetch(SQL["moved"], list(known), offsets, epochs)
    return {row["channel"]: Position(row["top"], row["epoch"]) for row in rows if row["channel"] is not None}


async def _follow_database(connection: Connection) -> None:
    """Offsets minted after a failover or a restore may repeat ones that clients know: change every epoch first."""
    generation = await connection.fetchval(SQL["follow_database"])
    if generation is not None:
        log.warning("epochs_changed", generation=generation)
