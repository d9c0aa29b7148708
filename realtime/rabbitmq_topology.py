"""What Orderwire declares in RabbitMQ: one durable topic exchange and two quorum queues.

With more than one partition of the fan-out there is a quorum queue for each, and before them an exchange that chooses
by the hash of what a message has in the header PARTITION_KEY: RabbitMQ's consistent-hash exchange.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import structlog
from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelPreconditionFailed,
    ConnectionCommandInvalid,
)
from pamqp.common import FieldTable
from yarl import URL

from handlers.ports.broker import MOST_PARTITIONS, partitions

log = structlog.get_logger(__name__)

# CloudEvents' extension for partitioning, as AMQP carries it in binary mode. Events in structured mode have it too.
PARTITION_KEY: Final = "cloudEvents:partitionkey"
_PLUGIN: Final = "rabbitmq_consistent_hash_exchange"
_ALL: Final = "#"
_ONE_SHARE: Final = "1"  # a binding's weight


@dataclass(frozen=True, slots=True)
class RabbitMQOptions:
    """`url` is amqp:// or amqps:// with the user that the relay publishes as; `heartbeat` is in seconds. Before
    several `partitions` of `fanout_queue` is an exchange of the same name."""

    url: str = field(repr=False)
    exchange: str
    fanout_queue: str
    dead_letter_queue: str
    heartbeat: int = 5
    partitions: int = 1

    @property
    def fanout_queues(self) -> tuple[str, ...]:
        return partitions(self.fanout_queue, self.partitions)

    @property
    def user(self) -> str:
        """The name that RabbitMQ vouches for in the property user_id of what we publish."""
        return URL(self.url).user or "guest"


class Topology:
    """Declared before every use of a new channel: an operator or a failed node may have taken any part of it away."""

    def __init__(self, options: RabbitMQOptions) -> None:
        self._options = options
        self._warned: set[str] = set()

    async def declare(self, connection: AbstractConnection) -> None:
        options, limit = self._options, _no_delivery_limit(connection)
        fanout: FieldTable = {"x-queue-type": "quorum", "x-single-active-consumer": True, **limit}
        async with connection.channel(publisher_confirms=False) as channel:
            await channel.declare_exchange(options.exchange, ExchangeType.TOPIC, durable=True)
        await self._declare_queue(connection, options.dead_letter_queue, {"x-queue-type": "quorum", **limit})
        for queue in options.fanout_queues:
            await self._declare_queue(connection, queue, fanout)
        if options.partitions == 1:
            await self._bind(connection)
        else:
            await self._bind_partitions(connection)

    async def _bind(self, connection: AbstractConnection) -> None:
        """The queue itself; and no partitions any more, which nobody would read."""
        options = self._options
        async with connection.channel(publisher_confirms=False) as channel:
            queue = await channel.get_queue(options.fanout_queue, ensure=False)
            await queue.bind(options.exchange, _ALL)
        with suppress(ChannelAccessRefused):  # where there are no partitions, no right to their exchange is needed
            async with connection.channel(publisher_confirms=False) as channel:
                exchange = await channel.get_exchange(options.fanout_queue, ensure=False)
                await exchange.unbind(options.exchange, _ALL)

    async def _bind_partitions(self, connection: AbstractConnection) -> None:
        """First the way through the partitions comes, then the way past them goes: between, an event comes twice to the
        fan-out, which drops the second. Partitions of a time when there were more get nothing any more."""
        options = self._options
        async with connection.channel(publisher_confirms=False) as channel:
            exchange = await self._declare_hash_exchange(channel)
            for place, name in enumerate(partitions(options.fanout_queue, MOST_PARTITIONS)):
                queue = await channel.get_queue(name, ensure=False)
                if place < options.partitions:
                    await queue.bind(exchange, _ONE_SHARE)
                else:
                    await queue.unbind(exchange, _ONE_SHARE)  # nothing, if there is no such queue
            await exchange.bind(options.exchange, _ALL)
            queue = await channel.get_queue(options.fanout_queue, ensure=False)
            await queue.unbind(options.exchange, _ALL)

    async def _declare_hash_exchange(self, channel: AbstractChannel) -> AbstractExchange:
        try:
            return await channel.declare_exchange(
                self._options.fanout_queue,
                ExchangeType.X_CONSISTENT_HASH,
                durable=True,
                arguments={"hash-header": PARTITION_KEY},
            )
        except ConnectionCommandInvalid as refusal:
            log.error("rabbitmq_has_no_partitions", refusal=str(refusal), advice=f"rabbitmq-plugins enable {_PLUGIN}")
            raise

    async def _declare_queue(self, connection: AbstractConnection, name: str, arguments: FieldTable) -> None:
        """On a channel of its own, because a refusal closes the channel."""
        channel: AbstractChannel
        async with connection.channel(publisher_confirms=False) as channel:
            try:
                await channel.declare_queue(name, durable=True, arguments=arguments)
            except (ChannelPreconditionFailed, ChannelAccessRefused) as refusal:
                self._warn(name, arguments, refusal)

    def _warn(self, queue: str, wanted: FieldTable, refusal: Exception) -> None:
        if queue in self._warned:
            return
        self._warned.add(queue)
        log.warning(
            "rabbitmq_queue_used_as_it_is",
            queue=queue,
            wanted=wanted,
            refusal=str(refusal),
            advice="it exists with other arguments, or this user may not declare it: once it is empty, delete it so "
            "that it is declared again, or declare it with the wanted arguments yourself",
        )


def _no_delivery_limit(connection: AbstractConnection) -> FieldTable:
    """A limit throws good events away after a few lost consumers. RabbitMQ 4 has one unless told -1; before 4
    there was none, and a negative value counts as zero or is refused."""
    transport = connection.transport
    properties = transport.connection.server_properties if transport is not None else {}
    version = properties.get("version", b"")
    text = version.decode() if isinstance(version, bytes | bytearray) else str(version)
    major = text.partition(".")[0]
    return {"x-delivery-limit": -1} if major.isdigit() and int(major) >= 4 else {}
