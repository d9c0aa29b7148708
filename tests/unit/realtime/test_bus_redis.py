"""What a real Redis shows too seldom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from realtime.bus import Membership, Order, decode
from realtime.bus_redis import Publish, RedisBus, ShardedBus
from realtime.metrics import RealtimeMetrics
from realtime.redis_client import Line
from tests import virtual_time


@dataclass
class DeafSubscription:
    """Confirms, then swallows the cancellation that meets a message, as wait_for of Python 3.11 does."""

    fails: bool
    is_waiting: asyncio.Event = field(default_factory=asyncio.Event)
    has_confirmed: bool = False

    async def hear(self, timeout: float) -> object:  # noqa: ARG002
        if not self.has_confirmed:
            self.has_confirmed = True
            return [b"subscribe", b"bus", 1]
        self.is_waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.fails:
                raise RedisConnectionError from None
        return [b"message", b"bus", b"news"]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_that_was_lost_below_ends_the_run_all_the_same(fails: bool) -> None:
    subscription = DeafSubscription(fails)

    @asynccontextmanager
    async def subscribe() -> AsyncIterator[Line]:
        subscription.has_confirmed = False
        yield cast("Line", subscription)

    async def publish(_: bytes) -> None:
        raise NotImplementedError

    bus = RedisBus(subscribe, publish, RealtimeMetrics(CollectorRegistry()))
    running = asyncio.create_task(bus.run(lambda _: None))
    await subscription.is_waiting.wait()

    running.cancel()

    async with asyncio.timeout(5):
        await asyncio.wait([running])
    assert running.cancelled()


async def test_whatever_the_client_library_raises_nobody_waits_for_ever_behind_it() -> None:
    @asynccontextmanager
    async def subscribe() -> AsyncIterator[Line]:
        raise NotImplementedError
        yield

    async def publish(_: bytes) -> None:
        await asyncio.sleep(0)
        raise AttributeError("a bug of a library")

    bus = RedisBus(subscribe, publish, RealtimeMetrics(CollectorRegistry()))
    great = [Order("test", bytes(200 * 1024))]  # two do not go together

    with capture_logs() as logs:
        async with asyncio.timeout(5):
            assert await asyncio.gather(*(bus.publish(great) for _ in range(3))) == [False, False, False]
    assert [(line["event"], line["log_level"]) for line in logs] == [("bus_publish_failed", "error")]


@asynccontextmanager
async def nothing_to_hear() -> AsyncIterator[Line]:
    raise NotImplementedError
    yield


def shard(publish: Publish) -> RedisBus:
    return RedisBus(nothing_to_hear, publish, RealtimeMetrics(CollectorRegistry()))


async def test_of_what_goes_by_several_shards_one_that_is_away_is_told_and_the_rest_is_sent() -> None:
    sent: list[bytes] = []

    async def send(message: bytes) -> None:
        sent.append(message)

    async def fail(_: bytes) -> None:
        raise RedisConnectionError

    # By their checksums one goes by the second shard, the other by the first.
    there, away = Membership("a", b"{}", is_join=True), Membership("d", b"{}", is_join=True)
    bus = ShardedBus([shard(fail), shard(send)])

    assert not await bus.publish([away, there])
    assert await bus.publish([there])
    assert not await bus.publish([away])
    assert [item for message in sent for item in decode(message)] == [there, there]


async def test_all_that_is_said_of_one_channel_goes_by_the_same_shard() -> None:
    sent: list[list[str]] = [[] for _ in range(4)]

    def into(names: list[str]) -> Publish:
        async def send(message: bytes) -> None:
            names.extend(item.channel for item in decode(message) if isinstance(item, Membership))

        return send

    bus = ShardedBus([shard(into(names)) for names in sent])
    names = [f"channel {number}" for number in range(40)]
    for is_join in (True, False):
        assert await bus.publish(Membership(name, b"{}", is_join=is_join) for name in names)

    assert sorted(name for of_shard in sent for name in of_shard) == sorted(2 * names)
    assert all(of_shard[: len(of_shard) // 2] == of_shard[len(of_shard) // 2 :] for of_shard in sent)
    assert all(sent)


def test_a_redis_that_stays_away_is_asked_less_and_less_often() -> None:
    asked_at: list[float] = []

    @asynccontextmanager
    async def subscribe() -> AsyncIterator[Line]:
        asked_at.append(asyncio.get_running_loop().time())
        raise RedisConnectionError
        yield

    async def publish(_: bytes) -> None:
        raise NotImplementedError

    async def run() -> None:
        bus = RedisBus(subscribe, publish, RealtimeMetrics(CollectorRegistry()))
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                await bus.run(lambda _: None)

    virtual_time.run(run())
    waits = [later - earlier for earlier, later in pairwise(asked_at)]
    assert waits[0] < 0.2
    assert min(waits[-10:]) > 0.9
    assert max(waits) < 2.1
