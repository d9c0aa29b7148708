"""PostgreSQL dies under the broker that lives in it: what was published is there, in order, and consuming goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from handlers.ports.broker import BrokerAway, Message
from storage.broker import PostgresBroker, PostgresBrokerOptions
from storage.pool import PoolOptions, connect, open_pool
from tests.locks import until_blocked
from tests.services.postgres import Postgres


@pytest.fixture
async def broker(own_postgres_url: str) -> AsyncIterator[PostgresBroker]:
    pool_options = PoolOptions(own_postgres_url, "test", size=2, acquire_timeout=2, deadline=2.8)
    async with open_pool(pool_options) as pool:
        yield PostgresBroker(own_postgres_url, pool, pool, PostgresBrokerOptions(("fanout",), "dead"))


async def publish_surely(broker: PostgresBroker, number: int) -> None:
    while True:
        try:
            await broker.publish([Message(f"{number}", "order.paid", "s", b"%d" % number)])
        except BrokerAway:
            await asyncio.sleep(0.05)
        else:
            return


async def test_killed_under_load_it_loses_nothing_published_and_no_order(
    own_postgres: Postgres, broker: PostgresBroker
) -> None:
    async def load() -> None:
        for number in range(300):
            if number == 100:
                await asyncio.to_thread(own_postgres.kill)
                group.create_task(asyncio.to_thread(own_postgres.start))
            await publish_surely(broker, number)

    numbers: list[int] = []
    async with (
        asyncio.timeout(40),
        broker.consume("fanout", prefetch=50) as deliveries,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(load())
        while 299 not in numbers:
            batch = await deliveries.receive()
            numbers += [int(delivery.body) for delivery in batch]
            await deliveries.acknowledge(batch)
    assert list(dict.fromkeys(numbers)) == list(range(300))


async def test_a_server_that_freezes_in_the_middle_of_a_publish_fails_it_in_time_and_recovers(
    own_postgres: Postgres, own_postgres_url: str, broker: PostgresBroker
) -> None:
    await publish_surely(broker, 0)
    async with connect(own_postgres_url, name="holder") as holder:
        await holder.execute("BEGIN; LOCK TABLE broker_messages")
        publishing = asyncio.create_task(broker.publish([Message("1", "order.paid", "s", b"1")]))
        await until_blocked(holder, by="test")
        await asyncio.to_thread(own_postgres.pause)
        async with asyncio.timeout(4):
            with pytest.raises(BrokerAway):
                await publishing
        await asyncio.to_thread(own_postgres.resume)
    async with asyncio.timeout(20):
        await publish_surely(broker, 2)


async def test_a_frozen_server_fails_a_publish_in_time_and_recovers(
    own_postgres: Postgres, broker: PostgresBroker
) -> None:
    await publish_surely(broker, 0)
    await asyncio.to_thread(own_postgres.pause)
    async with asyncio.timeout(4):
        with pytest.raises(BrokerAway):
            await broker.publish([Message("1", "order.paid", "s", b"1")])
    assert not await broker.is_reachable()
    await asyncio.to_thread(own_postgres.resume)
    async with asyncio.timeout(20), broker.consume("fanout", prefetch=50) as deliveries:
        await publish_surely(broker, 2)
        bodies = [b"0"]
        while b"2" not in bodies:
            bodies += [delivery.body for delivery in await deliveries.receive()]
