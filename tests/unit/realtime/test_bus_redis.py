"""What a real Redis shows too seldom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from realtime.bus import Order
from realtime.bus_redis import RedisBus
from realtime.metrics import RealtimeMetrics
from realtime.redis_client import Line


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
