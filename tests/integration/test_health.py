"""Readiness of a node whose database works hard."""

from __future__ import annotations

from contextlib import AsyncExitStack

from server.app import open_node
from server.health import State
from server.lifespan import Places
from server.settings import Database, Settings


async def test_a_node_with_all_its_connections_in_use_is_ready(postgres_url: str, redis_url: str) -> None:
    settings = Settings.model_construct(database=Database(pool_size=3))
    async with (
        open_node(settings, Places(postgres_url, redis_url, b"s" * 32, ())) as node,
        AsyncExitStack() as held,
    ):
        for _ in range(settings.database.pool_size):
            await held.enter_async_context(node.database.pool.connection(deadline=30))

        _, states = await node.health.report()

    assert states == {
        "postgresql": State.FINE,
        "schema": State.FINE,
        "broker": State.FINE,
        "redis": State.DEGRADED,  # nobody runs the bus here
    }
