"""How every part that uses Redis connects to it."""

from __future__ import annotations

import asyncio
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

PATIENCE_SECONDS: Final = 1.0


def open_redis(url: str) -> Redis:
    """Connects when it is first needed; `async with` it. Without redis-py's own retries: they restore a subscription
    unseen, and stretch every deadline."""
    return Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=PATIENCE_SECONDS,
        socket_timeout=PATIENCE_SECONDS,
        driver_info=None,  # else it looks its own version up on disk, on the event loop
    )


def end_if_cancelled() -> None:
    """Below redis-py a cancellation that meets the end of what is waited for can be lost (Python 3.11: wait_for)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
