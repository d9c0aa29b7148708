"""What a real Redis shows too seldom."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from realtime.bus_redis import RedisBus
from realtime.metrics import RealtimeMetrics


@dataclass
class DeafSubscription:
    """Confirms, then swallows the cancellation that meets a message, as wait_for of Python 3.11 does."""

    fails: bool
    is_waiting: asyncio.Event = field(default_factory=asyncio.Event)
    has_confirmed: bool = False

    async def subscribe(self, channel: str) -> None: ...

    async def aclose(self) -> None: ...

    async def get_message(self, timeout: float | None) -> dict[str, Any]:  # noqa: ARG002 - redis-py's
        if not self.has_confirmed:
            self.has_confirmed = True
            return {"type": "subscribe"}
        self.is_waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.fails:
                raise RedisConnectionError from None
        return {"type": "message", "data": b"news"}


@dataclass
class DeafRedis:
    subscription: DeafSubscription

    def pubsub(self) -> DeafSubscription:
        self.subscription.has_confirmed = False
        return self.subscription


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_that_was_lost_below_ends_the_run_all_the_same(fails: bool) -> None:
    redis = DeafRedis(DeafSubscription(fails))
    client = cast("Redis", redis)
    bus = RedisBus(client, client, "channel", RealtimeMetrics(CollectorRegistry()))
    running = asyncio.create_task(bus.run(lambda _: None))
    await redis.subscription.is_waiting.wait()

    running.cancel()

    async with asyncio.timeout(5):
        await asyncio.wait([running])
    assert running.cancelled()
