"""Presence while nodes die and Redis is killed, emptied or frozen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis as Client

from realtime.bus import Membership, decode
from realtime.bus_memory import MemoryExchange
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import ChannelOptions
from realtime.presence import Member, PresenceAway, Stats
from realtime.presence_keeper import PresenceKeeper
from realtime.presence_redis import RedisPresence, RedisPresenceOptions, open_redis_presence
from tests.services.redis import Redis

ANN, BOB = Member("a", "ann", b'{"user":"ann"}'), Member("b", "bob", b'{"user":"bob"}')
SEEN = ChannelOptions(presence=True, join_leave=True)
TTL = 0.6  # seconds


@asynccontextmanager
async def keeping(
    presence: RedisPresence, exchange: MemoryExchange, registry: CollectorRegistry | None = None
) -> AsyncIterator[PresenceKeeper]:
    metrics = RealtimeMetrics(registry or CollectorRegistry())
    keeper = PresenceKeeper(presence, exchange.bus(), metrics, interval=TTL / 3)
    task = asyncio.create_task(keeper.run())
    yield keeper
    while not task.done():  # below redis-py a cancellation can be lost
        task.cancel()
        await asyncio.wait([task], timeout=0.2)


@pytest.fixture
async def presence(own_redis: Redis, unique_name: str) -> AsyncIterator[RedisPresence]:
    async with open_redis_presence(RedisPresenceOptions(own_redis.url, unique_name, ttl=TTL)) as opened:
        yield opened


async def comes_to(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask until the answer is this one."""
    async with asyncio.timeout(10):
        while True:
            try:
                if await ask() == wanted:
                    return
            except PresenceAway:
                pass
            await asyncio.sleep(0.02)


async def test_who_stays_is_renewed_and_who_was_on_a_node_that_died_goes(presence: RedisPresence) -> None:
    exchange = MemoryExchange()
    async with keeping(presence, exchange) as alive:
        alive.enter("c", ANN, SEEN)
        async with keeping(presence, exchange) as dies:
            dies.enter("c", BOB, SEEN)
            await comes_to(lambda: presence.stats("c"), Stats(2, 2))
        died = time.monotonic()
        await comes_to(lambda: presence.members("c"), {"a": ANN})
        assert time.monotonic() - died < 2 * TTL
        await asyncio.sleep(2 * TTL)  # the time is what is tested: ann outlives hers by being renewed
        assert await presence.members("c") == {"a": ANN}


async def test_nothing_is_left_in_redis_of_a_channel_that_nobody_renews(
    presence: RedisPresence, own_redis: Redis, unique_name: str
) -> None:
    await presence.renew([("c", ANN), ("c", BOB)])
    async with Client.from_url(own_redis.url) as redis:
        assert len(await redis.keys(f"{unique_name}*")) == 5
        await comes_to(lambda: redis.keys(f"{unique_name}*"), [])


async def test_what_redis_forgot_is_there_again(presence: RedisPresence, own_redis: Redis) -> None:
    async with keeping(presence, MemoryExchange()) as keeper:
        keeper.enter("c", ANN, SEEN)
        await comes_to(lambda: presence.stats("c"), Stats(1, 1))
        async with Client.from_url(own_redis.url) as redis:
            await redis.flushall()
            await redis.script_flush()
        await comes_to(lambda: presence.members("c"), {"a": ANN})


async def test_while_redis_is_away_nobody_waits_long_and_afterwards_all_is_true(
    presence: RedisPresence, own_redis: Redis
) -> None:
    registry = CollectorRegistry()

    async def dropped() -> float | None:
        return registry.get_sample_value("orderwire_drops_total", {"reason": "presence_change"})

    async with keeping(presence, MemoryExchange(), registry) as keeper:
        keeper.enter("c", BOB, SEEN)
        await comes_to(lambda: presence.stats("c"), Stats(1, 1))
        await asyncio.to_thread(own_redis.kill)
        keeper.enter("c", ANN, SEEN)
        keeper.leave("c", BOB, SEEN)
        asked = time.monotonic()
        with pytest.raises(PresenceAway):
            await presence.members("c")
        assert time.monotonic() - asked < 2
        await comes_to(dropped, 2)
        await asyncio.to_thread(own_redis.start)
        await comes_to(lambda: presence.members("c"), {"a": ANN})


async def test_a_redis_that_hangs_holds_nobody_up(presence: RedisPresence, own_redis: Redis) -> None:
    await presence.stats("c")
    own_redis.pause()
    try:
        asked = time.monotonic()
        with pytest.raises(PresenceAway):
            await presence.stats("c")
        assert time.monotonic() - asked < 3
    finally:
        own_redis.resume()
    await comes_to(lambda: presence.stats("c"), Stats(0, 0))


async def test_joins_and_leaves_are_told_in_order_once_the_store_knows(presence: RedisPresence) -> None:
    exchange = MemoryExchange()
    bus = exchange.bus()
    told: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()

    def receive(message: bytes) -> None:
        for item in decode(message):
            assert isinstance(item, Membership)
            told.put_nowait((item.info, item.is_join))

    listening = asyncio.create_task(bus.run(receive))
    async with keeping(presence, exchange) as keeper:
        for _ in range(50):
            keeper.enter("c", ANN, SEEN)
            keeper.leave("c", ANN, SEEN)
        heard = [await asyncio.wait_for(told.get(), 5) for _ in range(100)]
    listening.cancel()
    await asyncio.wait([listening])

    assert heard == [(ANN.info, True), (ANN.info, False)] * 50
    assert await presence.members("c") == {}
