"""The broker of the embedded default: rows in PostgreSQL. Variant of `handlers.ports.broker.Broker`.

Only Orderwire itself publishes here, so every delivery is trusted.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
import structlog

from handlers.errors import Unavailable
from handlers.ports.broker import BrokerAway, Delivery, Message
from storage.pool import Pool, connect, in_transaction
from storage.queries import load
from storage.sqlstates import raising

if TYPE_CHECKING:
    from storage.pool import DirectConnection

log = structlog.get_logger(__name__)

SQL = load("broker")

CONTENT_TYPE = "application/cloudevents+json"
NOTIFY_CHANNEL = "orderwire_broker"
POLL_INTERVAL = 0.25  # seconds: when nobody told of new rows
TAKEOVER_INTERVAL = (0.25, 1.0)  # seconds, drawn anew each time: how soon a killed consumer is replaced
RETRY_INTERVAL = (0.1, 1.0)  # seconds, drawn anew each time, while PostgreSQL is away
COMMAND_TIMEOUT = 5.0  # seconds: then the server is taken for gone


@dataclass(frozen=True, slots=True)
class PostgresBrokerOptions:
    """An event goes to one of `queues`, by its subject; nobody consumes `dead_letter_queue`."""

    queues: tuple[str, ...]
    dead_letter_queue: str


class PostgresBroker:
    """Publishes by `pool`. A consumer opens `url` directly: its lock lives and dies with its own connection. Whether
    PostgreSQL is there is asked by `reserve`: with all of `pool` in use it is."""

    def __init__(self, url: str, pool: Pool, reserve: Pool, options: PostgresBrokerOptions) -> None:
        self._url = url
        self._pool = pool
        self._reserve = reserve
        self._options = options
        self._arrivals: dict[str, asyncio.Event] = {}  # of the active consumers in this process, by their queues

    async def publish(self, messages: Sequence[Message]) -> int:
        """All or none."""
        if not messages:
            return 0
        queues = [self._queue_of(message.subject) for message in messages]
        bodies = [message.body for message in messages]
        with raising(BrokerAway):
            async with self._pool.connection() as connection, in_transaction(connection):
                await connection.execute(SQL["publish"], queues, bodies, CONTENT_TYPE)
                if not self._arrivals.keys() >= set(queues):  # a consumer is elsewhere; here it is told for nothing
                    await connection.execute(SQL["tell"], NOTIFY_CHANNEL)
        for arrival in self._arrivals.values():
            arrival.set()
        return len(messages)

    async def dead_letter(self, delivery: Delivery, *, reason: str) -> None:
        headers = {**delivery.headers, "content_type": delivery.content_type, "x-orderwire-reason": reason}
        with raising(BrokerAway):
            async with self._pool.connection() as connection:
                await connection.execute(
                    SQL["dead_letter"],
                    self._options.dead_letter_queue,
                    delivery.body,
                    orjson.dumps(headers, default=str).decode(),
                )

    def _queue_of(self, subject: str) -> str:
        queues = self._options.queues
        return queues[zlib.crc32(subject.encode()) % len(queues)]

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[PostgresDeliveries]:
        deliveries = PostgresDeliveries(self._url, queue, prefetch, self._arrivals)
        try:
            yield deliveries
        finally:
            await deliveries.close()

    async def is_reachable(self) -> bool:
        with suppress(Unavailable):
            async with self._reserve.connection():
                return True
        return False


class PostgresDeliveries:
    """Variant of `handlers.ports.broker.Deliveries`: active while its session holds the queue's lock."""

    def __init__(self, url: str, queue: str, prefetch: int, arrivals: dict[str, asyncio.Event]) -> None:
        self._url = url
        self._queue = queue
        self._prefetch = prefetch
        self._arrivals = arrivals
        self._arrival = asyncio.Event()
        self._outstanding: set[int] = set()
        self._connection: DirectConnection | None = None
        self._closing = AsyncExitStack()

    async def receive(self) -> Sequence[Delivery]:
        while True:
            try:
                with raising(BrokerAway):
                    connection = self._connection or await self._start()
                    if deliveries := await self._read(connection):
                        return deliveries
                await self._wait()
            except BrokerAway:
                log.warning("broker_consumer_lost", queue=self._queue)
                await self.close()
                await asyncio.sleep(random.uniform(*RETRY_INTERVAL))  # noqa: S311 jitter

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        ids = [delivery.tag for delivery in deliveries]
        self._outstanding.difference_update(ids)
        if self._connection is not None:
            # Lost: the rows come again, to whoever consumes next.
            with suppress(BrokerAway), raising(BrokerAway):
                await self._connection.execute(SQL["remove"], self._queue, ids)

    async def close(self) -> None:
        """Give back what is not acknowledged, and the lock, by closing the connection."""
        if self._arrivals.get(self._queue) is self._arrival:
            del self._arrivals[self._queue]
        self._connection = None
        self._outstanding.clear()
        await self._closing.aclose()

    async def _start(self) -> DirectConnection:
        connection = await self._closing.enter_async_context(
            connect(
                self._url,
                name="orderwire consumer",
                command_timeout=COMMAND_TIMEOUT,
                # A removal that a crash undoes only delivers twice.
                settings={"synchronous_commit": "off"},
            )
        )
        # Polled: a session that waits for the lock in the server would not notice that its client has died.
        while not await connection.fetchval(SQL["try_consume"], self._queue):  # noqa: ASYNC110 the lock is in PostgreSQL
            await asyncio.sleep(random.uniform(*TAKEOVER_INTERVAL))  # noqa: S311 jitter
        await connection.add_listener(NOTIFY_CHANNEL, lambda *_: self._arrival.set())
        connection.add_termination_listener(lambda _: self._arrival.set())
        self._arrivals[self._queue] = self._arrival
        self._connection = connection
        log.info("broker_consumes", queue=self._queue)
        return connection

    async def _read(self, connection: DirectConnection) -> Sequence[Delivery]:
        self._arrival.clear()  # before reading: what commits from now on wakes again
        rows = await connection.fetch(SQL["pending"], self._queue, self._prefetch)
        new = [row for row in rows if row["id"] not in self._outstanding]
        self._outstanding.update(row["id"] for row in new)
        return [_delivery(row["id"], row["body"], orjson.loads(row["headers"])) for row in new]

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_INTERVAL):
                await self._arrival.wait()


def _delivery(tag: int, body: bytes, headers: dict[str, object]) -> Delivery:
    content_type = headers.pop("content_type", None)
    return Delivery(tag, body, content_type if isinstance(content_type, str) else None, headers, trusted=True)
