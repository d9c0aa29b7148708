"""A connection is given back by itself: whoever used it goes on at once."""

from __future__ import annotations

import asyncio

from storage.postgres import open_postgres
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


async def test_closing_waits_for_those_that_are_being_given_back(postgres_url: str) -> None:
    async with open_postgres(postgres_options(postgres_url)) as postgres:
        for _ in range(3):
            async with postgres.pool.connection() as connection:
                await connection.fetchval("SELECT 1")
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "give_back"] == []
