"""The bus on Redis pub/sub. Variant of `realtime.bus.Bus`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from realtime.backoff import Backoff
from realtime.bus import Receiver
from realtime.metrics import RealtimeMetrics
from realtime.redis_client import PATIENCE_SECONDS, end_if_cancelled, open_redis

log = structlog.get_logger(__name__)

SILENCE_SECONDS = 2.0  # without a message: ask; as long without an answer: the connection is half-open


@dataclass(frozen=True, slots=True)
class RedisBusOptions:
    """`channel` is the deployment's own pub/sub channel."""

    url: str = field(repr=False)
    channel: str


@asynccontextmanager
async def open_redis_bus(options: RedisBusOptions, metrics: RealtimeMetrics) -> AsyncIterator[RedisBus]:
    """Connects when it is first needed, so that a node starts and serves with Redis away."""
    async with open_redis(options.url) as subscriber, open_redis(options.url) as publisher:
        yield RedisBus(subscriber, publisher, options.channel, metrics)


class RedisBus:
    """Publishing goes by a connection of its own, one at a time: that keeps the order."""

    def __init__(self, subscriber: Redis, publisher: Redis, channel: str, metrics: RealtimeMetrics) -> None:
        self._subscriber = subscriber
        self._publisher = publisher
        self._channel = channel
        self._metrics = metrics
        self._turn = asyncio.Lock()
        self._is_subscribed = False
        self._is_doubted = False  # a publish failed and nothing was heard since

    @property
    def is_connected(self) -> bool:
        return self._is_subscribed and not self._is_doubted

    async def publish(self, message: bytes) -> bool:
        # Away as far as we know: waiting for a timeout with each batch would hold up the fan-out. The subscription
        # finds out when Redis is back, and hears a sign of life within SILENCE_SECONDS when it was never away.
        is_sent = not self._is_doubted and await self._send(message)
        if not is_sent:
            self._metrics.bus_lost.inc()
        return is_sent

    async def run(self, receiver: Receiver) -> None:
        backoff = Backoff(cap=2.0)
        has_been_connected = False
        while True:
            end_if_cancelled()
            try:
                async with aclosing(self._subscriber.pubsub()) as subscription:
                    await subscription.subscribe(self._channel)
                    await self._confirm(subscription)
                    backoff.reset()
                    log.info("bus_connected")
                    if has_been_connected:
                        self._metrics.reconnects.labels("redis").inc()
                    has_been_connected = True
                    await self._listen(subscription, receiver)
            except (RedisError, OSError) as error:
                log.warning("bus_lost", cause=type(error).__name__)
            finally:
                self._is_subscribed = False
            await asyncio.sleep(backoff.delay())

    async def _send(self, message: bytes) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._turn:
                if self._is_doubted:  # the one before us has just found out
                    return False
                await self._publisher.publish(self._channel, message)
        except (RedisError, OSError):  # TimeoutError is an OSError
            self._is_doubted = True
            return False
        return True

    async def _confirm(self, subscription: PubSub) -> None:
        async with asyncio.timeout(SILENCE_SECONDS):
            await subscription.get_message(timeout=None)
        self._is_subscribed, self._is_doubted = True, False

    async def _listen(self, subscription: PubSub, receiver: Receiver) -> None:
        """Returns never; raises ConnectionError when the other side is silent, RedisError when it is lost."""
        asked = False
        while True:
            end_if_cancelled()
            # Never `timeout=None` here: a half-open connection would be waited on for ever.
            message = await subscription.get_message(timeout=SILENCE_SECONDS)
            if message is None:
                if asked:
                    raise ConnectionError("silent")
                await subscription.ping()
                asked = True
                continue
            asked = self._is_doubted = False
            if message["type"] == "message":
                receiver(message["data"])
