"""A connection is given back by itself: whoever used it goes on at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from handlers.errors import Unavailable
from handlers.ports.outbox import OutboxAway
from handlers.ports.streams import Entry, StreamsAway
from storage.outbox import PostgresOutbox
from storage.pool import in_transaction
from storage.postgres import open_postgres
from storage.streams import StreamsOptions, open_streams
from tests.database_options import postgres_options


async def test_who_has_an_answer_does_not_wait_until_the_connection_is_given_back(postgres_url: str) -> None:
    a_turn_later = asyncio.Event()
    async with open_postgres(postgres_options(postgres_url)) as postgres:
        async with postgres.pool.connection() as connection:
            await connection.fetchval("SELECT 1")
            asyncio.get_running_loop().call_soon(a_turn_later.set)
        assert not a_turn_later.is_set()


async def test_the_next_use_gets_the_connection_of_the_one_before(postgres_url: str) -> None:
    async with open_postgres(postgres_options(postgres_url, pool_size=1)) as postgres:
        backends = set()
        for _ in range(3):
            async with postgres.pool.connection() as connection:
                backends.add(await connection.fetchval("SELECT pg_backend_pid()"))
        assert len(backends) == 1


async def test_what_takes_too_long_is_rolled_back_and_its_connection_is_kept(postgres_url: str) -> None:
    lock = "SELECT pg_try_advisory_xact_lock(5), pg_backend_pid()"
    async with open_postgres(postgres_options(postgres_url, pool_size=1)) as postgres:
        before = []

        async def take_too_long() -> None:
            async with postgres.pool.connection(deadline=0.3) as connection, in_transaction(connection):
                before.append(await connection.fetchrow(lock))
                await connection.execute("SELECT pg_sleep(60)")

        with pytest.raises(Unavailable):
            await take_too_long()
        async with postgres.pool.connection() as connection, postgres.readers.connection() as another:
            assert not connection.is_in_transaction()
            assert await another.fetchval(lock) is True
            assert await connection.fetchrow(lock) == before[0]


@pytest.mark.parametrize("turns", range(1, 9))
async def test_what_is_cancelled_while_it_begins_leaves_no_transaction(postgres_url: str, turns: int) -> None:
    async with open_postgres(postgres_options(postgres_url, pool_size=1)) as postgres:
        async with postgres.pool.connection() as connection:
            backend = await connection.fetchval("SELECT pg_backend_pid()")

        async def begin() -> None:
            async with postgres.pool.connection() as connection, in_transaction(connection):
                await asyncio.Event().wait()

        beginning = asyncio.create_task(begin())
        for _ in range(turns):
            await asyncio.sleep(0)
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        async with postgres.pool.connection() as connection:
            assert not connection.is_in_transaction()
            assert await connection.fetchval("SELECT pg_backend_pid()") == backend


async def test_closing_waits_for_those_that_are_being_given_back(postgres_url: str) -> None:
    async with open_postgres(postgres_options(postgres_url)) as postgres:
        for _ in range(3):
            async with postgres.pool.connection() as connection:
                await connection.fetchval("SELECT 1")
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "give_back"] == []


@asynccontextmanager
async def a_doorkeeper(asked: set[str]) -> AsyncIterator[str]:
    """Its URL. It hears what a session asks for at its beginning, and lets nobody in."""

    async def turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        said = (await reader.readexactly(length - 4))[4:].split(b"\0")  # behind the protocol's version
        asked.update(name.decode() for name in said[:-2:2])
        writer.close()

    server = await asyncio.start_server(turn_away, "127.0.0.1")
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"postgresql://nobody@127.0.0.1:{port}/nothing?sslmode=disable"


async def test_what_a_pooler_has_to_pass_over_is_documented() -> None:
    asked = set[str]()
    async with (
        a_doorkeeper(asked) as url,
        open_postgres(postgres_options(url)) as postgres,
        open_streams(StreamsOptions(url)) as streams,
    ):
        for unit in (postgres.transaction, postgres.read):
            with pytest.raises(Unavailable):
                await unit().__aenter__()
        with pytest.raises(StreamsAway):
            await streams.append([Entry("a", "b", "c", b"1", 0)])
        with pytest.raises(OutboxAway):
            await PostgresOutbox(url, postgres.pool, postgres.bell).lead().__aenter__()

    document = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    [ignored] = re.findall(r"^ignore_startup_parameters = (.+)$", document, re.MULTILINE)
    known_to_it = {"user", "database", "application_name", "client_encoding", "timezone"}
    assert set(ignored.split(", ")) == asked - known_to_it
