"""Redis restarts, freezes, stays away: the bus says so, never holds anybody up, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from realtime.bus_redis import RedisBus, RedisBusOptions, open_redis_bus
from realtime.metrics import RealtimeMetrics
from tests.services.redis import Redis


@dataclass
class Node:
    bus: RedisBus
    registry: CollectorRegistry
    heard: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    @property
    def lost(self) -> float:
        return self.registry.get_sample_value("orderwire_bus_messages_lost_total") or 0

    async def until_connected(self, wanted: bool = True) -> None:
        while self.bus.is_connected is not wanted:  # noqa: ASYNC110 - a property is all that the port offers
            await asyncio.sleep(0.01)

    async def hears_again(self) -> bool:
        await self.bus.publish(b"again")
        while await self.heard.get() != b"again":
            pass
        return True


@pytest.fixture
async def node(own_redis: Redis, unique_name: str) -> AsyncIterator[Node]:
    async with running_node(own_redis, unique_name) as started:
        async with asyncio.timeout(5):
            await started.until_connected()
        yield started


@asynccontextmanager
async def running_node(server: Redis, channel: str) -> AsyncIterator[Node]:
    registry = CollectorRegistry()
    async with open_redis_bus(RedisBusOptions(server.url, channel), RealtimeMetrics(registry)) as bus:
        started = Node(bus, registry)
        task = asyncio.create_task(bus.run(started.heard.put_nowait))
        yield started
        task.cancel()
        await asyncio.wait([task])


async def test_a_restart_is_noticed_and_messages_arrive_again(own_redis: Redis, node: Node) -> None:
    await asyncio.to_thread(own_redis.kill)
    async with asyncio.timeout(2):
        await node.until_connected(False)
    await asyncio.to_thread(own_redis.start)
    async with asyncio.timeout(5):
        await node.until_connected()
        assert await node.hears_again()
    assert node.registry.get_sample_value("orderwire_reconnects_total", {"part": "redis"}) == 1


async def test_publishing_to_a_frozen_redis_waits_once_and_then_not_at_all(own_redis: Redis, node: Node) -> None:
    await asyncio.to_thread(own_redis.pause)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await asyncio.gather(*(node.bus.publish(b"lost") for _ in range(50)))
    assert loop.time() - started < 1.5
    assert not node.bus.is_connected
    started = loop.time()
    await node.bus.publish(b"lost too")
    assert loop.time() - started < 0.1
    assert node.lost == 51
    await asyncio.to_thread(own_redis.resume)
    async with asyncio.timeout(8):
        await node.until_connected()
        assert await node.hears_again()


async def test_a_half_open_subscription_is_found_within_five_seconds(own_redis: Redis, node: Node) -> None:
    await asyncio.to_thread(own_redis.pause)
    async with asyncio.timeout(5):
        await node.until_connected(False)
    await asyncio.to_thread(own_redis.resume)
    async with asyncio.timeout(8):
        await node.until_connected()


async def test_a_node_starts_with_redis_away_and_joins_when_it_comes(own_redis: Redis, unique_name: str) -> None:
    await asyncio.to_thread(own_redis.stop)
    async with running_node(own_redis, unique_name) as node:
        await node.bus.publish(b"lost")
        assert not node.bus.is_connected
        assert node.lost == 1
        await asyncio.to_thread(own_redis.start)
        async with asyncio.timeout(5):
            await node.until_connected()
            assert await node.hears_again()
