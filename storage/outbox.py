"""The outbox: written by business transactions, emptied by the one relay of the deployment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from handlers.errors import Unavailable
from handlers.events import MAX_EVENT_BYTES, Event
from handlers.ports.broker import Message
from handlers.ports.outbox import Leadership, OutboxAway, OutboxRow
from storage.pool import Pool, connect
from storage.queries import load
from storage.sqlstates import raising

if TYPE_CHECKING:
    from storage.pool import Connection, DirectConnection

log = structlog.get_logger(__name__)

SQL = load("outbox")

NOTIFY_CHANNEL = "orderwire_outbox"
NOTIFY_INTERVAL = 0.02  # seconds: a NOTIFY in every transaction cost a third of the writes
POLL_INTERVAL = 0.25  # seconds: when a NOTIFY was lost
LOCK_INTERVAL = (0.25, 1.0)  # seconds, drawn anew each time: how soon a killed relay is replaced
COMMAND_TIMEOUT = 5.0  # seconds: then the server is taken for gone
MOST_COUNTED = 100_000


class Bell:
    """Rung after a commit with events: wakes the relay here while this node leads, else tells the node that does."""

    def __init__(self) -> None:
        self.here = asyncio.Event()
        self.elsewhere = asyncio.Event()
        self.leads = False

    def ring(self) -> None:
        (self.here if self.leads else self.elsewhere).set()


@dataclass(slots=True)
class OutboxWriter:
    """The outbox of one transaction. `write` it before the commit: all at once, while what is told of is locked."""

    connection: Connection
    rows: list[tuple[str, str, str, bytes]] = field(default_factory=list, init=False)

    async def add(self, event: Event) -> None:
        body = event.encode()
        if len(body) > MAX_EVENT_BYTES:  # nobody downstream would take it: better no change than one nobody hears of
            raise ValueError(f"{event.type} of {len(body)} bytes: at most {MAX_EVENT_BYTES} are delivered")
        self.rows.append((event.id, event.type, event.subject, body))

    async def write(self) -> None:
        if self.rows:
            await self.connection.execute(SQL["add"], *zip(*self.rows, strict=True))


class PostgresLeadership:
    def __init__(self, connection: DirectConnection, bell: Bell) -> None:
        self._connection = connection
        self._bell = bell

    async def pending(self, limit: int, *, published: Sequence[int]) -> Sequence[OutboxRow]:
        with raising(OutboxAway):
            rows = await self._connection.fetch(SQL["pending"], limit, published)
        return [
            OutboxRow(row["id"], Message(row["event_id"], row["type"], row["subject"], row["body"])) for row in rows
        ]

    async def wait(self, timeout: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(min(timeout, POLL_INTERVAL)):
                await self._bell.here.wait()
        # Before the rows are read: what commits from now on rings again.
        self._bell.here.clear()
        if self._connection.is_closed():
            raise OutboxAway


class PostgresOutbox:
    """`url` is opened directly for leading: the lock is the session's, so it lives and dies with that connection."""

    def __init__(self, url: str, pool: Pool, bell: Bell) -> None:
        self._url = url
        self._pool = pool
        self._bell = bell

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[Leadership]:
        async with AsyncExitStack() as stack:
            with raising(OutboxAway):
                connection = await stack.enter_async_context(self._connection())
                await _win_lock(connection)
                await connection.add_listener(NOTIFY_CHANNEL, lambda *_: self._bell.here.set())
            log.info("relay_leads")
            self._bell.leads = True
            try:
                yield PostgresLeadership(connection, self._bell)
            finally:
                self._bell.leads = False
                log.info("relay_stopped_leading")

    async def run(self) -> None:
        """Tell the leading node of commits made on this one while another leads."""
        while True:
            await self._bell.elsewhere.wait()
            self._bell.elsewhere.clear()
            # Lost while PostgreSQL is away; the relay polls.
            with suppress(Unavailable):
                async with self._pool.connection() as connection:
                    await connection.execute(SQL["notify"])
            await asyncio.sleep(NOTIFY_INTERVAL)

    async def backlog(self) -> tuple[int, float]:
        """Events that wait (counted up to 100,000) and the age of the oldest in seconds; raises Unavailable."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(SQL["backlog"], MOST_COUNTED)
        return (row["waiting"], row["age"]) if row else (0, 0.0)

    def _connection(self) -> AbstractAsyncContextManager[DirectConnection]:
        return connect(
            self._url,
            name="orderwire relay",
            command_timeout=COMMAND_TIMEOUT,
            # A removal that a crash undoes only publishes twice, and doubles are dropped by the streams.
            settings={"synchronous_commit": "off"},
        )


async def _win_lock(connection: DirectConnection) -> None:
    # Polled: a session that waits for the lock in the server would not notice that its client has died.
    while not await connection.fetchval(SQL["try_lead"]):  # noqa: ASYNC110 the lock is in PostgreSQL
        await asyncio.sleep(random.uniform(*LOCK_INTERVAL))  # noqa: S311 jitter
