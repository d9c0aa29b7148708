"""The bus on Redis pub/sub. Variants of `realtime.bus.Bus`: on one server by one channel of Redis, on a cluster by
several, which the cluster spreads over its servers (sharded pub/sub)."""

from __future__ import annotations

import asyncio
import zlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog
from redis.asyncio import RedisCluster

from realtime.backoff import Backoff
from realtime.bus import Bus, Item, Order, Receiver, encode
from realtime.metrics import RealtimeMetrics
from realtime.redis_client import (
    PATIENCE_SECONDS,
    REDIS_AWAY,
    Line,
    end_if_cancelled,
    open_cluster,
    open_line,
    open_owner,
    redis_errors,
)

log = structlog.get_logger(__name__)

SILENCE_SECONDS = 2.0  # without a message: ask; as long without an answer: the connection is half-open
_TOGETHER_BYTES = 256 * 1024  # of messages that travel as one
_SHARDS: Final = 16  # of a cluster: the same for all nodes of a deployment, and more than it has servers

Subscribe = Callable[[], AbstractAsyncContextManager[Line]]
"""Where a subscription has been asked for, and not confirmed yet. Raises what redis-py does."""

Publish = Callable[[bytes], Awaitable[object]]
"""The next message, after the one before was sent. Raises what redis-py does."""


@dataclass(frozen=True, slots=True)
class RedisBusOptions:
    """`channel` is the deployment's own pub/sub channel; of a cluster, what the names of its channels begin with."""

    url: str = field(repr=False)
    channel: str
    is_cluster: bool = False


@asynccontextmanager
async def open_redis_bus(options: RedisBusOptions, metrics: RealtimeMetrics) -> AsyncIterator[Bus]:
    """Connects when it is first needed, so that a node starts and serves with Redis away."""
    async with AsyncExitStack() as stack:
        if options.is_cluster:
            cluster = await stack.enter_async_context(open_cluster(options.url))
            names = [f"{options.channel}.{number}" for number in range(_SHARDS)]
            yield ShardedBus([await stack.enter_async_context(_shard(options, cluster, n, metrics)) for n in names])
        else:
            yield await stack.enter_async_context(_whole(options, metrics))


@asynccontextmanager
async def _whole(options: RedisBusOptions, metrics: RealtimeMetrics) -> AsyncIterator[RedisBus]:
    @asynccontextmanager
    async def subscribe() -> AsyncIterator[Line]:
        async with open_line(options.url) as line:
            with redis_errors():
                await line.say("SUBSCRIBE", options.channel)
            yield line

    async with (
        open_line(options.url) as publisher,
        _settled(
            RedisBus(subscribe, lambda message: publisher.call("PUBLISH", options.channel, message), metrics)
        ) as bus,
    ):
        yield bus


@asynccontextmanager
async def _shard(
    options: RedisBusOptions, cluster: RedisCluster, channel: str, metrics: RealtimeMetrics
) -> AsyncIterator[RedisBus]:
    @asynccontextmanager
    async def subscribe() -> AsyncIterator[Line]:
        async with open_owner(options.url, cluster, channel) as line:
            with redis_errors():
                await line.say("SSUBSCRIBE", channel)
            yield line

    async with _settled(RedisBus(subscribe, lambda message: cluster.spublish(channel, message), metrics)) as bus:
        yield bus


@asynccontextmanager
async def _settled(bus: RedisBus) -> AsyncIterator[RedisBus]:
    try:
        yield bus
    finally:
        await bus.settle()


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A message, the loop's time at which its patience ends, and whether it was sent."""

    message: bytes
    deadline: float
    is_sent: asyncio.Future[bool]


class ShardedBus:
    """One bus for each shard. Of one channel, and of one kind of orders, all goes by the same."""

    def __init__(self, shards: Sequence[RedisBus]) -> None:
        self._shards = shards

    @property
    def is_connected(self) -> bool:
        return all(shard.is_connected for shard in self._shards)

    async def publish(self, items: Iterable[Item]) -> bool:
        parts: defaultdict[int, list[Item]] = defaultdict(list)
        for item in items:
            name = item.kind if isinstance(item, Order) else item.channel
            parts[zlib.crc32(name.encode()) % len(self._shards)].append(item)
        sendings = [self._shards[number].publish(part) for number, part in parts.items()]
        return await sendings[0] if len(sendings) == 1 else all(await asyncio.gather(*sendings))

    async def run(self, receiver: Receiver) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for shard in self._shards:
                    group.create_task(shard.run(receiver))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None


class RedisBus:
    """Publishing goes by a connection of its own, one at a time: that keeps the order. What comes meanwhile goes
    together, in a task of its own: a publisher that is cancelled takes nobody's message with it."""

    def __init__(self, subscribe: Subscribe, publish: Publish, metrics: RealtimeMetrics) -> None:
        self._subscribe = subscribe
        self._publish = publish
        self._metrics = metrics
        self._outgoing: deque[_Outgoing] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._is_subscribed = False
        self._is_doubted = False  # a publish failed and nothing was heard since

    @property
    def is_connected(self) -> bool:
        return self._is_subscribed and not self._is_doubted

    async def publish(self, items: Iterable[Item]) -> bool:
        # Away as far as we know: waiting for a timeout with each batch would hold up the fan-out. The subscription
        # finds out when Redis is back, and hears a sign of life within SILENCE_SECONDS when it was never away.
        is_sent = not self._is_doubted and await self._enqueue(encode(items))
        if not is_sent:
            self._metrics.bus_lost.inc()
        return is_sent

    async def settle(self) -> None:
        """Return when nothing is being sent any more."""
        if self._sending is not None:
            await self._sending

    async def run(self, receiver: Receiver) -> None:
        backoff = Backoff(cap=2.0)
        has_been_connected = False
        while True:
            end_if_cancelled()
            try:
                async with self._subscribe() as line:
                    await self._confirm(line)
                    backoff.reset()
                    log.info("bus_connected")
                    if has_been_connected:
                        self._metrics.reconnects.labels("redis").inc()
                    has_been_connected = True
                    await self._listen(line, receiver)
            except REDIS_AWAY as error:
                log.warning("bus_lost", cause=type(error).__name__)
            finally:
                self._is_subscribed = False
            await asyncio.sleep(backoff.delay())

    def _enqueue(self, message: bytes) -> asyncio.Future[bool]:
        loop = asyncio.get_running_loop()
        waiting = _Outgoing(message, loop.time() + PATIENCE_SECONDS, loop.create_future())
        self._outgoing.append(waiting)
        if self._sending is None:
            self._sending = loop.create_task(self._send())
        return waiting.is_sent

    async def _send(self) -> None:
        try:
            while self._outgoing:
                together, is_sent = self._next(), False
                try:
                    # What waits behind one that was not sent is not sent either: it would wait as long.
                    is_sent = not self._is_doubted and await self._send_together(together)
                finally:
                    for each in together:
                        if not each.is_sent.done():
                            each.is_sent.set_result(is_sent)
        finally:
            self._sending = None

    def _next(self) -> list[_Outgoing]:
        together = [self._outgoing.popleft()]
        size = len(together[0].message)
        while self._outgoing and (size := size + len(self._outgoing[0].message)) <= _TOGETHER_BYTES:
            together.append(self._outgoing.popleft())
        return together

    async def _send_together(self, together: list[_Outgoing]) -> bool:
        try:
            async with asyncio.timeout_at(together[0].deadline):
                with redis_errors():
                    await self._publish(b"".join(each.message for each in together))
        except REDIS_AWAY:
            self._is_doubted = True
            return False
        except Exception:
            # Of the client library: the fan-out waits here, and what it says the streams have.
            log.exception("bus_publish_failed", messages=len(together))
            self._is_doubted = True
            return False
        return True

    async def _confirm(self, line: Line) -> None:
        with redis_errors():
            if await line.hear(SILENCE_SECONDS) is None:
                raise ConnectionError("silent")
        self._is_subscribed, self._is_doubted = True, False

    async def _listen(self, line: Line, receiver: Receiver) -> None:
        """Returns never; raises ConnectionError when the other side is silent, RedisError when it is lost."""
        asked = False
        while True:
            end_if_cancelled()
            with redis_errors():
                message = await line.hear(SILENCE_SECONDS)
                if message is None:
                    if asked:
                        raise ConnectionError("silent")
                    await line.say("PING")
            if message is None:
                asked = True
                continue
            asked = self._is_doubted = False
            match message:
                case [b"message" | b"smessage", _, bytes(body)]:
                    receiver(body)
                case [b"sunsubscribe", *_]:
                    raise ConnectionError("moved to another server of the cluster")
