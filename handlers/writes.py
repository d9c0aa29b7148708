"""Writes belong to the process, not to the request: one whose client goes away is still finished."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from handlers.errors import AppError, Unavailable
from handlers.ports.domain import Database, UnitOfWork

log = structlog.get_logger(__name__)

T = TypeVar("T")

MAX_WRITES = (
    1000  # at ten connections and some milliseconds each, whoever comes later would wait longer than the pool allows
)


class Writes:
    """Runs commands, each in one transaction. `async with` it: leaving waits for the writes that are still running."""

    def __init__(self, database: Database, *, limit: int = MAX_WRITES) -> None:
        self._database = database
        self._limit = limit
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        await asyncio.gather(*self._running, return_exceptions=True)

    async def perform(self, command: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        """Run `command` and commit. When the caller is cancelled the write goes on; what it raises then is logged.

        Raises what `command` raises (nothing was written), and Unavailable: when too many writes are running nothing
        was written, when PostgreSQL went away during the commit nobody knows.
        """
        if self._closed or len(self._running) >= self._limit:
            raise Unavailable
        task = asyncio.create_task(self._commit(command), name="write")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_outcome)
            raise

    async def _commit(self, command: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        async with self._database.transaction() as uow:
            return await command(uow)


def _log_outcome(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is None:
        log.info("abandoned_write_finished", committed=not task.cancelled())
    elif isinstance(error, AppError):
        log.info("abandoned_write_refused", code=error.code)
    else:
        log.error("abandoned_write_failed", exc_info=error)
