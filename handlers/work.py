"""Work on the database belongs to the process, not to whoever asked for it: when a client goes away, a write is still
finished, and a read does not take its connection with it (to replace one costs PostgreSQL a process and a handshake).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from handlers import timing
from handlers.errors import Unavailable
from handlers.outcomes import tell
from handlers.ports.domain import Database, UnitOfWork, Wants
from handlers.together import Together

log = structlog.get_logger(__name__)

T = TypeVar("T")

MAX_RUNNING = 1000  # at ten connections and some milliseconds each, whoever comes later would wait longer than they may


class Work:
    """Runs commands and queries. `async with` it: leaving waits for what is still running, which the database bounds.

    What is abandoned by a caller that is cancelled goes on; how it ends is logged.
    """

    def __init__(self, database: Database, *, limit: int = MAX_RUNNING) -> None:
        self._database = database
        self._together = Together(database)
        self._limit = limit
        self._running: set[asyncio.Task[Any]] = set()
        self._jobs: set[asyncio.Task[Any]] = set()  # which wait for others than the database, and fill no place for it
        self._steady = 0  # reads in the tasks of those who ask
        self._none_is_steady = asyncio.Event()  # once it is closed
        self._closing = self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing = True
        await asyncio.gather(*self._jobs, return_exceptions=True)
        self._closed = True
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._steady:  # of clients that are gone, or their server would have waited
            await self._none_is_steady.wait()
        await self._together.settle()

    async def write(self, command: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        """Run `command` in one transaction and commit.

        Raises what `command` raises (nothing was written), and Unavailable: when too much is running nothing was
        written, when PostgreSQL went away during the commit nobody knows.
        """

        async def commit() -> T:
            async with self._database.transaction() as uow:
                return await command(uow)

        return await self._on_database(commit, "write")

    async def write_together(self, command: Callable[[UnitOfWork], Awaitable[T]], wants: Wants) -> T:
        """As `write`, in one transaction with others that come meanwhile. `command` needs no more than it `wants`."""
        if self._closed:
            raise Unavailable
        self._refuse_too_many(self._running)
        started = time.perf_counter()
        try:
            return await self._together.run(command, wants)
        finally:
            timing.add_database(time.perf_counter() - started)

    async def read(self, query: Callable[[UnitOfWork], Awaitable[T]], *, is_steady: bool = False) -> T:
        """Run `query`, which changes nothing. Raises what it raises, and Unavailable.

        `is_steady`: no client that goes away cancels who asks. It needs no task of its own then, with which question
        and answer would each come a turn of the loop later.
        """

        return await self._read(self._database.read, query, is_steady=is_steady)

    async def look_up(self, query: Callable[[UnitOfWork], Awaitable[T]], *, is_steady: bool = False) -> T:
        """As `read`, of what is found by its key."""
        return await self._read(self._database.look_up, query, is_steady=is_steady)

    async def _read(
        self,
        unit: Callable[[], AbstractAsyncContextManager[UnitOfWork]],
        query: Callable[[UnitOfWork], Awaitable[T]],
        *,
        is_steady: bool,
    ) -> T:
        async def look() -> T:
            async with unit() as uow:
                return await query(uow)

        return await self._on_database(look, "read", is_steady=is_steady)

    async def finish(self, job: Callable[[], Coroutine[None, None, T]]) -> T:
        """Run `job`, which does several of these with something in between. Raises what it raises, and Unavailable."""
        if self._closing:
            raise Unavailable
        return await self._own(job, "job", self._jobs)

    async def _on_database(
        self, work: Callable[[], Coroutine[None, None, T]], kind: str, *, is_steady: bool = False
    ) -> T:
        if self._closed:
            raise Unavailable
        started = time.perf_counter()
        try:
            return await (self._here(work) if is_steady else self._own(work, kind, self._running))
        finally:
            timing.add_database(time.perf_counter() - started)

    async def _here(self, work: Callable[[], Coroutine[None, None, T]]) -> T:
        self._refuse_too_many(self._running)
        self._steady += 1
        try:
            return await work()
        finally:
            self._steady -= 1
            if self._closed and not self._steady:
                self._none_is_steady.set()

    async def _own(self, work: Callable[[], Coroutine[None, None, T]], kind: str, running: set[asyncio.Task[Any]]) -> T:
        self._refuse_too_many(running)
        waiting: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(_run(work, waiting, kind), name=kind)
        running.add(task)
        task.add_done_callback(running.discard)
        try:
            return await waiting
        finally:
            del waiting  # what it raises holds this frame: a cycle, which only the garbage collector could free

    def _refuse_too_many(self, running: set[asyncio.Task[Any]]) -> None:
        if len(running) + self._steady + self._together.size >= self._limit:
            raise Unavailable


async def _run(work: Callable[[], Coroutine[None, None, T]], waiting: asyncio.Future[T], kind: str) -> None:
    """Who waits is told as soon as it is done. By the end of this task it would be two turns of the loop later."""
    try:
        outcome = await work()
    except asyncio.CancelledError:
        if not waiting.cancel():
            log.info("abandoned_work_cancelled", kind=kind)
        raise
    except Exception as error:  # noqa: BLE001 - it is for who asked
        tell(waiting, kind, error)
    else:
        tell(waiting, kind, outcome)
