"""Redis restarts, freezes, stays away: the bus says so, never holds anybody up, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from realtime.bus import Bus, Order, decode
from realtime.bus_redis import RedisBusOptions, open_redis_bus
from realtime.metrics import RealtimeMetrics
from realtime.presence import PresenceAway, Stats
from realtime.presence_redis import RedisPresenceOptions, open_redis_presence
from tests.services.redis import Redis, RedisCluster


@dataclass
class Node:
    bus: Bus
    registry: CollectorRegistry
    heard: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    @property
    def lost(self) -> float:
        return self.registry.get_sample_value("orderwire_bus_messages_lost_total") or 0

    async def until_connected(self, wanted: bool = True) -> None:
        while self.bus.is_connected is not wanted:  # noqa: ASYNC110 - a property is all that the port offers
            await asyncio.sleep(0.01)

    async def hears_again(self) -> bool:
        await self.say("again")
        while await self.heard.get() != b"again":
            pass
        return True

    async def say(self, text: str, kind: str = "test") -> bool:
        return await self.bus.publish([Order(kind, text.encode())])

    def hear(self, message: bytes) -> None:
        for item in decode(message):
            assert isinstance(item, Order)
            self.heard.put_nowait(item.body)


@pytest.fixture
async def node(own_redis: Redis, unique_name: str) -> AsyncIterator[Node]:
    async with running_node(own_redis, unique_name) as started:
        async with asyncio.timeout(5):
            await started.until_connected()
        yield started


@asynccontextmanager
async def running_node(server: Redis | RedisCluster, channel: str) -> AsyncIterator[Node]:
    registry = CollectorRegistry()
    options = RedisBusOptions(server.url, channel, is_cluster=isinstance(server, RedisCluster))
    async with open_redis_bus(options, RealtimeMetrics(registry)) as bus:
        started = Node(bus, registry)
        task = asyncio.create_task(bus.run(started.hear))
        try:
            yield started
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


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
    await asyncio.gather(*(node.say("lost") for _ in range(50)))
    assert loop.time() - started < 1.5
    assert not node.bus.is_connected
    started = loop.time()
    await node.say("lost too")
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
        await node.say("lost")
        assert not node.bus.is_connected
        assert node.lost == 1
        await asyncio.to_thread(own_redis.start)
        async with asyncio.timeout(5):
            await node.until_connected()
            assert await node.hears_again()


SHARDS = 16
KINDS = [f"kind {number}" for number in range(60)]


async def test_of_a_cluster_one_server_dies_and_what_goes_by_the_others_arrives(
    own_redis_cluster: RedisCluster, unique_name: str
) -> None:
    async with running_node(own_redis_cluster, unique_name) as node, asyncio.timeout(30):
        await node.until_connected()
        assert all([await node.say(kind, kind) for kind in KINDS])
        assert {await node.heard.get() for _ in KINDS} == {kind.encode() for kind in KINDS}
        victim = own_redis_cluster.servers[1]
        await asyncio.to_thread(victim.kill)
        await node.until_connected(False)
        await asyncio.gather(*(node.say(kind, kind) for kind in KINDS))  # one of them may find out
        sent = [kind.encode() for kind in KINDS if await node.say(kind, kind)]
        assert 0 < len(sent) < len(KINDS)
        while node.heard.qsize() < len(sent):  # noqa: ASYNC110 - what was said before may be among it
            await asyncio.sleep(0.01)
        await asyncio.to_thread(victim.start)
        await node.until_connected()
        while not node.heard.empty():
            node.heard.get_nowait()
        assert all([await node.say(kind, kind) for kind in KINDS])
        assert {await node.heard.get() for _ in KINDS} == {kind.encode() for kind in KINDS}


async def test_a_cluster_that_is_gone_as_a_whole_is_away_and_comes_back(
    own_redis_cluster: RedisCluster, unique_name: str
) -> None:
    presence_options = RedisPresenceOptions(own_redis_cluster.url, unique_name, is_cluster=True)
    async with (
        open_redis_presence(presence_options) as presence,
        running_node(own_redis_cluster, unique_name) as node,
        asyncio.timeout(40),
    ):
        await node.until_connected()
        with capture_logs() as logs:
            for server in own_redis_cluster.servers:
                await asyncio.to_thread(server.kill)
            while sum(line["event"] == "bus_lost" for line in logs) < 4 * SHARDS:  # noqa: ASYNC110 - each tried again
                await asyncio.sleep(0.01)
        assert not node.bus.is_connected
        assert not await node.say("lost")
        with pytest.raises(PresenceAway):
            await presence.stats("c")
        await asyncio.to_thread(own_redis_cluster.revive)
        await node.until_connected()
        assert await node.hears_again()
        assert await presence.stats("c") == Stats(0, 0)


async def test_a_node_starts_with_the_cluster_away_and_joins_when_it_comes(
    own_redis_cluster: RedisCluster, unique_name: str
) -> None:
    for server in own_redis_cluster.servers:
        await asyncio.to_thread(server.kill)
    async with running_node(own_redis_cluster, unique_name) as node, asyncio.timeout(40):
        assert not await node.say("lost")
        await asyncio.to_thread(own_redis_cluster.revive)
        await node.until_connected()
        assert await node.hears_again()


async def test_a_shard_that_moves_to_another_server_of_the_cluster_is_followed(
    own_redis_cluster: RedisCluster, unique_name: str
) -> None:
    shard = f"{unique_name}.3"
    old = own_redis_cluster.owner_of(shard)
    new = next(server for server in own_redis_cluster.servers if server is not old)
    async with running_node(own_redis_cluster, unique_name) as node, asyncio.timeout(20):
        await node.until_connected()
        try:
            await asyncio.to_thread(own_redis_cluster.move, shard, old, new)
            await node.until_connected(False)
            await node.until_connected()
            assert all([await node.say(kind, kind) for kind in KINDS])
            assert {await node.heard.get() for _ in KINDS} == {kind.encode() for kind in KINDS}
        finally:
            await asyncio.to_thread(own_redis_cluster.move, shard, new, old)
