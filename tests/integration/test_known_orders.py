"""Lists read only the orders that are not known yet, and show none that was never so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest

from handlers.accounts.model import Account
from handlers.actor import Actor, Role
from handlers.errors import KeyInFlight
from handlers.orders.lists import OrderFilter, OrderSort
from handlers.orders.model import Action, Address, By, Change, Line, Order, Status
from handlers.ports.domain import UnitOfWork, Wants
from handlers.products.model import Product
from storage.known_orders import SIZE, KnownOrders, State
from storage.orders import SQL, PostgresOrders
from storage.postgres import Postgres, open_postgres
from tests.database_options import postgres_options

if TYPE_CHECKING:
    from storage.pool import PooledConnection

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
NEWEST = OrderSort.NEWEST
PLACED = OrderFilter(statuses=frozenset({Status.PLACED}))


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Postgres]:
    async with open_postgres(postgres_options(postgres_url)) as opened:
        yield opened


@pytest.fixture
async def customer(postgres: Postgres) -> Account:
    account = Account(uuid4(), "ada@example.com", "Ada", Role.CUSTOMER, "$")
    async with postgres.transaction() as unit:
        await unit.accounts.add(account)
    return account


@pytest.fixture
async def product(postgres: Postgres) -> Product:
    mug = Product(uuid4(), "MUG", "Mug", 1250, "EUR", 1000)
    async with postgres.transaction() as unit:
        await unit.products.add(mug)
    return mug


def order_of(customer: Account, product: Product, minute: int = 0) -> Order:
    lines = (Line(product.id, product.sku, product.name, product.price, 2, 1900, 250), _line_of(product))
    at = NOW + timedelta(minutes=minute, microseconds=7)
    return Order(
        id=uuid4(),
        number=0,
        customer_id=customer.id,
        status=Status.PLACED,
        version=1,
        currency="EUR",
        lines=lines,
        created_at=at,
        updated_at=at,
        expires_at=at + timedelta(hours=1),
        address=Address("Ada", "Mill Lane 3", None, None, "Łódź", None, "PL"),
        note="Second door 🚪",
        discount_code="TENTH",
        tax_included=False,
    )


def _line_of(product: Product) -> Line:
    return Line(product.id, product.sku, product.name, product.price, 1)


async def place(unit: UnitOfWork, order: Order) -> Order:
    return await unit.orders.add(order, Change.of(order, Action.PLACE, Actor(order.customer_id, Role.CUSTOMER)))


async def pay(unit: UnitOfWork, order_id: UUID, at: datetime = NOW) -> Order:
    order = await unit.orders.lock(order_id)
    assert order is not None
    paid = order.after(Action.PAY, at)
    await unit.orders.save(paid, Change.of(paid, Action.PAY, By.PROVIDER))
    return paid


class _Watched:
    """A connection that notes which orders are read, and on which something happens behind the first statement."""

    def __init__(self, connection: PooledConnection, happen: Callable[[], Awaitable[object]] | None = None) -> None:
        self.read: list[UUID] = []
        self._connection = connection
        self._happen = happen

    def is_in_transaction(self) -> bool:
        return self._connection.is_in_transaction()

    async def fetch(self, query: str, *arguments: Any) -> object:
        found = await self._connection.fetch(query, *arguments)
        if query == SQL["get_all"]:
            self.read += arguments[0]
        if self._happen is not None:
            happen, self._happen = self._happen, None
            await happen()
        return found


async def listed(
    postgres: Postgres,
    which: OrderFilter = PLACED,
    happen: Callable[[], Awaitable[object]] | None = None,
    *,
    limit: int = 50,
) -> tuple[list[Order], list[UUID]]:
    """The list, and those of its orders that were read."""
    async with postgres.readers.connection() as connection:
        watched = _Watched(connection, happen)
        orders = PostgresOrders(cast("PooledConnection", watched), postgres.known_orders)
        page = await orders.page_with("orders:feed", which, NEWEST, after=NEWEST.begin, limit=limit)
    return list(page.state), watched.read


async def test_what_is_placed_here_is_known_as_another_node_reads_it(
    postgres: Postgres, postgres_url: str, customer: Account, product: Product
) -> None:
    async with postgres.transaction() as unit:
        alone = await place(unit, order_of(customer, product))
    wants = Wants(customer.id, None, [product.id], None)
    async with postgres.shared_transaction([wants, wants]) as units:
        for minute, each in enumerate(units, 1):
            async with each as uow:
                await place(uow, order_of(customer, product, minute))

    known, read = await listed(postgres)
    assert read == []
    async with open_postgres(postgres_options(postgres_url)) as another_node:
        assert await listed(another_node) == (known, [order.id for order in known])
        assert await listed(another_node) == (known, [])
    assert len(known) == 3
    assert known[-1] == alone


async def test_only_what_has_changed_is_read_again(postgres: Postgres, customer: Account, product: Product) -> None:
    async with postgres.transaction() as unit:
        placed = [await place(unit, order_of(customer, product, minute)) for minute in range(3)]
    async with postgres.transaction() as unit:
        paid = await pay(unit, placed[1].id)

    assert await listed(postgres, OrderFilter()) == ([placed[2], paid, placed[0]], [paid.id])
    assert await listed(postgres, OrderFilter()) == ([placed[2], paid, placed[0]], [])


async def test_what_was_never_committed_is_not_known(postgres: Postgres, customer: Account, product: Product) -> None:
    async with postgres.transaction() as unit:
        placed = await place(unit, order_of(customer, product))

    async def change_both(unit: UnitOfWork) -> None:
        await place(unit, order_of(customer, product, 1))
        await pay(unit, placed.id)
        page = await unit.orders.page_with("-", OrderFilter(), NEWEST, after=NEWEST.begin, limit=50)
        assert [order.status for order in page.state] == [Status.PLACED, Status.PAID]
        raise KeyInFlight

    with pytest.raises(KeyInFlight):
        async with postgres.transaction() as unit:
            await change_both(unit)
    async with postgres.transaction() as unit:  # the same version at the same time
        noted = replace(placed, version=2, updated_at=NOW, note="Ring twice")
        await unit.orders.edit(noted, Change.of(noted, Action.EDIT, By.TIME))

    assert await listed(postgres, OrderFilter()) == ([noted], [noted.id])


async def test_what_changes_while_it_is_listed_is_listed_as_it_is_then_or_not_at_all(
    postgres: Postgres, postgres_url: str, customer: Account, product: Product
) -> None:
    async with postgres.transaction() as unit:
        placed = [await place(unit, order_of(customer, product, minute)) for minute in range(3)]

    async def happen() -> None:
        async with postgres.transaction() as unit:
            await pay(unit, placed[1].id)

    async with open_postgres(postgres_options(postgres_url)) as another_node:
        shown, read = await listed(another_node, happen=happen, limit=2)
    assert shown == [placed[2], placed[0]]
    assert read == [order.id for order in reversed(placed)]


class _Restless(_Watched):
    """Something happens behind each statement."""

    def __init__(self, connection: PooledConnection, happen: Callable[[], Awaitable[object]]) -> None:
        super().__init__(connection)
        self._each_time = happen

    async def execute(self, query: str) -> object:
        return await self._connection.execute(query)

    async def fetch(self, query: str, *arguments: Any) -> object:
        found = await super().fetch(query, *arguments)
        await self._each_time()
        return found


async def test_what_changes_all_the_time_is_listed(postgres: Postgres, customer: Account, product: Product) -> None:
    async with postgres.transaction() as unit:
        placed = await place(unit, order_of(customer, product))
    noted = [placed]

    async def happen() -> None:
        before = noted[-1]
        noted.append(before.edited(before.address, f"Ring {before.version} times", NOW))
        async with postgres.transaction() as unit:
            await unit.orders.edit(noted[-1], Change.of(noted[-1], Action.EDIT, By.TIME))

    await happen()
    async with postgres.readers.connection() as connection:
        orders = PostgresOrders(cast("PooledConnection", _Restless(connection, happen)), postgres.known_orders)
        page = await orders.page_with("-", OrderFilter(), NEWEST, after=NEWEST.begin, limit=50)
    [shown] = page.state
    assert shown in noted


def test_those_that_nobody_has_wanted_for_longest_are_forgotten() -> None:
    ada = Account(uuid4(), "ada@example.com", "Ada", Role.CUSTOMER, "$")
    mug = Product(uuid4(), "MUG", "Mug", 1250, "EUR", 1000)
    first, second, *others = (order_of(ada, mug, minute) for minute in range(SIZE + 1))
    known = KnownOrders()
    for order in (first, second, *others[:-1]):
        known.add(order)
    states = [State.of(first), State.of(second)]
    assert known.find(states[:1]) == [first]

    known.add(others[-1])
    assert known.find(states) == [first, None]
