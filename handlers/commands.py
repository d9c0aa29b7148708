"""The commands of the domain by name: for each the shape of its parameters and the use case that it runs.

The commands.py of a domain are called from two sides: by REST endpoints, which take the parameters from the parts of
a request, and through `Commands` by clients of the socket, who send them as one JSON object.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from handlers.actor import Actor
from handlers.clock import utc_now
from handlers.errors import AppError, Unauthenticated
from handlers.events import Cause
from handlers.ports.domain import UnitOfWork
from handlers.ports.payments import PaymentProvider
from handlers.reading import read_json
from handlers.rules import Rules
from handlers.schemas import Body
from handlers.traceparent import continue_trace
from handlers.work import Work

log = structlog.get_logger(__name__)

P = TypeVar("P", bound=Body)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who runs a command, what sets it off, where its work is done, what holds there, and who collects the money.
    `is_steady`: no client that goes away cancels it."""

    actor: Actor
    cause: Cause
    work: Work
    rules: Rules
    provider: PaymentProvider | None = None
    is_steady: bool = False

    def read(self, query: Callable[[UnitOfWork], Awaitable[T]]) -> Awaitable[T]:
        """As `Work.read` does."""
        return self.work.read(query, is_steady=self.is_steady)

    def look_up(self, query: Callable[[UnitOfWork], Awaitable[T]]) -> Awaitable[T]:
        """As `Work.look_up` does."""
        return self.work.look_up(query, is_steady=self.is_steady)


class Result(Protocol):
    def encode(self) -> bytes:
        """One JSON value on one line."""
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """`answer` takes the parameters as JSON and returns the result as JSON; it raises AppError."""

    name: str
    parameters: type[Body]
    answer: Callable[[Caller, bytes], Awaitable[bytes]]


def command(name: str, parameters: type[P], run: Callable[[Caller, P], Awaitable[Result]]) -> Command:
    async def answer(caller: Caller, data: bytes) -> bytes:
        return (await run(caller, read_json(data, parameters))).encode()

    return Command(name, parameters, answer)


class UnknownCommand(LookupError):
    """No command has this name."""


class CommandRefused(Exception):
    """`code` is the status that REST answers with, `message` the stable code of docs/errors.md; `temporary`: the same
    call may succeed later."""

    def __init__(self, code: int, message: str, *, temporary: bool) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.temporary = temporary


class Commands:
    """The table. `status_of` is what REST makes of the tree in handlers.errors."""

    def __init__(
        self,
        work: Work,
        rules: Rules,
        provider: PaymentProvider | None,
        commands: Iterable[Command],
        status_of: Callable[[type[AppError]], int],
    ) -> None:
        self._work = work
        self._rules = rules
        self._provider = provider
        self._commands = {each.name: each for each in commands}
        self._status_of = status_of

    async def call(self, actor: Actor | None, method: str, data: bytes) -> bytes:
        """Run the command `method` with the JSON object `data`; nothing and null stand for an empty one.

        Raises UnknownCommand, CommandRefused, and what a bug raises.
        """
        command = self._commands.get(method)
        if command is None:
            raise UnknownCommand
        trace_id, traceparent = continue_trace(None)
        with structlog.contextvars.bound_contextvars(trace_id=trace_id):
            try:
                return await self._answer(command, actor, Cause(utc_now(), traceparent), data)
            except AppError as error:
                code = self._status_of(type(error))
                raise CommandRefused(code, error.code, temporary=error.retryable) from None

    async def _answer(self, command: Command, actor: Actor | None, cause: Cause, data: bytes) -> bytes:
        started, outcome = time.perf_counter(), "unfinished"
        try:
            if actor is None:
                raise Unauthenticated
            caller = Caller(actor, cause, self._work, self._rules, self._provider)
            answer = await command.answer(caller, b"{}" if data in {b"", b"null"} else data)
            outcome = "done"
        except AppError as error:
            outcome = error.code
            raise
        finally:
            milliseconds = round((time.perf_counter() - started) * 1000, 1)
            log.info("command", command=command.name, outcome=outcome, milliseconds=milliseconds)
        return answer
