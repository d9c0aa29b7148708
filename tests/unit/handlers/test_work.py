from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from handlers.errors import NotFound, Unavailable
from handlers.ports.domain import UnitOfWork, Wants
from handlers.work import Work
from tests.doubles import MemoryDatabase, MemoryUnitOfWork, a_product

WANTS = Wants(UUID(int=1), None, (), None)


class Slow:
    """A command that has begun and waits to be let go on."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.product = a_product()
        self.has_ended = False
        self._error = error

    async def __call__(self, uow: UnitOfWork) -> None:
        self.begun.set()
        await self.go_on.wait()
        if self._error:
            raise self._error
        await uow.products.add(self.product)
        self.has_ended = True


async def abandon(asking: Coroutine[None, None, None], command: Slow) -> None:
    request = asyncio.create_task(asking)
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

    async with Work(database) as work:
        assert await work.write(command) == "done"
        assert product.id in database.state.products.rows


async def test_a_write_whose_caller_is_cancelled_is_still_committed() -> None:
    database, command = MemoryDatabase(), Slow()

    async with Work(database) as work:
        await abandon(work.write(command), command)
        assert database.state.products.rows == {}
        command.go_on.set()

    assert set(database.state.products.rows) == {command.product.id}


async def test_a_query_sees_what_is_committed_and_a_refusal_reaches_who_asked() -> None:
    database, product = MemoryDatabase(), a_product()
    database.state.products.rows[product.id] = product

    async def refuse(_: UnitOfWork) -> None:
        raise NotFound

    async with Work(database) as work:
        assert await work.read(lambda uow: uow.products.get(product.id)) == product
        with pytest.raises(NotFound):
            await work.read(refuse)


async def test_who_asked_has_the_answer_in_the_next_turn_of_the_loop() -> None:
    loop = asyncio.get_running_loop()
    turns: list[str] = []

    def turn() -> None:
        turns.append("next")
        loop.call_soon(turns.append, "the one after")

    async def query(_: UnitOfWork) -> None:
        loop.call_soon(turn)

    async with Work(MemoryDatabase()) as work:
        await work.read(query)
        assert turns == ["next"]


async def test_who_is_steady_has_question_and_answer_in_its_own_turns() -> None:
    loop = asyncio.get_running_loop()
    turns: list[str] = []
    loop.call_soon(turns.append, "the next turn")

    async def query(_: UnitOfWork) -> None:
        turns.append("asked")

    async with Work(MemoryDatabase()) as work:
        await work.read(query, is_steady=True)
        turns.append("answered")

    assert turns == ["asked", "answered"]


async def test_steady_reads_are_waited_for_at_the_end() -> None:
    queries = [Slow(), Slow()]

    async with Work(MemoryDatabase()) as work:
        readers = [asyncio.create_task(work.read(query, is_steady=True)) for query in queries]
        for query in queries:
            await query.begun.wait()
        asyncio.get_running_loop().call_later(0.02, queries[0].go_on.set)
        asyncio.get_running_loop().call_later(0.05, queries[1].go_on.set)

    assert [query.has_ended for query in queries] == [True, True]
    await asyncio.gather(*readers)


async def test_a_read_whose_caller_is_cancelled_is_waited_for_at_the_end() -> None:
    query = Slow()

    async with Work(MemoryDatabase()) as work:
        await abandon(work.read(query), query)
        asyncio.get_running_loop().call_soon(query.go_on.set)

    assert query.has_ended


@pytest.mark.parametrize(
    ("error", "event"), [(None, "finished"), (NotFound(), "refused"), (ZeroDivisionError(), "failed")]
)
async def test_how_an_abandoned_work_ends_is_logged(error: Exception | None, event: str) -> None:
    command = Slow(error)

    with capture_logs() as logs:
        async with Work(MemoryDatabase()) as work:
            await abandon(work.write(command), command)
            command.go_on.set()
        await asyncio.sleep(0)  # the callback of the task that has just ended

    assert [entry["event"] for entry in logs] == [f"abandoned_work_{event}"]


@pytest.mark.parametrize(
    ("error", "event"), [(None, "finished"), (NotFound(), "refused"), (ZeroDivisionError(), "failed")]
)
async def test_what_was_to_be_done_together_is_done_also_when_its_caller_is_gone(
    error: Exception | None, event: str
) -> None:
    database, command = MemoryDatabase(), Slow(error)

    with capture_logs() as logs:
        async with Work(database) as work:
            await abandon(work.write_together(command, WANTS), command)
            command.go_on.set()

    assert [entry["event"] for entry in logs] == [f"abandoned_work_{event}"]
    assert bool(database.state.products.rows) == (error is None)


async def test_what_is_one_too_many_is_refused_whichever_way_it_comes() -> None:
    together, alone = Slow(), Slow()

    async with Work(MemoryDatabase(), limit=2) as work:
        await abandon(work.write_together(together, WANTS), together)
        await abandon(work.write(alone), alone)
        with pytest.raises(Unavailable):
            await work.write_together(Slow(), WANTS)
        with pytest.raises(Unavailable):
            await work.write(Slow())
        together.go_on.set()
        alone.go_on.set()


async def test_what_the_steady_read_counts_like_all_else_until_it_is_read() -> None:
    query, last = Slow(), Slow()

    async with Work(MemoryDatabase(), limit=1) as work:
        reader = asyncio.create_task(work.read(query, is_steady=True))
        await query.begun.wait()
        for is_steady in (True, False):
            with pytest.raises(Unavailable):
                await work.read(Slow(), is_steady=is_steady)
        with pytest.raises(Unavailable):
            await work.write_together(Slow(), WANTS)
        query.go_on.set()
        await reader
        last.go_on.set()
        await work.read(last, is_steady=True)

    with pytest.raises(Unavailable):
        await work.read(last, is_steady=True)


async def test_what_is_one_too_many_is_refused() -> None:
    command = Slow()

    async with Work(MemoryDatabase(), limit=1) as work:
        await abandon(work.write(command), command)
        with pytest.raises(Unavailable):
            await work.write(Slow())
        with pytest.raises(Unavailable):
            await work.read(Slow())
        command.go_on.set()


async def test_at_the_end_a_job_under_way_still_does_all_of_its_work_though_another_fails() -> None:
    database, failing, lasting = MemoryDatabase(), Slow(ZeroDivisionError()), Slow()
    last = a_product()

    async with Work(database) as work:

        async def do_two_things() -> None:
            await work.write(lasting)
            await work.write(lambda uow: uow.products.add(last))

        await abandon(work.finish(lambda: work.write(failing)), failing)
        await abandon(work.finish(do_two_things), lasting)
        failing.go_on.set()
        asyncio.get_running_loop().call_later(0.01, lasting.go_on.set)

    assert set(database.state.products.rows) == {lasting.product.id, last.id}


async def test_who_was_answered_takes_no_place_any_more() -> None:
    database, skus = MemoryDatabase(), ["a", "b", "c"]

    async with Work(database, limit=1) as work:
        for sku in skus:
            await work.write_together(lambda uow, sku=sku: uow.products.add(a_product(sku=sku)), WANTS)  # type: ignore[misc]

    assert [product.sku for product in database.state.products.rows.values()] == skus


async def test_after_closing_nothing_is_begun() -> None:
    begun: list[str] = []

    async def job() -> None:
        begun.append("job")

    async with Work(MemoryDatabase(MemoryUnitOfWork())) as work:
        pass

    with pytest.raises(Unavailable):
        await work.write(Slow())
    with pytest.raises(Unavailable):
        await work.write_together(Slow(), WANTS)
    with pytest.raises(Unavailable):
        await work.finish(job)
    assert begun == []
