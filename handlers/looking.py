"""What is done every now and then, on each node; whoever comes first has it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from handlers.errors import Unavailable

log = structlog.get_logger(__name__)


async def keep_looking(look: Callable[[], Awaitable[object]], shortest: float, longest: float, postponed: str) -> None:
    """`look` after so many seconds, drawn anew each time, so that nodes do not look at once. While PostgreSQL is away
    there is nothing to do, and `postponed` is logged. Whatever else is raised does not end the node, for it would come
    again after each restart.
    """
    while True:
        await asyncio.sleep(random.uniform(shortest, longest))  # noqa: S311 jitter
        try:
            await look()
        except Unavailable:
            log.warning(postponed)
        except Exception:
            log.exception(postponed)
