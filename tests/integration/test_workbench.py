"""What the other tests rely on: real servers that can be killed and come back, and watchers that see what is left."""

from __future__ import annotations

import asyncio

import aio_pika
import asyncpg
from redis.asyncio import Redis as RedisClient

from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis


async def test_each_test_gets_a_migrated_database(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT count(*) FROM orders") == 0
    await connection.close()


async def test_a_killed_postgres_comes_back_on_its_port_with_what_was_committed(
    own_postgres: Postgres, own_postgres_url: str
) -> None:
    connection = await asyncpg.connect(own_postgres_url)
    await connection.execute("CREATE TABLE kept (id int)")
    await asyncio.to_thread(own_postgres.kill)
    connection.terminate()
    await asyncio.to_thread(own_postgres.restart)
    connection = await asyncpg.connect(own_postgres_url)
    assert await connection.fetchval("SELECT count(*) FROM kept") == 0
    await connection.close()


async def test_a_frozen_redis_answers_when_it_is_resumed(own_redis: Redis) -> None:
    client = RedisClient.from_url(own_redis.url)
    await client.set("key", "value")
    own_redis.pause()
    answer = asyncio.ensure_future(client.get("key"))
    done, _ = await asyncio.wait({answer}, timeout=0.05)
    assert not done
    own_redis.resume()
    assert await answer == b"value"
    await client.aclose()


async def test_a_killed_rabbitmq_comes_back_on_its_port(own_rabbitmq: RabbitMQ) -> None:
    connection = await aio_pika.connect(own_rabbitmq.url)
    await asyncio.to_thread(own_rabbitmq.kill)
    await connection.close()
    await asyncio.to_thread(own_rabbitmq.restart)
    async with await aio_pika.connect(own_rabbitmq.url) as connection:
        assert not connection.is_closed


async def test_another_application_has_a_user_of_its_own(rabbitmq_foreign_url: str) -> None:
    async with await aio_pika.connect(rabbitmq_foreign_url) as connection:
        assert not connection.is_closed
