"""What is placed in one transaction with others is what would be placed alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from handlers.accounts.model import Account
from handlers.actor import Actor, Role
from handlers.discounts.model import Discount
from handlers.errors import AppError, Invalid, KeyInFlight, KeyReused, NotFound, OutOfStock
from handlers.events import Cause
from handlers.idempotency import Claim, Reply, answer_once
from handlers.orders import service
from handlers.orders.schemas import OrderBody
from handlers.ports.domain import Quantity, UnitOfWork, Wants
from handlers.products.model import Product
from handlers.rules import Rules
from storage.postgres import Postgres, open_postgres
from tests.database_options import postgres_options
from tests.locks import until_blocked

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
RULES = Rules(low_stock=2)

Outcome: TypeAlias = Reply | AppError


@dataclass(frozen=True)
class Wish:
    """An order of one product, or of what there is no product of."""

    customer: Account
    product: Product
    quantity: int = 1
    key: str | None = None
    code: str | None = None

    @property
    def wants(self) -> Wants:
        return Wants(self.customer.id, self.key, [self.product.id], self.code)

    async def place(self, uow: UnitOfWork) -> Reply:
        claim = Claim.of(self.customer.id, self.key, "/orders", str(self.quantity).encode())

        async def place_it(uow: UnitOfWork) -> Reply:
            actor, items = Actor(self.customer.id, Role.CUSTOMER), [Quantity(self.product.id, self.quantity)]
            order = await service.place(uow, actor, items, Cause(NOW), RULES, discount_code=self.code)
            return Reply(201, order.encode())

        return await answer_once(uow, claim, place_it)


Run: TypeAlias = Callable[[Postgres, Sequence[Wish]], Coroutine[None, None, Sequence[Outcome]]]


async def alone(postgres: Postgres, wishes: Sequence[Wish]) -> Sequence[Outcome]:
    outcomes: list[Outcome] = []
    for wish in wishes:
        try:
            async with postgres.transaction() as uow:
                outcomes.append(await wish.place(uow))
        except AppError as refused:
            outcomes.append(refused)
    return outcomes


async def together(postgres: Postgres, wishes: Sequence[Wish]) -> Sequence[Outcome]:
    outcomes: list[Outcome] = []
    async with postgres.shared_transaction([wish.wants for wish in wishes]) as units:
        for wish, unit in zip(wishes, units, strict=True):
            try:
                async with unit as uow:
                    outcomes.append(await wish.place(uow))
            except AppError as refused:
                outcomes.append(refused)
    return outcomes


@pytest.fixture(params=[alone, together])
def run(request: pytest.FixtureRequest) -> Run:
    way: Run = request.param
    return way


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Postgres]:
    async with open_postgres(postgres_options(postgres_url)) as opened:
        yield opened


@pytest.fixture
async def ada(postgres: Postgres) -> Account:
    account = Account(uuid4(), "ada@example.com", "Ada", Role.CUSTOMER, "$")
    async with postgres.transaction() as uow:
        await uow.accounts.add(account)
    return account


async def a_product(postgres: Postgres, stock: int, product_id: UUID | None = None) -> Product:
    product = Product(product_id or uuid4(), f"SKU-{uuid4()}", "A thing", 1250, "EUR", stock, 1900)
    async with postgres.transaction() as uow:
        await uow.products.add(product)
    return product


async def a_discount(postgres: Postgres, code: str, max_uses: int | None = None) -> Discount:
    discount = Discount(uuid4(), code, 1000, NOW, None, max_uses, 0, 1, NOW, NOW)
    async with postgres.transaction() as uow:
        await uow.discounts.add(discount)
    return discount


async def rows(url: str, query: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def now(postgres: Postgres, product: Product) -> Product:
    async with postgres.read() as uow:
        found = await uow.products.get(product.id)
    assert found is not None
    return found


async def stock_of(postgres: Postgres, product: Product) -> int:
    return (await now(postgres, product)).stock


def numbers(outcomes: Sequence[Outcome]) -> list[int]:
    return [orjson.loads(outcome.body)["number"] for outcome in outcomes if isinstance(outcome, Reply)]


def kinds(outcomes: Sequence[Outcome]) -> list[type]:
    return [type(outcome) for outcome in outcomes]


async def test_a_key_is_good_for_its_account_alone(postgres: Postgres, run: Run, ada: Account) -> None:
    product, bob = await a_product(postgres, 10), Account(uuid4(), "bob@example.com", "Bob", Role.CUSTOMER, "$")
    async with postgres.transaction() as uow:
        await uow.accounts.add(bob)
    [first] = await run(postgres, [Wish(ada, product, key="k")])

    his, again = await run(postgres, [Wish(bob, product, key="k"), Wish(ada, product, key="k")])

    assert isinstance(first, Reply)
    assert isinstance(his, Reply)
    assert (his.replayed, orjson.loads(his.body)["customer_id"]) == (False, str(bob.id))
    assert again == replace(first, replayed=True)


async def test_all_of_each_order_is_written(postgres: Postgres, postgres_url: str, ada: Account, run: Run) -> None:
    mug, pot = await a_product(postgres, 10), await a_product(postgres, 10)
    await a_discount(postgres, "TENTH")

    outcomes = await run(
        postgres,
        [Wish(ada, mug, 2, key="one"), Wish(ada, pot, 3), Wish(ada, mug, 4, key="three", code="TENTH")],
    )

    bodies = [orjson.loads(outcome.body) for outcome in outcomes if isinstance(outcome, Reply)]
    assert [body["total"] for body in bodies] == [2500, 3750, 4500]
    async with postgres.read() as uow:
        for body in bodies:
            order = await uow.orders.get(UUID(body["id"]))
            assert order is not None
            assert OrderBody.of(order).encode() == orjson.dumps(body)
    assert (await stock_of(postgres, mug), await stock_of(postgres, pot)) == (4, 7)
    assert await rows(postgres_url, "SELECT code, uses, version FROM discounts") == [("TENTH", 1, 2)]
    assert await rows(postgres_url, "SELECT sum(orders), sum(total) FROM order_deltas") == [(3, 10_750)]
    assert await rows(postgres_url, "SELECT action, count(*) FROM order_changes GROUP BY 1") == [("place", 3)]
    assert await rows(postgres_url, "SELECT key, status FROM idempotency_answers ORDER BY key") == [
        ("one", 201),
        ("three", 201),
    ]
    told = await rows(postgres_url, "SELECT type, subject FROM outbox ORDER BY id")
    of_orders = [("order.created", body["id"]) for body in bodies]
    assert [event for event in told if event[0] == "order.created"] == of_orders
    assert [event[0] for event in told] == ["order.created", "order.created", "discount.changed", "order.created"]
    assert [(await now(postgres, each)).version for each in (mug, pot)] == [3, 2]
    async with postgres.transaction() as uow:
        untold = {each.id: each for each in await uow.products.take_untold([mug.id, pot.id])}
        assert await uow.products.claim_untold(timedelta()) == []
    assert untold == {each.id: await now(postgres, each) for each in (mug, pot)}


async def test_of_one_that_is_refused_nothing_is_left(
    postgres: Postgres, postgres_url: str, ada: Account, run: Run
) -> None:
    mug, pot = await a_product(postgres, 4), await a_product(postgres, 10)
    await a_discount(postgres, "TENTH", max_uses=1)
    unknown = replace(mug, id=uuid4())

    outcomes = await run(
        postgres,
        [
            Wish(ada, mug, 1, key="a"),
            Wish(ada, mug, 9, key="b", code="TENTH"),
            Wish(ada, unknown, 1, key="c"),
            Wish(ada, pot, 1, key="d", code="TENTH"),
            Wish(ada, pot, 1, key="e", code="TENTH"),
            Wish(ada, mug, 1, key="f"),
            Wish(ada, mug, 3, key="g"),
        ],
    )

    assert kinds(outcomes) == [Reply, OutOfStock, Invalid, Reply, Invalid, Reply, OutOfStock]
    assert (await stock_of(postgres, mug), await stock_of(postgres, pot)) == (2, 9)
    assert await rows(postgres_url, "SELECT uses FROM discounts") == [(1,)]
    assert await rows(postgres_url, "SELECT key FROM idempotency_answers ORDER BY key") == [("a",), ("d",), ("f",)]
    version = "(convert_from(body, 'utf8')::json #>> '{data,version}')::integer"
    told = await rows(postgres_url, f"SELECT subject, {version} FROM outbox WHERE type = 'stock.low'")
    assert told == [(str(mug.id), (await now(postgres, mug)).version)]  # by the one that took it there
    assert await rows(postgres_url, "SELECT DISTINCT product_id FROM stock_changes ORDER BY 1") == [
        (each,) for each in sorted([mug.id, pot.id])
    ]
    assert await rows(postgres_url, "SELECT number FROM orders ORDER BY number") == [
        (number,) for number in sorted(numbers(outcomes))
    ]


async def test_an_answer_is_given_again_and_to_no_other_request(postgres: Postgres, ada: Account, run: Run) -> None:
    mug = await a_product(postgres, 10)
    [first] = await run(postgres, [Wish(ada, mug, 1, key="a")])
    assert isinstance(first, Reply)

    same, other, new = await run(
        postgres, [Wish(ada, mug, 1, key="a"), Wish(ada, mug, 2, key="a"), Wish(ada, mug, 1, key="b")]
    )

    assert same == replace(first, replayed=True)
    # Two that want one key: together, the second is told before it is known what it asks.
    assert type(other) is (KeyReused if run is alone else KeyInFlight)
    assert isinstance(new, Reply)
    assert await stock_of(postgres, mug) == 8


async def test_a_key_that_another_transaction_has_keeps_nobody_waiting(
    postgres: Postgres, ada: Account, run: Run
) -> None:
    mug = await a_product(postgres, 10)

    async with postgres.transaction() as uow:
        await uow.answers.claim(ada.id, "a")
        async with asyncio.timeout(5):
            outcomes = await run(postgres, [Wish(ada, mug, 1, key="a"), Wish(ada, mug, 1, key="b")])

    assert kinds(outcomes) == [KeyInFlight, Reply]


async def test_each_is_given_its_own_answer_however_postgresql_looks_for_them(postgres_url: str) -> None:
    sorting = f"{postgres_url}?enable_nestloop=off&enable_hashjoin=off"
    async with open_postgres(postgres_options(sorting)) as postgres:
        ada = Account(uuid4(), "ada@example.com", "Ada", Role.CUSTOMER, "$")
        async with postgres.transaction() as uow:
            await uow.accounts.add(ada)
        mug = await a_product(postgres, 10)
        wishes = [Wish(ada, mug, key=key) for key in "cabd"]
        placed = await together(postgres, wishes)

        again = await together(postgres, wishes)

    assert kinds(placed) == [Reply] * 4
    assert again == [replace(reply, replayed=True) for reply in placed if isinstance(reply, Reply)]


async def test_who_waited_for_a_product_takes_what_is_left(postgres: Postgres, ada: Account, run: Run) -> None:
    mug = await a_product(postgres, 5)

    async with asyncio.TaskGroup() as tasks, postgres.transaction() as uow:
        await uow.products.take([Quantity(mug.id, 3)])
        waiting = tasks.create_task(run(postgres, [Wish(ada, mug, 1) for _ in range(4)]))
        async with postgres.readers.connection() as connection:
            await until_blocked(connection)

    assert kinds(waiting.result()) == [Reply, Reply, OutOfStock, OutOfStock]
    assert await stock_of(postgres, mug) == 0


@pytest.mark.parametrize("held", range(4))
async def test_what_is_wanted_is_locked_in_one_order(
    postgres: Postgres, postgres_url: str, ada: Account, held: int
) -> None:
    """Products by id, then discounts by code, whichever was there first: else two would wait for each other."""
    pot, mug = [await a_product(postgres, 10, UUID(int=number)) for number in (2, 1)]
    for code in ("ZULU", "ALFA"):
        await a_discount(postgres, code)
    in_order = [f"products WHERE id = '{each.id}'" for each in (mug, pot)]
    in_order += [f"discounts WHERE code = '{code}'" for code in ("ALFA", "ZULU")]

    holder = await asyncpg.connect(postgres_url)
    async with asyncio.TaskGroup() as tasks, holder.transaction():
        await holder.execute(f"SELECT FROM {in_order[held]} FOR UPDATE")
        waiting = tasks.create_task(together(postgres, [Wish(ada, pot, code="ZULU"), Wish(ada, mug, code="ALFA")]))
        async with postgres.readers.connection() as connection:
            await until_blocked(connection)
        for free in in_order[held + 1 :]:
            await holder.execute(f"SELECT FROM {free} FOR UPDATE NOWAIT")
    await holder.close()

    assert kinds(waiting.result()) == [Reply, Reply]


async def test_one_who_is_not_there_undoes_it_for_all(postgres: Postgres, postgres_url: str, ada: Account) -> None:
    """Who then try alone."""
    mug = await a_product(postgres, 10)
    nobody = replace(ada, id=uuid4())

    with pytest.raises(AppError):
        await together(postgres, [Wish(ada, mug, 1), Wish(nobody, mug, 1)])

    assert await stock_of(postgres, mug) == 10
    assert await rows(postgres_url, "SELECT count(*) FROM orders") == [(0,)]


async def test_there_is_no_more_in_it_than_is_wanted(postgres: Postgres, ada: Account) -> None:
    mug = await a_product(postgres, 10)

    async with postgres.shared_transaction([Wish(ada, mug).wants]) as units:
        for unit in units:
            async with unit as uow:
                with pytest.raises(NotImplementedError):
                    await uow.accounts.get(ada.id)
                with pytest.raises(NotFound):
                    await uow.products.take([Quantity(uuid4(), 1)])


async def test_the_bell_rings_for_what_was_told(postgres: Postgres, ada: Account) -> None:
    mug = await a_product(postgres, 1)
    postgres.bell.leads = True

    await together(postgres, [Wish(ada, mug, 2)])
    assert not postgres.bell.here.is_set()
    await together(postgres, [Wish(ada, mug, 1)])
    assert postgres.bell.here.is_set()


async def test_of_a_crowd_as_many_get_it_as_there_are(postgres: Postgres, ada: Account) -> None:
    """Those that share transactions and those that do not, at once."""
    mug, pot = await a_product(postgres, 50), await a_product(postgres, 1000)
    wishes = [Wish(ada, mug if number % 3 else pot, 1, key=f"{number}") for number in range(96)]
    groups = [wishes[begin : begin + 8] for begin in range(0, len(wishes), 8)]

    outcomes = await asyncio.gather(
        *((together if number % 2 else alone)(postgres, group) for number, group in enumerate(groups))
    )

    placed = [kinds(group).count(Reply) for group in outcomes]
    wanted = sum(wish.product is pot for wish in wishes)
    assert sum(placed) == 50 + wanted
    assert (await stock_of(postgres, mug), await stock_of(postgres, pot)) == (0, 1000 - wanted)
    found = [number for group in outcomes for number in numbers(group)]
    assert len(found) == len(set(found))


async def test_no_table_is_read_through_because_it_was_small_when_that_was_planned(postgres_url: str, run: Run) -> None:
    async with open_postgres(postgres_options(postgres_url)) as postgres:
        ada = Account(uuid4(), "ada@example.com", "Ada", Role.CUSTOMER, "$")
        async with postgres.transaction() as uow:
            await uow.accounts.add(ada)
        products = [await a_product(postgres, stock=1000) for _ in range(3)]
        for _ in range(5):
            await run(postgres, [Wish(ada, each, key=str(uuid4())) for each in products * 10])
    written = "SELECT FROM pg_stat_user_tables WHERE relname = 'orders' AND n_tup_ins = 150"
    async with asyncio.timeout(10):
        while not await rows(postgres_url, written):  # noqa: ASYNC110 - sessions say what they did when they end
            await asyncio.sleep(0.01)
    read_through = "SELECT relname FROM pg_stat_user_tables WHERE seq_tup_read > 0 AND relname <> 'deployment'"
    assert await rows(postgres_url, read_through) == []
