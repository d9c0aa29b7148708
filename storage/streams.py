"""The streams: each channel's durable log. Appended to in batches, deduplicated, offsets minted under a row lock."""

from __future__ import annotations

import asyncio
import random
import secrets
import string
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import asyncpg
import structlog

from handlers.ports.domain import Position
from handlers.ports.streams import Entry, Page, Publication, Published, StreamsAway
from storage.pool import Pool, PoolOptions, open_pool
from storage.positions import NEVER_WRITTEN
from storage.queries import load
from storage.sqlstates import raising

if TYPE_CHECKING:
    from storage.pool import Connection

log = structlog.get_logger(__name__)

SQL = load("streams")

ATTEMPTS = 8
JITTER = 0.005  # seconds, times the attempt
_BASE62 = string.ascii_letters + string.digits
_SALT_LENGTH = 10
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

    async def append(self, entries: Sequence[Entry]) -> Sequence[Published]:
        first: dict[tuple[str, str, str], Entry] = {}
        for entry in entries:
            first.setdefault((entry.channel, entry.source, entry.id), entry)
        unique = list(first.values())
        if not unique:
            return []
        with raising(StreamsAway):
            for attempt in range(ATTEMPTS):
                try:
                    async with self._writers.connection() as connection:
                        return await _append(connection, unique)
                except SeenMeanwhile:
                    await asyncio.sleep(random.uniform(0, JITTER * attempt))  # noqa: S311 jitter
        raise StreamsAway

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
            Publication(row["offset"], row["data"], row["time_ms"]) for row in rows if row["offset"] is not None
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
    return "".join(secrets.choice(_BASE62) for _ in range(_SALT_LENGTH))


async def _append(connection: Connection, entries: Sequence[Entry]) -> Sequence[Published]:
    try:
        rows = await connection.fetch(
            SQL["append"],
            [entry.channel for entry in entries],
            [entry.source for entry in entries],
            [entry.id for entry in entries],
            [entry.data for entry in entries],
            [entry.time_ms for entry in entries],
            _new_salt(),
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "seen_pkey":
            raise
        raise SeenMeanwhile from error
    return [_published(entries[row["n"] - 1], row["offset"], row["epoch"]) for row in rows]


def _published(entry: Entry, offset: int, epoch: str) -> Published:
    return Published(entry.channel, epoch, Publication(offset, entry.data, entry.time_ms))


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
