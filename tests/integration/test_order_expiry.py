"""Orders that stay unpaid expire: once, whichever nodes look for them, and with their pieces back in the stock."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import orjson
import pytest
from structlog.testing import capture_logs

from handlers.accounts.model import Account
from handlers.actor import Actor, Role
from handlers.clock import utc_now
from handlers.discounts.model import Discount
from handlers.errors import Conflict, Unavailable
from handlers.events import Cause
from handlers.orders import service
from handlers.orders.expiry import MOST_FAILURES, Expiry
from handlers.ports.domain import Quantity
from handlers.products.model import Product
from handlers.rules import Rules
from handlers.work import Work
from storage.postgres import Postgres, open_postgres
from tests.database_options import postgres_options
from tests.doubles import a_product, an_actor

STOCK, ORDERS = 1000, 40
LONG_AGO, RULES = datetime(2026, 1, 31, 9, 30, tzinfo=UTC), Rules(timedelta(hours=1))


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Postgres]:
    async with open_postgres(postgres_options(postgres_url)) as opened:
        yield opened


@pytest.fixture
async def product(postgres: Postgres) -> Product:
    product = a_product(stock=STOCK)
    async with postgres.transaction() as uow:
        await uow.products.add(product)
    return product


@pytest.fixture
async def customer(postgres: Postgres) -> Actor:
    customer = an_actor()
    async with postgres.transaction() as uow:
        await uow.accounts.add(Account(customer.account_id, "ada@example.com", "Ada", Role.CUSTOMER, "hash"))
    return customer


async def place(postgres: Postgres, customer: Actor, product: Product, *, overdue: timedelta) -> None:
    now = utc_now()
    async with postgres.transaction() as uow:
        await service.place(uow, customer, [Quantity(product.id, 3)], Cause(now), Rules(unpaid_for=-overdue))


async def found(postgres: Postgres, statement: str) -> list[tuple[object, ...]]:
    async with postgres.pool.connection() as connection:
        return [tuple(row.values()) for row in await connection.fetch(statement)]


async def test_nodes_that_look_at_once_let_each_order_expire_once(
    postgres: Postgres, customer: Actor, product: Product
) -> None:
    for _ in range(ORDERS):
        await place(postgres, customer, product, overdue=timedelta(seconds=1))
    await place(postgres, customer, product, overdue=timedelta(hours=-1))

    async with Work(postgres) as one, Work(postgres) as other:
        expired = await asyncio.gather(*(Expiry(work, Rules()).expire() for work in (one, other)))

    assert sum(expired) == ORDERS
    assert await found(postgres, "SELECT status, count(*) FROM orders GROUP BY 1 ORDER BY 1") == [
        ("expired", ORDERS),
        ("placed", 1),
    ]
    assert await found(postgres, "SELECT stock FROM products") == [(STOCK - 3,)]
    assert await found(postgres, "SELECT changed_by, count(*) FROM order_changes WHERE version = 2 GROUP BY 1") == [
        ("time", ORDERS)
    ]
    events = [orjson.loads(body) for (body,) in await found(postgres, "SELECT body FROM outbox")]  # type: ignore[arg-type]
    assert Counter(event["type"] for event in events) == {"order.created": ORDERS + 1, "order.expired": ORDERS}
    assert {event["recipient"] for event in events} == {str(customer.account_id)}


async def test_an_order_whose_discount_is_gone_expires_and_keeps_no_other_waiting(
    postgres: Postgres, product: Product, customer: Actor
) -> None:
    async with postgres.transaction() as uow:
        await uow.discounts.add(Discount(uuid4(), "GONE", 1000, LONG_AGO, None, None, 0, 1, LONG_AGO, LONG_AGO))
        for code in ("GONE", None):
            items = [Quantity(product.id, 1)]
            await service.place(uow, customer, items, Cause(LONG_AGO), RULES, discount_code=code)
    async with postgres.pool.connection() as connection:
        await connection.execute("DELETE FROM discounts")

    async with Work(postgres) as work:
        assert await Expiry(work, RULES).expire() == 2


async def test_an_order_that_cannot_expire_keeps_no_other_from_it(
    postgres: Postgres, product: Product, customer: Actor
) -> None:
    await place(postgres, customer, product, overdue=timedelta(seconds=2))
    [[stuck]] = await found(postgres, "SELECT id FROM orders")
    await place(postgres, customer, product, overdue=timedelta(seconds=1))
    async with postgres.pool.connection() as connection:
        await connection.execute(f"ALTER TABLE orders ADD CHECK (status <> 'expired' OR id <> '{stuck}')")

    with capture_logs() as logged:
        async with Work(postgres) as work:
            assert await Expiry(work, RULES).expire() == 1

    assert [each["order"] for each in logged if each["event"] == "expiry_failed"] == [str(stuck)]
    assert await found(postgres, "SELECT id FROM orders WHERE status = 'placed'") == [(stuck,)]


async def test_what_keeps_all_orders_from_expiring_is_told_of_once(
    postgres: Postgres, product: Product, customer: Actor
) -> None:
    for _ in range(MOST_FAILURES + 1):
        await place(postgres, customer, product, overdue=timedelta(seconds=1))
    async with postgres.pool.connection() as connection:
        await connection.execute("ALTER TABLE orders ADD CHECK (status <> 'expired')")

    with capture_logs() as logged, pytest.raises(Conflict):
        async with Work(postgres) as work:
            await Expiry(work, RULES).expire()

    assert [each["event"] for each in logged].count("expiry_failed") == MOST_FAILURES


@pytest.mark.parametrize(("unpaid_for", "draft_for"), [(None, None), (timedelta(1), None), (None, timedelta(1))])
def test_what_never_expires_is_looked_for_all_the_same(
    postgres: Postgres, unpaid_for: timedelta | None, draft_for: timedelta | None
) -> None:
    Expiry(Work(postgres), Rules(unpaid_for, draft_for))


async def test_what_a_dying_node_had_begun_is_done_by_the_next(
    postgres: Postgres, customer: Actor, product: Product
) -> None:
    await place(postgres, customer, product, overdue=timedelta(seconds=1))

    async def die() -> None:
        async with postgres.transaction() as uow:
            assert await service.expire_next(uow, Cause(utc_now()), set())
            uow.orders.connection.terminate()

    with pytest.raises(Unavailable):
        await die()
    # Waits: a moment passes until PostgreSQL notices that nobody is there any more, and gives the order free.
    assert await found(postgres, "SELECT status FROM orders FOR UPDATE") == [("placed",)]
    async with Work(postgres) as work:
        assert await Expiry(work, Rules()).expire() == 1

    assert await found(postgres, "SELECT stock FROM products") == [(STOCK,)]
    assert await found(postgres, "SELECT type, count(*) FROM outbox GROUP BY 1 ORDER BY 1") == [
        ("order.created", 1),
        ("order.expired", 1),
    ]


async def test_a_discount_that_was_made_anew_holds_up_no_order(
    postgres: Postgres, customer: Actor, product: Product
) -> None:
    now, items = utc_now(), [Quantity(product.id, 1)]
    discount = Discount(uuid4(), "SPRING", 1000, now, None, None, 0, 1, now, now)
    async with postgres.transaction() as uow:
        await uow.discounts.add(discount)
        await service.place(
            uow, customer, items, Cause(now), Rules(unpaid_for=timedelta(seconds=-2)), discount_code="SPRING"
        )
    await place(postgres, customer, product, overdue=timedelta(seconds=1))
    async with postgres.pool.connection() as connection:  # as an operator would, for the code of last year
        await connection.execute("DELETE FROM discounts")
    async with postgres.transaction() as uow:
        await uow.discounts.add(Discount(uuid4(), "SPRING", 500, now, None, None, 0, 1, now, now))

    async with Work(postgres) as work:
        assert await Expiry(work, Rules()).expire() == 2
    assert await found(postgres, "SELECT uses FROM discounts") == [(0,)]
