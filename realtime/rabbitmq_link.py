"""A connection to RabbitMQ that is opened when it is needed, and dropped at once when it is found dead.

Plain connections on purpose: a robust one restores itself behind its user's back, and then nobody knows which
channel's confirms and delivery tags are still good.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import aio_pika
import structlog
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq import Channel
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from pamqp.commands import Basic
from pamqp.constants import FRAME_HEADER, FRAME_METHOD
from pamqp.exceptions import PAMQPException
from pamqp.frame import unmarshal
from yarl import URL

from handlers.ports.broker import BrokerAway
from realtime.metrics import RealtimeMetrics
from realtime.rabbitmq_topology import RabbitMQOptions, Topology

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT = 5.0  # seconds
CLOSE_TIMEOUT = 1.0
_FLAGS = 12  # offset of the property flags in a content header: after class, weight and body size
_DELIVER = struct.pack(">I", Basic.Deliver.index)


@contextmanager
def broker_errors() -> Iterator[None]:
    """Everything that the client library raises for a lost connection or a refusal, as BrokerAway."""
    try:
        yield
    except CONNECTION_EXCEPTIONS as error:  # TimeoutError is an OSError
        raise BrokerAway(type(error).__name__) from error
    except asyncio.CancelledError as error:
        # aiormq fails its waiters with a CancelledError that nobody asked for when it closes a channel.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerAway("closed") from error


class _TolerantReader:
    """Takes off the properties of a message that aiormq could not decode, and makes its routing key legible.

    RabbitMQ lets pass what Python's codec does not (a content type or a routing key that is not UTF-8, a time past the
    year 9999, a thousand lists in each other), and aiormq then loses the connection. The message would come again after
    each reconnect and stop its queue for ever. Without all that it arrives, and can be judged.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._reads = 0
        self._head = b""

    def at_eof(self) -> bool:
        return self._reader.at_eof()

    async def read(self, n: int = -1) -> bytes:
        return await self._reader.read(n)

    async def readexactly(self, n: int) -> bytes:
        """aiormq reads each frame in three: its type, the rest of its head, its payload with the end mark."""
        data = await self._reader.readexactly(n)
        self._reads = (self._reads + 1) % 3
        if self._reads == 1:
            self._head = data
        elif self._reads == 2:
            self._head += data
        elif self._head[0] == FRAME_HEADER and not _is_decodable(self._head + data):
            return data[:_FLAGS] + b"\0\0" + data[_FLAGS + 2 :]  # no flag set: no property follows
        elif self._head[0] == FRAME_METHOD and data.startswith(_DELIVER):
            return self._with_legible_names(data)
        return data

    def _with_legible_names(self, data: bytes) -> bytes:
        """Of a delivery: the exchange and the routing key, which nobody here reads."""
        at = 14 + data[4]  # behind class, method, consumer tag, delivery tag and the mark of a redelivery
        if data[at:-1].isascii() or _is_decodable(self._head + data):
            return data
        for _ in range(2):
            end = at + 1 + data[at]
            data = data[: at + 1] + b"?" * data[at] + data[end:]
            at = end
        return data


def _is_decodable(frame: bytes) -> bool:
    try:
        unmarshal(frame)
    except (PAMQPException, ValueError, OverflowError, OSError, KeyError, TypeError, RecursionError, struct.error):
        return False
    return True


class _Socket(TransportFactory):
    """Remembers the socket: closing a half-open AMQP connection politely would wait for the dead peer."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, self._writer = await factory.create(url, **kwargs)
        return cast("asyncio.StreamReader", _TolerantReader(reader)), self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


class _Connection(aio_pika.Connection):
    def __init__(self, name: str, options: RabbitMQOptions) -> None:
        url = URL(options.url).update_query(heartbeat=options.heartbeat)
        super().__init__(url, client_properties={"connection_name": f"orderwire {name}"})
        self.socket = _Socket()
        self.kwargs["transport_factory"] = self.socket

    @classmethod
    async def open(cls, name: str, options: RabbitMQOptions) -> _Connection:
        connection = cls(name, options)
        try:
            await connection.connect()
        except BaseException:
            await connection.close()  # or the garbage collector starts a task that does
            raise
        return connection


class Link:
    """Hands out channels on one connection. Every method raises BrokerAway while RabbitMQ is away."""

    def __init__(self, name: str, options: RabbitMQOptions, topology: Topology, metrics: RealtimeMetrics) -> None:
        self._name = name
        self._options = options
        self._topology = topology
        self._metrics = metrics
        self._lock = asyncio.Lock()
        self._connection: _Connection | None = None
        self._was_connected = False

    @property
    def is_open(self) -> bool:
        return self._connection is not None and self._connection.connected.is_set()

    async def channel(self) -> Channel:
        """A new channel with publisher confirms; the whole topology has just been declared.

        One of aiormq's, without aio-pika's around it: a sixth less CPU for each event. It takes in all frames that
        there are, where aiormq's default is ten and then a turn of the event loop: three messages a turn. Prefetch
        and confirms bound them.
        """
        with broker_errors():
            async with self._lock, asyncio.timeout(CONNECT_TIMEOUT):
                connection = await self._connected()
                await self._topology.declare(connection)
                transport = connection.transport
                if transport is None:
                    raise BrokerAway("closed")
                channel = await transport.connection.channel(frame_buffer_size=0, on_return_raises=True)
                return cast("Channel", channel)  # typed as its abstract base

    async def _connected(self) -> _Connection:
        if self._connection is not None and self.is_open:
            return self._connection
        await self._discard()
        self._connection = await _Connection.open(self._name, self._options)
        if self._was_connected:
            self._metrics.reconnects.labels("rabbitmq").inc()
        self._was_connected = True
        log.info("rabbitmq_connected", link=self._name)
        return self._connection

    async def drop(self) -> None:
        """The connection is dead: let go of it without a word to the peer."""
        if self._connection is not None:
            self._connection.socket.abort()
        await self._discard()

    async def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await close_within(connection)

    async def close(self) -> None:
        await self._discard()


async def close_within(part: Channel | _Connection) -> None:
    """Close politely, but not for longer than CLOSE_TIMEOUT: closing is also what frees the deliveries."""
    with suppress(BrokerAway), broker_errors():
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await part.close()
