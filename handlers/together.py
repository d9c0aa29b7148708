"""Commands of many callers in one transaction: what comes while others are being worked on goes together.

One that comes alone has a transaction of its own and waits for nobody. The more come, the fewer statements and commits
each of them costs, and many who want the same product wait for its row once, not one behind the other. A transaction
that follows another closely waits for company first, longer while the event loop is busy: else many small ones, and all
that each of them sets off, would keep the processors busy with little.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from handlers.errors import Unavailable
from handlers.loop_load import LoopLoad
from handlers.outcomes import tell
from handlers.ports.domain import Database, UnitOfWork, Wants

log = structlog.get_logger(__name__)

T = TypeVar("T")

MOST = 32  # commands in a transaction: the first waits for the work of the last
AT_ONCE = 2  # transactions; with more there would be fewer commands in each
GATHER_SECONDS = (0.01, 0.03)  # from the begin of one to that of the next, while the loop is calm and while it is full
LOADS = (0.3, 0.5)  # of a loop that is calm, and of one that is full
A_FEW = 4  # commands in a turn of the loop, or answers: others have their turn in between

Command = Callable[[UnitOfWork], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Job:
    command: Command
    wants: Wants
    waiting: asyncio.Future[Any]


class Together:
    """Runs commands; `settle` it when no more are coming."""

    def __init__(self, database: Database, load: LoopLoad | None = None) -> None:
        self._database = database
        self._load = load or LoopLoad()
        self._waiting: deque[_Job] = deque()
        self._enough = asyncio.Event()  # MOST are waiting
        self._serving: set[asyncio.Task[None]] = set()
        self._gate = asyncio.Lock()
        self._began = -math.inf
        self.size = 0  # commands that wait or are being worked on

    async def run(self, command: Callable[[UnitOfWork], Awaitable[T]], wants: Wants) -> T:
        """Raises what `command` raises, which then has done nothing, and Unavailable as a transaction does."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Job(command, wants, waiting))
        self.size += 1
        if len(self._waiting) >= MOST:
            self._enough.set()
        # One that has ended may still be there, and would not see this.
        if sum(not task.done() for task in self._serving) < AT_ONCE:
            # In nobody's context: what is logged there would be said of one request, and is of many.
            task = loop.create_task(self._serve(), name="together", context=Context())
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        try:
            return await waiting
        finally:
            del waiting  # what it raises holds this frame: a cycle, which only the garbage collector could free

    async def settle(self) -> None:
        """Return when nothing is being done any more."""
        await asyncio.gather(*self._serving, return_exceptions=True)
        self._turn_away()  # whom nobody serves any more, because who should have was cancelled
        while self.size:  # noqa: ASYNC110 - who is told in the next turns
            await asyncio.sleep(0)

    async def _serve(self) -> None:
        while jobs := await self._next():
            outcomes: Sequence[object] = [Unavailable() for _ in jobs]
            try:
                outcomes = await (self._one_by_one(jobs) if len(jobs) == 1 else self._in_one(jobs))
            finally:
                # Also where it ends in the middle, by whatever: nobody is left waiting.
                self._end(deque(zip(jobs, outcomes, strict=True)))
            if any(isinstance(outcome, Unavailable) for outcome in outcomes):
                self._turn_away()

    async def _next(self) -> Sequence[_Job]:
        """What waits, when it is its time; nothing when others have taken it, or nothing waits."""
        async with self._gate:
            loop = asyncio.get_running_loop()
            self._load.look()
            early = self._began + gather_seconds(self._load.value) - loop.time()
            if self._waiting and early > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(early):
                        await self._enough.wait()
            jobs = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
            if len(self._waiting) < MOST:
                self._enough.clear()
            if jobs:
                self._began = loop.time()
            return jobs

    async def _in_one(self, jobs: Sequence[_Job]) -> Sequence[object]:
        """What each returned or raised, now that it is committed."""
        try:
            async with self._database.shared_transaction([job.wants for job in jobs]) as units:
                outcomes = []
                for job, unit in zip(jobs, units, strict=True):
                    outcomes.append(await _attempt(job.command, unit))
                    if len(outcomes) % A_FEW == 0:
                        await asyncio.sleep(0)
                return outcomes
        except Unavailable:
            return [Unavailable() for _ in jobs]
        except Exception as error:  # noqa: BLE001 - nothing was done, because of one of them: it is told that alone
            log.info("not_done_together", commands=len(jobs), cause=type(error).__name__)
            return await self._one_by_one(jobs)

    async def _one_by_one(self, jobs: Sequence[_Job]) -> Sequence[object]:
        return [await _attempt(job.command, self._database.transaction()) for job in jobs]

    def _turn_away(self) -> None:
        """Who waits has waited for as long as a transaction may take: not as long again."""
        turned_away, self._waiting = self._waiting, deque()
        self._enough.clear()
        self._end(deque((job, Unavailable()) for job in turned_away))

    def _end(self, ended: deque[tuple[_Job, object]]) -> None:
        """Tell some now, the others in the next turns of the loop: each has an answer to write."""
        for _ in range(min(A_FEW, len(ended))):
            job, outcome = ended.popleft()
            self.size -= 1
            tell(job.waiting, "write", outcome)
        if ended:
            asyncio.get_running_loop().call_soon(self._end, ended)


def gather_seconds(load: float) -> float:
    calm, full = LOADS
    shortest, longest = GATHER_SECONDS
    return shortest + (longest - shortest) * min(1.0, max(0.0, (load - calm) / (full - calm)))


async def _attempt(command: Command, unit: AbstractAsyncContextManager[UnitOfWork]) -> object:
    """What it returns or raises."""
    try:
        async with unit as uow:
            return await command(uow)
    except Exception as refused:  # noqa: BLE001 - it is for who asked
        return refused
