"""Several steps of which none may be the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from handlers.ports.streams import StreamsAway

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Errands:
    """They belong to whoever has it open: who asks for them may go away, and they are taken to the end all the same."""

    def __init__(self) -> None:
        self._tasks: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None

    async def run(self, steps: Callable[[], Coroutine[None, None, T]]) -> T:
        """Raises what they raise, and StreamsAway where the node stops: then nobody knows how far they came."""
        if self._tasks is None:
            raise StreamsAway
        waiting: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tasks.create_task(_take(steps, waiting))
        return await waiting


async def _take(steps: Callable[[], Coroutine[None, None, T]], waiting: asyncio.Future[T]) -> None:
    try:
        outcome = await steps()
    except asyncio.CancelledError:
        _fail(waiting, StreamsAway())
        raise
    except Exception as error:  # noqa: BLE001 - it is for who asked
        _fail(waiting, error)
    else:
        if not waiting.done():
            waiting.set_result(outcome)


def _fail(waiting: asyncio.Future[Any], error: Exception) -> None:
    if waiting.done():
        log.warning("errand_failed", error=type(error).__name__)
    else:
        waiting.set_exception(error)
