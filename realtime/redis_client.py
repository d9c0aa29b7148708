"""How every part that uses Redis connects to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster
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


@asynccontextmanager
async def open_cluster(url: str) -> AsyncIterator[RedisCluster]:
    """Connects when it is first needed. It follows what moves, and goes on with the servers that are there."""
    cluster: RedisCluster = RedisCluster.from_url(url, require_full_coverage=False, **_options())
    try:
        yield cluster
    finally:
        await cluster.aclose()


@asynccontextmanager
async def open_owner(url: str, cluster: RedisCluster, key: str) -> AsyncIterator[Redis]:
    """Of the cluster that `url` is one server of, the one that has the key now."""
    with redis_errors():
        _ = await cluster.initialize()
        await cluster.nodes_manager.initialize()  # who has what now; those who ask together ask once
    owner = cluster.get_node_from_key(key)
    if owner is None:
        raise ConnectionError("no server has this key")
    place = URL(url).with_host(owner.host).with_port(int(owner.port))
    async with open_redis(str(place)) as redis:
        yield redis


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
