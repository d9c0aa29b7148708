"""What the broker in PostgreSQL costs while nothing happens."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import asyncpg

from handlers.ports.broker import Message
from storage.broker import PostgresBroker, PostgresBrokerOptions
from storage.pool import PoolOptions, open_pool


async def test_a_consumer_that_has_all_asks_a_few_times_a_second_and_remembers_nothing(postgres_url: str) -> None:
    asked: list[str] = []

    def note(query: asyncpg.connection.LoggedQuery) -> None:
        asked.append(query.query)

    pool_options = PoolOptions(postgres_url, "test", size=2, acquire_timeout=2, deadline=2.8)
    async with open_pool(pool_options) as pool:
        broker = PostgresBroker(postgres_url, pool, pool, PostgresBrokerOptions(("q",), "dead"))
        await broker.publish([Message("1", "t", "s", b"1")])
        async with broker.consume("q", prefetch=10) as deliveries:
            first = await deliveries.receive()
            await broker.publish([Message("2", "t", "s", b"2")])
            await deliveries.acknowledge([*first, *await deliveries.receive()])
            of_postgresql = cast("Any", deliveries)
            assert not of_postgresql._outstanding
            of_postgresql._connection.add_query_logger(note)
            waiting = asyncio.create_task(deliveries.receive())
            await asyncio.wait([waiting], timeout=1.0)
            waiting.cancel()
            await asyncio.wait([waiting])

    assert 1 <= len(asked) <= 6
