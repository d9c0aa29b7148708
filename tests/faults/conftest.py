from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import aiohttp
import pytest

from tests.services.databases import Databases
from tests.services.orderwire import Orderwire, reachable_folder
from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis
from tests.torture.load import Shop
from tests.torture.stage import SECRET, furnish


@dataclass(frozen=True, slots=True)
class Deployment:
    """Two nodes on PostgreSQL, RabbitMQ and Redis that may be killed, with accounts and products."""

    nodes: tuple[Orderwire, Orderwire]
    shop: Shop
    postgres: Postgres
    rabbitmq: RabbitMQ
    redis: Redis
    exchange: str

    def revive(self) -> None:
        """Have everything running, whatever a test did to it."""
        for server in (self.postgres, self.rabbitmq, self.redis):
            server.revive()
        for node in self.nodes:
            if not node.is_running:
                node.start()


@pytest.fixture(scope="session")
def standing(
    mortal_postgres: Postgres, mortal_databases: Databases, mortal_redis: Redis, mortal_rabbitmq: RabbitMQ
) -> Iterator[Deployment]:
    for server in (mortal_postgres, mortal_redis, mortal_rabbitmq):
        server.revive()
    with mortal_databases.connected():
        database_url = mortal_databases.create()
    name = f"test-{secrets.token_hex(6)}"
    environment = {
        "ORDERWIRE_DATABASE__URL": database_url,
        "ORDERWIRE_REDIS__URL": mortal_redis.url,
        "ORDERWIRE_REDIS__BUS_CHANNEL": name,
        "ORDERWIRE_BROKER__URL": mortal_rabbitmq.url,
        "ORDERWIRE_BROKER__EXCHANGE": f"{name}.events",
        "ORDERWIRE_BROKER__FANOUT_QUEUE": f"{name}.fanout",
        "ORDERWIRE_BROKER__DEAD_LETTER_QUEUE": f"{name}.dead",
        "ORDERWIRE_AUTH__TOKEN_SECRET": SECRET,
    }
    with ExitStack() as stack:
        folders = (stack.enter_context(reachable_folder()) for _ in range(2))
        first, second = (Orderwire(folder, environment=environment) for folder in folders)
        for node in (first, second):
            stack.callback(node.stop)
            node.start()
        shop = asyncio.run(furnish(database_url, [first, second], seed=1))
        yield Deployment((first, second), shop, mortal_postgres, mortal_rabbitmq, mortal_redis, f"{name}.events")


@pytest.fixture
def deployment(standing: Deployment) -> Deployment:
    """For one test alone: kill what you like."""
    standing.revive()
    return standing


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def outage() -> float:
    """Seconds that a part is away; ORDERWIRE_TEST_OUTAGE_SECONDS=30 for the long run."""
    return float(os.environ.get("ORDERWIRE_TEST_OUTAGE_SECONDS", "5"))
