"""What Orderwire declares in RabbitMQ: one durable topic exchange and two quorum queues."""

from __future__ import annotations

from dataclasses import dataclass, field

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelAccessRefused, ChannelPreconditionFailed
from pamqp.common import FieldTable
from yarl import URL

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RabbitMQOptions:
    """`url` is amqp:// or amqps:// with the user that the relay publishes as; `heartbeat` is in seconds."""

    url: str = field(repr=False)
    exchange: str
    fanout_queue: str
    dead_letter_queue: str
    heartbeat: int = 5

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
            await channel.declare_exchange(options.exchange, aio_pika.ExchangeType.TOPIC, durable=True)
        await self._declare_queue(connection, options.dead_letter_queue, {"x-queue-type": "quorum", **limit})
        await self._declare_queue(connection, options.fanout_queue, fanout)
        async with connection.channel(publisher_confirms=False) as channel:
            queue = await channel.get_queue(options.fanout_queue, ensure=False)
            await queue.bind(options.exchange, "#")

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
