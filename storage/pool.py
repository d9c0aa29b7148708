"""Connections to PostgreSQL: pooled with a bounded wait, or direct for what must hold a session.

Session state is used (advisory locks, LISTEN, prepared statements), so the URL must lead to PostgreSQL itself or to
a pooler in session mode. Client-side keepalives are not needed: every use of a connection has a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

import asyncpg
import asyncpg.pool
import structlog

from storage.sqlstates import DATABASE_ERRORS, translated

if TYPE_CHECKING:
    DirectConnection: TypeAlias = asyncpg.Connection[asyncpg.Record]
    PooledConnection: TypeAlias = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Connection: TypeAlias = DirectConnection | PooledConnection


class OnConnect(Protocol):
    async def __call__(self, con: DirectConnection, /) -> None: ...


log = structlog.get_logger(__name__)

_CLOSE_TIMEOUT = 2.0
_STOP_TIMEOUT = 2.0  # seconds for a server that is there to stop what was cut off and to roll it back
SILENT_TIMEOUT = 30.0  # seconds; far longer than a part that has a session's lock is silent while it is well

# A server notices a client whose host died after 5 + 3 * 2 seconds instead of two hours. No effect on Unix sockets.
_KEEPALIVES = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"}


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Times are seconds. `deadline` bounds one use of a connection from asking for it to giving it back,
    so that a server that is there but does not answer (frozen, unplugged) is noticed; the server stops a statement
    that takes as long."""

    url: str = field(repr=False)
    name: str
    size: int
    acquire_timeout: float
    deadline: float
    settings: Mapping[str, str] = field(default_factory=dict)


class Pool:
    """At most `size` connections, opened when needed; lost ones are replaced by the next use."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], options: PoolOptions) -> None:
        self._pool = pool
        self._name = options.name
        self._acquire_timeout = options.acquire_timeout
        self._deadline = options.deadline
        self._returns: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def connection(self, *, deadline: float | None = None) -> AsyncIterator[PooledConnection]:
        """A connection for one use of at most `deadline` seconds (the pool's, if None), waiting included.

        Raises Unavailable when there is none in time or it fails, Conflict for a constraint that nobody explained.
        """
        try:
            async with asyncio.timeout(self._deadline if deadline is None else deadline):
                # Where one is idle nobody waits for it, and a timeout of its own would be for nothing.
                timeout = None if self._pool.get_idle_size() else self._acquire_timeout
                connection = await self._pool.acquire(timeout=timeout)
                is_cut_off = False
                try:
                    yield connection
                except (asyncio.CancelledError, GeneratorExit):
                    is_cut_off = True
                    raise
                finally:
                    self._give_back(connection, is_cut_off=is_cut_off)
        except DATABASE_ERRORS as error:
            if (ours := translated(error)) is None:
                raise
            raise ours from error

    async def close(self) -> None:
        """Wait for those in use for a while, then cut them off."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._pool.close()
        except DATABASE_ERRORS as error:
            log.warning("pool_closed_hard", pool=self._name, error=type(error).__name__)
        await asyncio.gather(*self._returns, return_exceptions=True)

    def _give_back(self, connection: PooledConnection, *, is_cut_off: bool) -> None:
        # In a task that nobody waits for: in a full loop its three steps would cost who has an answer as many turns.
        released = self._stop(connection) if is_cut_off else self._pool.release(connection)
        task = asyncio.create_task(released, name="give_back")
        self._returns.add(task)
        task.add_done_callback(self._given_back)

    async def _stop(self, connection: PooledConnection) -> None:
        """Give back what may be in the middle of a statement and of a transaction.

        Under overload deadlines pass everywhere. To open another connection and to plan on it all that this one knows
        would cost more than what was too late: soon nothing would be in time. One that hangs is closed.
        """
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                # asyncpg has asked the server to stop, and waits for that first. Then it knows where it is.
                with suppress(asyncpg.QueryCanceledError, asyncpg.InFailedSQLTransactionError):
                    await connection.execute("SELECT")
                if connection.is_in_transaction():  # where it is not, the server would log a warning
                    await connection.execute("ROLLBACK")
        except Exception as error:  # noqa: BLE001 - whatever it is, its place in the pool must not be lost
            log.warning("connection_cut_off", pool=self._name, error=type(error).__name__)
            _discard(connection)
        await self._pool.release(connection)

    def _given_back(self, task: asyncio.Task[None]) -> None:
        self._returns.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:  # asyncpg has closed it, and the next use opens another
            log.warning("connection_not_given_back", pool=self._name, error=type(error).__name__)


@asynccontextmanager
async def open_pool(options: PoolOptions, *, on_connect: OnConnect | None = None) -> AsyncIterator[Pool]:
    """Opens no connection yet: a node can start while PostgreSQL is away. `on_connect` sees each new one first."""
    pool = await asyncpg.create_pool(
        options.url,
        min_size=0,
        max_size=options.size,
        init=on_connect,
        reset=_keep_session,
        server_settings=_server_settings(options.name, options.deadline, options.settings),
    )
    ours = Pool(pool, options)
    try:
        yield ours
    finally:
        await ours.close()


@asynccontextmanager
async def in_transaction(connection: Connection, begin: str = "BEGIN") -> AsyncIterator[None]:
    """Commit at the end of the block, roll back when it raises. Where it is cut off the pool does, with a bound:
    asyncpg's own would wait for a server that hangs. A commit is never stopped: the connection is closed."""
    await connection.execute(begin)
    try:
        yield
    except Exception:
        await connection.execute("ROLLBACK")
        raise
    try:
        await connection.execute("COMMIT")
    except asyncio.CancelledError:
        # At once, before asyncpg asks the server to stop: one that waits for its standby would do no more than show
        # what that has not, and what a failover would lose.
        _discard(connection)
        raise


@asynccontextmanager
async def connect(
    url: str,
    *,
    name: str,
    timeout: float = 2.0,
    command_timeout: float | None = None,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[DirectConnection]:
    """A connection of its own, closed at the end of the block together with the session's locks.

    `timeout` is for connecting, `command_timeout` for each statement; with one, the server ends a session that is
    silent for SILENT_TIMEOUT. A process that hangs or is frozen keeps its connections alive: what it leads it would
    lead for ever. Raises PostgreSQL's own errors.
    """
    silent = {} if command_timeout is None else {"idle_session_timeout": str(int(SILENT_TIMEOUT * 1000))}
    connection = await asyncpg.connect(
        url,
        timeout=timeout,
        command_timeout=command_timeout,
        server_settings=_server_settings(name, command_timeout or 0, silent | dict(settings or {})),
    )
    try:
        yield connection
    finally:
        with suppress(*DATABASE_ERRORS):
            await connection.close(timeout=_CLOSE_TIMEOUT)


def _server_settings(name: str, statement_timeout: float, settings: Mapping[str, str]) -> dict[str, str]:
    milliseconds = str(int(statement_timeout * 1000))  # 0 is none
    return {
        "application_name": name,
        "statement_timeout": milliseconds,
        "idle_in_transaction_session_timeout": milliseconds,
        "client_connection_check_interval": "500ms",  # what nobody waits for any more gives its locks back
        "timezone": "UTC",
        **_KEEPALIVES,
        **settings,
    }


async def _keep_session(_: PooledConnection | DirectConnection) -> None:
    """Nothing of ours changes a pooled session, so the default reset is a round trip for nothing."""


def _discard(connection: Connection) -> None:
    with suppress(asyncpg.InterfaceError):  # the pool may have noticed first that it is lost
        connection.terminate()
