from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from handlers.errors import NotFound, Unavailable
from handlers.ports.domain import UnitOfWork
from handlers.writes import Writes
from tests.doubles import MemoryDatabase, MemoryUnitOfWork, a_product


class Slow:
    """A command that has begun and waits to be let go on."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.product = a_product()
        self._error = error

    async def __call__(self, uow: UnitOfWork) -> None:
        self.begun.set()
        await self.go_on.wait()
        if self._error:
            raise self._error
        await uow.products.add(self.product)


async def abandon(writes: Writes, command: Slow) -> None:
    request = asyncio.create_task(writes.perform(command))
    await command.begun.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


async def test_a_command_answers_once_it_is_committed() -> None:
    database = MemoryDatabase()
    product = a_product()

    async def command(uow: UnitOfWork) -> str:
        await uow.products.add(product)
        return "done"

    async with Writes(database) as writes:
        assert await writes.perform(command) == "done"
        assert product.id in database.state.products.rows


async def test_a_write_whose_caller_is_cancelled_is_still_committed() -> None:
    database, command = MemoryDatabase(), Slow()

    async with Writes(database) as writes:
        await abandon(writes, command)
        assert database.state.products.rows == {}
        command.go_on.set()

    assert set(database.state.products.rows) == {command.product.id}


@pytest.mark.parametrize(
    ("error", "event"), [(None, "finished"), (NotFound(), "refused"), (ZeroDivisionError(), "failed")]
)
async def test_how_an_abandoned_write_ends_is_logged(error: Exception | None, event: str) -> None:
    command = Slow(error)

    with capture_logs() as logs:
        async with Writes(MemoryDatabase()) as writes:
            await abandon(writes, command)
            command.go_on.set()
        await asyncio.sleep(0)  # the callback of the task that has just ended

    assert [entry["event"] for entry in logs] == [f"abandoned_write_{event}"]


async def test_a_write_that_is_one_too_many_is_refused() -> None:
    command = Slow()

    async with Writes(MemoryDatabase(), limit=1) as writes:
        await abandon(writes, command)
        with pytest.raises(Unavailable):
            await writes.perform(Slow())
        command.go_on.set()


async def test_after_closing_nothing_is_written() -> None:
    async with Writes(MemoryDatabase(MemoryUnitOfWork())) as writes:
        pass

    with pytest.raises(Unavailable):
        await writes.perform(Slow())
