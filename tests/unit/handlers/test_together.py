from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import pytest
import structlog

from handlers.errors import Conflict, NotFound, Unavailable
from handlers.loop_load import LoopLoad
from handlers.ports.domain import UnitOfWork, Wants
from handlers.together import A_FEW, AT_ONCE, GATHER_SECONDS, LOADS, MOST, Together, gather_seconds
from tests import virtual_time
from tests.doubles import MemoryDatabase, MemoryUnitOfWork, a_product

CALM, FULL = GATHER_SECONDS
WANTS = Wants(UUID(int=1), None, (), None)


@dataclass
class GuardedDatabase(MemoryDatabase):
    """Transactions begin when `gate` is open and end one by one; `sizes` are how many commands each had. One with a
    product of SKU `unwritable` cannot be committed."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    locked: asyncio.Lock = field(default_factory=asyncio.Lock)
    sizes: list[int] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    error: Exception | None = None
    unwritable: str = "-"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryUnitOfWork]:
        async with self._guarded(1), super().transaction() as unit:
            yield unit
            self._refuse(unit)

    @asynccontextmanager
    async def shared_transaction(
        self, wanted: Sequence[Wants]
    ) -> AsyncIterator[Iterable[AbstractAsyncContextManager[UnitOfWork]]]:
        async with self._guarded(len(wanted)):
            before = self.state
            async with super().shared_transaction(wanted) as units:
                yield units
            try:
                self._refuse(self.state)
            except Exception:
                self.state = before
                raise

    @asynccontextmanager
    async def _guarded(self, size: int) -> AsyncIterator[None]:
        self.sizes.append(size)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.gate.wait()
            if self.error is not None:
                raise self.error
            async with self.locked:
                yield
        finally:
            self.running -= 1

    def _refuse(self, unit: MemoryUnitOfWork) -> None:
        if any(product.sku == self.unwritable for product in unit.products.rows.values()):
            raise Conflict

    @property
    def skus(self) -> list[str]:
        return [product.sku for product in self.state.products.rows.values()]


class Callers:
    """Each adds a product."""

    def __init__(self, database: GuardedDatabase, load: float = 0.0) -> None:
        loop_load = LoopLoad(clock=lambda: 0.0)  # time stands still, so nothing is seen of it
        loop_load.value = load
        self.together = Together(database, loop_load)
        self.asked: dict[str, asyncio.Task[str]] = {}

    async def ask(self, *skus: str, refused: bool = False) -> None:
        for sku in skus:
            self.asked[sku] = asyncio.create_task(self.add(sku, refused=refused))
        await asyncio.sleep(CALM * 1.5)  # until they wait, or are done

    async def add(self, sku: str, *, refused: bool = False) -> str:
        async def command(uow: UnitOfWork) -> str:
            await uow.products.add(a_product(sku=sku))
            if refused:
                raise NotFound
            return sku

        return await self.together.run(command, WANTS)

    async def outcomes(self) -> dict[str, object]:
        async with asyncio.timeout(5):
            found = await asyncio.gather(*self.asked.values(), return_exceptions=True)
            await self.together.settle()
        return dict(zip(self.asked, found, strict=True))


@pytest.fixture
def database() -> GuardedDatabase:
    return GuardedDatabase()


@pytest.fixture
def callers(database: GuardedDatabase) -> Callers:
    return Callers(database)


async def busy(callers: Callers) -> None:
    """As many are being worked on as may be at once."""
    for number in range(AT_ONCE):
        await callers.ask(f"first {number}")


async def test_who_comes_alone_has_a_transaction_of_its_own(database: GuardedDatabase, callers: Callers) -> None:
    database.gate.set()
    for sku in ("a", "b", "c"):
        await callers.ask(sku)

    assert database.sizes == [1, 1, 1]
    assert await callers.outcomes() == {"a": "a", "b": "b", "c": "c"}


async def test_who_comes_in_the_moment_in_which_the_last_ones_end_is_not_forgotten(
    database: GuardedDatabase, callers: Callers
) -> None:
    async def add_two() -> str:
        return await callers.add("a") + await callers.add("b")

    callers.asked["two"] = asyncio.create_task(add_two())
    await busy(callers)
    database.gate.set()

    assert (await callers.outcomes())["two"] == "ab"


@pytest.mark.parametrize(("load", "gathers"), [(0.0, CALM), (1.0, FULL)])
def test_one_that_follows_another_closely_waits_for_company(load: float, gathers: float) -> None:
    async def live() -> tuple[list[int], float]:
        database = GuardedDatabase()
        database.gate.set()
        callers, loop = Callers(database, load), asyncio.get_running_loop()
        began = loop.time()
        for sku in ("a", "b", "c"):
            callers.asked[sku] = asyncio.create_task(callers.add(sku))
            await asyncio.sleep(CALM / 4)
        await callers.outcomes()
        return database.sizes, loop.time() - began

    sizes, seconds = virtual_time.run(live())
    assert sizes == [1, 2]
    assert seconds == pytest.approx(gathers)


def test_it_waits_longer_the_busier_the_loop_is() -> None:
    calm, full = LOADS
    loads = [0.0, calm, (calm + full) / 2, full, 1.0]
    assert [gather_seconds(load) for load in loads] == pytest.approx([CALM, CALM, (CALM + FULL) / 2, FULL, FULL])


def test_who_comes_when_as_many_wait_as_go_together_waits_no_longer() -> None:
    async def live() -> tuple[list[int], float]:
        database = GuardedDatabase()
        database.gate.set()
        callers, loop = Callers(database), asyncio.get_running_loop()
        callers.asked["first"] = asyncio.create_task(callers.add("first"))
        await asyncio.sleep(0)
        callers.asked["second"] = asyncio.create_task(callers.add("second"))
        await asyncio.sleep(CALM / 2)
        began = loop.time()
        callers.asked |= {sku: asyncio.create_task(callers.add(sku)) for sku in map(str, range(MOST - 1))}
        await callers.outcomes()
        return database.sizes, loop.time() - began

    sizes, seconds = virtual_time.run(live())
    assert sizes == [1, MOST]
    assert seconds == pytest.approx(0.0)


def test_one_that_follows_another_that_took_long_waits_for_nobody() -> None:
    async def live() -> float:
        database = GuardedDatabase()
        database.gate.set()
        callers, loop = Callers(database), asyncio.get_running_loop()
        await callers.together.run(lambda _: asyncio.sleep(2 * CALM), WANTS)
        began = loop.time()
        await callers.add("a")
        return loop.time() - began

    assert virtual_time.run(live()) == pytest.approx(0.0)


@pytest.mark.parametrize(("left", "gathers"), [(3, CALM), (MOST - 1, CALM), (MOST, 0.0)])
def test_what_is_left_of_a_crowd_waits_for_company_unless_it_is_one_itself(left: int, gathers: float) -> None:
    async def live() -> tuple[list[int], float]:
        database = GuardedDatabase()
        database.gate.set()
        callers, loop = Callers(database), asyncio.get_running_loop()
        began = loop.time()
        callers.asked |= {sku: asyncio.create_task(callers.add(sku)) for sku in map(str, range(MOST + left))}
        await callers.outcomes()
        return database.sizes, loop.time() - began

    sizes, seconds = virtual_time.run(live())
    assert sizes == [MOST, left]
    assert seconds == pytest.approx(gathers)


@pytest.mark.parametrize(("share", "gathers"), [(0.1, CALM), (0.9, FULL)])
def test_it_sees_itself_how_busy_the_loop_is(share: float, gathers: float) -> None:
    async def live() -> float:
        database = GuardedDatabase()
        database.gate.set()
        callers, loop = Callers(database), asyncio.get_running_loop()
        callers.together = Together(database, LoopLoad(clock=loop.time, cpu=lambda: share * loop.time()))
        await asyncio.sleep(10)
        began = loop.time()
        await callers.add("a")
        await callers.add("b")
        return loop.time() - began

    assert virtual_time.run(live()) == pytest.approx(gathers)


async def test_who_comes_while_others_are_worked_on_goes_together_with_the_next(
    database: GuardedDatabase, callers: Callers
) -> None:
    await busy(callers)
    later = [f"later {number}" for number in range(MOST + 3)]
    await callers.ask(*later)
    database.gate.set()

    outcomes = await callers.outcomes()

    assert [outcomes[sku] for sku in later] == later
    assert database.sizes == [1] * AT_ONCE + [MOST, 3]
    assert database.most_running == AT_ONCE
    assert set(later) <= set(database.skus)


async def test_others_have_their_turn_between_a_few_commands_and_between_a_few_answers(
    database: GuardedDatabase, callers: Callers
) -> None:
    turns, done_in, told_in = 0, list[int](), list[int]()

    async def command(_: UnitOfWork) -> None:
        done_in.append(turns)

    async def caller() -> None:
        await callers.together.run(command, WANTS)
        told_in.append(turns)

    await busy(callers)
    tasks = [asyncio.create_task(caller()) for _ in range(MOST)]
    await asyncio.sleep(2 * CALM)
    database.gate.set()
    while not all(task.done() for task in tasks):
        turns += 1
        await asyncio.sleep(0)
    await callers.outcomes()

    for turns_of in (done_in, told_in):
        assert max(Counter(turns_of).values()) == A_FEW
        assert len(turns_of) == MOST


async def test_nobody_is_forgotten_who_is_told_later_than_others(database: GuardedDatabase, callers: Callers) -> None:
    await busy(callers)
    await callers.ask(*map(str, range(MOST)))
    database.gate.set()

    await callers.together.settle()

    assert callers.together.size == 0
    assert set(await callers.outcomes()) == {*map(str, range(MOST)), "first 0", "first 1"}


async def test_who_is_refused_has_done_nothing_and_the_others_have(database: GuardedDatabase, callers: Callers) -> None:
    await busy(callers)
    await callers.ask("a")
    await callers.ask("b", refused=True)
    await callers.ask("c")
    database.gate.set()

    outcomes = await callers.outcomes()

    assert (outcomes["a"], type(outcomes["b"]), outcomes["c"]) == ("a", NotFound, "c")
    assert database.sizes[AT_ONCE:] == [3]
    assert {"a", "c"} <= set(database.skus)
    assert "b" not in database.skus


async def test_what_cannot_be_written_is_told_to_whom_it_concerns_alone(
    database: GuardedDatabase, callers: Callers
) -> None:
    database.unwritable = "b"
    await busy(callers)
    await callers.ask("a", "b", "c")
    database.gate.set()

    outcomes = await callers.outcomes()

    assert (outcomes["a"], type(outcomes["b"]), outcomes["c"]) == ("a", Conflict, "c")
    assert database.sizes[AT_ONCE:] == [3, 1, 1, 1]
    assert sorted(database.skus)[:2] == ["a", "c"]


async def test_while_the_database_is_away_nobody_waits_for_a_second_try(
    database: GuardedDatabase, callers: Callers
) -> None:
    database.error = Unavailable()
    await busy(callers)
    await callers.ask(*(f"later {number}" for number in range(2 * MOST)))
    database.gate.set()

    outcomes = await callers.outcomes()

    assert {type(outcome) for outcome in outcomes.values()} == {Unavailable}
    assert database.sizes == [1] * AT_ONCE
    assert len({id(outcome) for outcome in outcomes.values()}) == len(outcomes) - AT_ONCE + 1  # nobody else's traceback


async def test_all_are_told_where_nobody_knows_what_became_of_their_transaction(
    database: GuardedDatabase, callers: Callers
) -> None:
    await busy(callers)
    await callers.ask("a", "b")
    database.gate.set()
    database.error = None
    original = database.shared_transaction

    @asynccontextmanager
    async def lost(wanted: Sequence[Wants]) -> AsyncIterator[Iterable[AbstractAsyncContextManager[UnitOfWork]]]:
        async with original(wanted) as units:
            yield units
        raise Unavailable

    database.shared_transaction = lost  # type: ignore[method-assign]

    outcomes = await callers.outcomes()

    assert [type(outcomes[sku]) for sku in "ab"] == [Unavailable, Unavailable]
    assert database.sizes == [1] * AT_ONCE + [2]  # and they are not tried again


async def test_who_gives_up_takes_nobody_along(database: GuardedDatabase, callers: Callers) -> None:
    await busy(callers)
    await callers.ask("a", "b", "c")
    callers.asked["b"].cancel()
    database.gate.set()

    outcomes = await callers.outcomes()

    assert (outcomes["a"], type(outcomes["b"]), outcomes["c"]) == ("a", asyncio.CancelledError, "c")


async def test_nobody_is_left_waiting_where_it_ends_in_the_middle(callers: Callers) -> None:
    await busy(callers)
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "together"]
    for task in tasks:
        task.cancel()

    outcomes = await asyncio.wait_for(asyncio.gather(*callers.asked.values(), return_exceptions=True), 5)

    assert {type(outcome) for outcome in outcomes} == {Unavailable}


async def test_who_waited_for_those_who_were_cancelled_is_told_at_the_end(callers: Callers) -> None:
    await busy(callers)
    await callers.ask("waiting")
    for task in asyncio.all_tasks():
        if task.get_name() == "together":
            task.cancel()
    async with asyncio.timeout(5):
        await callers.together.settle()

    assert {type(outcome) for outcome in (await callers.outcomes()).values()} == {Unavailable}


async def test_what_is_done_for_many_is_done_in_the_name_of_none(database: GuardedDatabase) -> None:
    together = Together(database)
    database.gate.set()

    async def command(_: UnitOfWork) -> dict[str, object]:
        return dict(structlog.contextvars.get_contextvars())

    with structlog.contextvars.bound_contextvars(request_id="mine"):
        assert await together.run(command, WANTS) == {}
    await together.settle()
