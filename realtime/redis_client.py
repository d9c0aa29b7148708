"""How every part that uses Redis connects to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError
from yarl import URL

PATIENCE_SECONDS: Final = 1.0

REDIS_AWAY: Final = (RedisError, RedisClusterException, OSError)
"""What is raised, within `redis_errors`, for a lost or refused connection, a time that ran out (an OSError) and a
cluster that nobody answers for, whose exception is none of redis-py's errors."""


@contextmanager
def redis_errors() -> Iterator[None]:
    """Of a call of redis-py, and of nothing else: it lets uvloop's RuntimeError through where a connection ended in the
    turn of the loop in which it was made. That is a ConnectionError."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError("closed as it was opened") from error


def open_redis(url: str) -> Redis:
    """Connects when it is first needed; `async with` it. Without redis-py's own retries: they restore a subscription
    unseen, and stretch every deadline."""
    return Redis.from_url(url, **_options())


class Line:
    """One connection, for who says one thing after the other: half of what a command of `Redis` costs is its pool, the
    time limits of each step, and redis-py's own measuring. Used through `open_line`."""

    def __init__(self, url: str) -> None:
        # By RESP2: what is pushed by RESP3 redis-py makes text of first, for its log.
        self._pool = ConnectionPool.from_url(url, **_options() | {"socket_timeout": None, "protocol": 2})
        self._connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]

    async def call(self, *command: str | bytes) -> None:
        """Returns when it was answered; whoever calls limits the time. Raises what redis-py does."""
        await self._pool.ensure_connection(self._connection)
        await self._connection.send_command(*command)
        await self._connection.read_response()

    async def say(self, *command: str | bytes) -> None:
        """What is answered is heard. Raises what redis-py does, and TimeoutError."""
        # Connecting waits for the server's answer to the password.
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._connection.connect()  # type: ignore[no-untyped-call]
            await self._connection.send_command(*command)

    async def hear(self, timeout: float) -> object:
        """The next answer or message; None when there was none for so many seconds. Raises what redis-py does."""
        return await self._connection.read_response(timeout=timeout)

    async def close(self) -> None:
        with suppress(RedisError):  # it took too long, and nobody waits for it
            await self._connection.disconnect()


@asynccontextmanager
async def open_line(url: str) -> AsyncIterator[Line]:
    """Connects when it is first needed."""
    line = Line(url)
    try:
        yield line
    finally:
        await line.close()


@asynccontextmanager
async def open_cluster(url: str) -> AsyncIterator[RedisCluster]:
    """Connects when it is first needed. It follows what moves, and goes on with the servers that are there."""
    cluster: RedisCluster = RedisCluster.from_url(url, require_full_coverage=False, **_options())
    try:
        yield cluster
    finally:
        await cluster.aclose()


@asynccontextmanager
async def open_owner(url: str, cluster: RedisCluster, key: str) -> AsyncIterator[Line]:
    """To the server that has the key now, of the cluster that `url` is one server of."""
    with redis_errors():
        _ = await cluster.initialize()
        await cluster.nodes_manager.initialize()  # who has what now; those who ask together ask once
    owner = cluster.get_node_from_key(key)
    if owner is None:
        raise ConnectionError("no server has this key")
    place = URL(url).with_host(owner.host).with_port(int(owner.port))
    async with open_line(str(place)) as line:
        yield line


def _options() -> dict[str, Any]:
    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": PATIENCE_SECONDS,
        "socket_timeout": PATIENCE_SECONDS,
        "driver_info": None,  # else it looks its own version up on disk, on the event loop
    }


def end_if_cancelled() -> None:
    """Below redis-py a cancellation that meets the end of what is waited for can be lost (Python 3.11: wait_for)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
