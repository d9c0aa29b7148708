"""The broker on RabbitMQ 3.10 or newer. Variant of `handlers.ports.broker.Broker`.

Nothing here requeues, rejects or cancels: each of these reorders. A consumer leaves by closing its channel.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import structlog
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, DeliveryError, PublishError
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelPreconditionFailed
from pamqp.commands import Basic
from pamqp.common import FieldValue

from handlers.ports.broker import BrokerAway, Delivery, Message
from realtime.backoff import Backoff
from realtime.cloudevents import STRUCTURED
from realtime.metrics import RealtimeMetrics
from realtime.rabbitmq_link import Link, broker_errors, close_within
from realtime.rabbitmq_publish import Outgoing, publish_together
from realtime.rabbitmq_topology import PARTITION_KEY, RabbitMQOptions, Topology

log = structlog.get_logger(__name__)

REASON_HEADER = "x-orderwire-reason"
SIZE_HEADER = "x-orderwire-size"
REACHABLE_TIMEOUT = 1.0  # seconds
DOUBT_SECONDS = 5.0  # within which the relay tries again
KEPT_HEADER_BYTES = 16 * 1024  # of a dead letter's own headers: all of them must fit into one AMQP frame
_PERSISTENT = 2
_TOO_LARGE = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")
_GENERATION = 1 << 64  # AMQP delivery tags are 64 bits; above them our tags carry which channel they are of


@asynccontextmanager
async def open_rabbitmq(options: RabbitMQOptions, metrics: RealtimeMetrics) -> AsyncIterator[RabbitMQ]:
    """Connects when it is first needed, so that a node starts and serves with RabbitMQ away."""
    broker = RabbitMQ(options, metrics)
    try:
        yield broker
    finally:
        await broker.close()


class RabbitMQ:
    """Two connections: RabbitMQ slows publishers down by not reading from theirs, and acknowledgements must pass."""

    def __init__(self, options: RabbitMQOptions, metrics: RealtimeMetrics) -> None:
        topology = Topology(options)
        self._options = options
        self._patience = 2.0 * options.heartbeat
        self._publishing = Link("publisher", options, topology, metrics)
        self._consuming = Link("consumer", options, topology, metrics)
        self._opening = asyncio.Lock()
        self._channel: Channel | None = None
        self._doubted_until = 0.0  # of the loop's time: what was published last has got no answer

    async def publish(self, messages: Sequence[Message]) -> int:
        return await self._send([self._outgoing(message) for message in messages])

    async def dead_letter(self, delivery: Delivery, *, reason: str) -> None:
        body = delivery.body
        letter = self._letter(delivery, {REASON_HEADER: reason})
        try:
            await self._send([letter])
        except BrokerAway as away:
            most = _most_taken(away.__cause__)
            if most is None or len(body) <= most:
                raise
            # It came when more was taken. Whole it would be refused for ever, with all that is behind it.
            cut = self._letter(delivery, {REASON_HEADER: reason, SIZE_HEADER: len(body)})
            await self._send([replace(cut, body=body[:most])])
            log.error("dead_letter_cut", message_id=cut.properties.message_id, size=len(body), kept=most)

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[RabbitMQDeliveries]:
        deliveries = RabbitMQDeliveries(self._consuming, queue, prefetch, self._options)
        try:
            yield deliveries
        finally:
            await deliveries.close()

    async def is_reachable(self) -> bool:
        try:
            async with asyncio.timeout(REACHABLE_TIMEOUT):
                await self._ready_channel()  # a connection alone is not enough: the topology may be refused
        except (BrokerAway, TimeoutError):
            return False
        # With an alarm RabbitMQ takes connections, and reads nothing of those that publish.
        return asyncio.get_running_loop().time() >= self._doubted_until

    async def close(self) -> None:
        await self._publishing.close()
        await self._consuming.close()

    async def _send(self, outgoing: Sequence[Outgoing]) -> int:
        """Publish all of them, in flight together; how many of the leading ones are durable."""
        if not outgoing:
            return 0
        channel = await self._ready_channel()
        # On one channel, whose lock is first come, first served: that keeps the order.
        with broker_errors():
            outcomes = await publish_together(channel, outgoing, patience=self._patience)
        if outcomes[0] is None:
            self._doubted_until = 0.0
        for durable, outcome in enumerate(outcomes):
            if outcome is not None:
                await self._judge(outcome, channel)
                if durable == 0:
                    raise BrokerAway(type(outcome).__name__) from outcome
                return durable
        return len(outgoing)

    async def _judge(self, failure: BaseException, channel: Channel) -> None:
        """What a failed publish says about channel and connection."""
        if not isinstance(failure, (*CONNECTION_EXCEPTIONS, asyncio.CancelledError)):
            raise failure
        log.warning("rabbitmq_publish_failed", cause=type(failure).__name__)
        if isinstance(failure, DeliveryError) and not isinstance(failure, PublishError):
            return  # refused by the queue: the channel is as good as before
        is_current = self._channel is channel
        if is_current:
            self._channel = None
        if isinstance(failure, TimeoutError):
            if is_current:  # else who found out first has dropped the connection, and there is another by now
                # Until the next try has failed as well; a node that has nothing to publish any more knows nothing.
                self._doubted_until = asyncio.get_running_loop().time() + self._patience + DOUBT_SECONDS
                await self._publishing.drop()
        else:
            # Returned means that no queue was bound: a new channel declares the topology again.
            await close_within(channel)

    async def _ready_channel(self) -> Channel:
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._publishing.channel()
            return self._channel

    def _letter(self, delivery: Delivery, notes: Mapping[str, FieldValue]) -> Outgoing:
        properties = Basic.Properties(
            content_type=delivery.content_type,
            headers={**_kept(delivery.headers), **notes},
            message_id=uuid4().hex,
            delivery_mode=_PERSISTENT,
            timestamp=datetime.now(UTC),
        )
        return Outgoing("", self._options.dead_letter_queue, delivery.body, properties)

    def _outgoing(self, message: Message) -> Outgoing:
        properties = Basic.Properties(
            headers={PARTITION_KEY: message.subject},
            message_id=message.id,
            message_type=message.type,
            content_type=STRUCTURED,
            user_id=self._options.user,
            timestamp=datetime.now(UTC),
            delivery_mode=_PERSISTENT,
        )
        return Outgoing(self._options.exchange, message.type, message.body, properties)


class RabbitMQDeliveries:
    """Variant of `handlers.ports.broker.Deliveries`: one consumer, started again whenever it was lost."""

    def __init__(self, link: Link, queue: str, prefetch: int, options: RabbitMQOptions) -> None:
        self._link = link
        self._queue = queue
        self._prefetch = prefetch
        self._options = options
        self._generation = 0
        self._consumer: _Consumer | None = None

    async def receive(self) -> Sequence[Delivery]:
        backoff = Backoff(cap=2.0)
        while True:
            try:
                consumer = self._consumer or await self._start()
                return await consumer.take(patience=self._options.heartbeat)
            except BrokerAway as away:
                log.warning("rabbitmq_consumer_lost", queue=self._queue, cause=str(away))
                await self.close()
                await asyncio.sleep(backoff.delay())

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries or self._consumer is None:
            return
        generation, tag = divmod(deliveries[-1].tag, _GENERATION)
        if generation == self._generation:
            await self._consumer.acknowledge(tag, patience=self._options.heartbeat)

    async def close(self) -> None:
        """Give back what is not acknowledged, in order, by closing the channel."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.close(self._link)

    async def _start(self) -> _Consumer:
        self._generation += 1
        channel = await self._link.channel()
        self._consumer = _Consumer(channel, self._queue, self._generation, self._options.user)
        await self._consumer.start(self._prefetch)
        return self._consumer


class _Consumer:
    """A consumer's life on one channel. The buffer is bounded by the prefetch."""

    def __init__(self, channel: Channel, queue: str, generation: int, own_user: str) -> None:
        self._channel = channel
        self._queue = queue
        self._base = generation * _GENERATION
        self._own_user = own_user
        self._buffer: deque[Delivery] = deque()
        self._woken = asyncio.Event()
        self._lost: str | None = None
        self._is_silent = False

    async def start(self, prefetch: int) -> None:
        with broker_errors():
            self._channel.on_consumer_cancel_callbacks.add(lambda _: self._lose("cancelled"))
            self._channel.closing.add_done_callback(lambda _: self._lose("closed"))
            await self._channel.basic_qos(prefetch_count=prefetch)
            await self._channel.basic_consume(self._queue, self._on_message)

    async def take(self, *, patience: float) -> Sequence[Delivery]:
        """All that are there, at least one. Raises BrokerAway when the consumer is lost."""
        while True:
            if self._lost is not None:
                raise BrokerAway(self._lost)
            if self._buffer:
                taken = tuple(self._buffer)
                self._buffer.clear()
                return taken
            self._woken.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._woken.wait()
            except TimeoutError:
                await self._probe(patience)

    async def acknowledge(self, tag: int, *, patience: float) -> None:
        if self._lost is not None:
            return
        try:
            with broker_errors():
                # Of a connection that is ending nobody reads the queue any more: there would never be room in it.
                async with asyncio.timeout(patience):
                    await self._channel.basic_ack(tag, multiple=True, wait=False)
        except BrokerAway as away:
            self._is_silent = isinstance(away.__cause__, TimeoutError)
            self._lose("closed")

    async def close(self, link: Link) -> None:
        # Else another consumer has dropped the connection by now, and the link has a new one.
        if self._is_silent and not self._channel.is_closed:
            await link.drop()
        else:
            await close_within(self._channel)

    async def _probe(self, patience: float) -> None:
        """A quiet queue or a half-open connection? aiormq would notice the second only after three heartbeats."""
        try:
            with broker_errors():
                await self._channel.queue_declare(self._queue, passive=True, timeout=patience)
        except BrokerAway as away:
            self._is_silent = isinstance(away.__cause__, TimeoutError)
            raise

    async def _on_message(self, message: DeliveredMessage) -> None:
        # aiormq runs this in a task of its own and only logs what it raises: nothing here may fail.
        properties = message.header.properties
        self._buffer.append(
            Delivery(
                tag=self._base + (message.delivery_tag or 0),
                body=message.body,
                content_type=properties.content_type,
                headers=properties.headers or {},
                trusted=properties.user_id == self._own_user,
            )
        )
        self._woken.set()

    def _lose(self, cause: str) -> None:
        self._lost = self._lost or cause
        self._woken.set()


def _kept(headers: Mapping[str, object]) -> dict[str, FieldValue]:
    """A dead letter's own headers as far as they are plain and small, so that any letter can be published."""
    kept: dict[str, FieldValue] = {}
    size = 0
    for name, value in headers.items():
        if not isinstance(value, str | bool):
            continue
        size += len(name.encode()) + len(str(value).encode())
        if size <= KEPT_HEADER_BYTES:
            kept[name] = value
    return kept


def _most_taken(refusal: BaseException | None) -> int | None:
    """RabbitMQ's `max_message_size`, which only a refusal tells. It may be that of another message: it closes the
    channel, and so fails all that are on their way there."""
    said = _TOO_LARGE.search(str(refusal)) if isinstance(refusal, ChannelPreconditionFailed) else None
    return None if said is None else int(said[1])
