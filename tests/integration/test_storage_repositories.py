"""The domain's database over real PostgreSQL, through its ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import asyncpg
import pytest

from handlers.accounts.model import Account
from handlers.actor import Actor, Role
from handlers.errors import Conflict, KeyInFlight, NotFound, OutOfStock, Unavailable
from handlers.events import SOURCE, Cause, Event
from handlers.orders.lists import OrderFilter, OrderSort
from handlers.orders.model import Action, By, Change, Line, Order, Status
from handlers.payments.ledger import new_payment
from handlers.payments.model import PaymentStatus
from handlers.ports.domain import Answer, Database, Position, Quantity, Snapshot, UnitOfWork
from handlers.ports.streams import Entry
from handlers.products.model import Product
from storage.known_orders import KnownOrders
from storage.orders import PostgresOrders
from storage.postgres import Postgres, open_postgres
from storage.streams import StreamsOptions, open_streams
from tests.database_options import postgres_options
from tests.locks import until_blocked

if TYPE_CHECKING:
    from storage.pool import Connection

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Postgres]:
    async with open_postgres(postgres_options(postgres_url)) as opened:
        yield opened


@pytest.fixture
def database(postgres: Postgres) -> Database:
    return postgres


@pytest.fixture
async def customer(database: Database) -> Account:
    account = Account(uuid4(), "ada@example.com", "Ada", Role.CUSTOMER, "$argon2id$v=19$...")
    async with database.transaction() as unit:
        await unit.accounts.add(account)
    return account


async def stocked(database: Database, *stocks: int) -> list[Product]:
    products = [Product(uuid4(), f"SKU-{n}", f"Product {n}", 1250, "EUR", stock) for n, stock in enumerate(stocks)]
    async with database.transaction() as unit:
        for product in products:
            await unit.products.add(product)
    return products


async def stock_of(database: Database, product: Product) -> int:
    async with database.read() as unit:
        found = await unit.products.get(product.id)
    assert found is not None
    return found.stock


def order_of(customer: Account, *products: Product) -> Order:
    lines = tuple(Line(product.id, product.sku, product.name, product.price, 1) for product in products)
    return Order(uuid4(), 0, customer.id, Status.PLACED, 1, "EUR", lines, NOW, NOW)


async def placed_by(unit: UnitOfWork, order: Order) -> Order:
    customer = Actor(order.customer_id, Role.CUSTOMER)
    return await unit.orders.add(order, Change.of(order, Action.PLACE, customer))


def created(order: Order) -> Event:
    return Event(str(uuid4()), SOURCE, "order.created", str(order.id), NOW, {"version": order.version})


async def buy(unit: UnitOfWork, customer: Account, product: Product) -> Order:
    await unit.products.take([Quantity(product.id, 1)])
    order = await placed_by(unit, order_of(customer, product))
    await unit.outbox.add(created(order))
    return order


async def test_a_hundred_buyers_of_the_last_ten_pieces_make_ten_orders(database: Database, customer: Account) -> None:
    [product] = await stocked(database, 10)

    async def buyer() -> Order | OutOfStock:
        try:
            async with database.transaction() as unit:
                return await buy(unit, customer, product)
        except OutOfStock as sold_out:
            return sold_out

    outcomes = await asyncio.gather(*(buyer() for _ in range(100)))

    orders = [outcome for outcome in outcomes if isinstance(outcome, Order)]
    assert len(orders) == 10
    assert len({order.number for order in orders}) == 10
    assert await stock_of(database, product) == 0
    async with database.read() as unit:
        assert await unit.orders.count(OrderFilter()) == 10


async def test_buyers_of_the_same_products_in_any_order_never_deadlock(database: Database) -> None:
    products = await stocked(database, 1000, 1000, 1000)

    async def buyer(n: int) -> None:
        wanted = products[n % 3 :] + products[: n % 3]
        async with database.transaction() as unit:
            await unit.products.take([Quantity(product.id, 1) for product in wanted])
        async with database.transaction() as unit:
            await unit.products.give_back([Quantity(product.id, 1) for product in reversed(wanted)])

    await asyncio.gather(*(buyer(n) for n in range(60)))

    assert [await stock_of(database, product) for product in products] == [1000, 1000, 1000]


async def test_taken_products_come_back_in_the_order_asked_for_with_what_is_left(database: Database) -> None:
    first, second = await stocked(database, 5, 7)

    async with database.transaction() as unit:
        taken = await unit.products.take([Quantity(second.id, 3), Quantity(first.id, 1)])

    assert list(taken) == [replace(second, stock=4, version=2), replace(first, stock=4, version=2)]
    assert [await stock_of(database, product) for product in (first, second)] == [4, 4]


async def test_each_item_that_is_short_has_its_own_fault_and_nothing_is_taken(database: Database) -> None:
    plenty, few, none = await stocked(database, 50, 2, 0)
    wanted = [Quantity(few.id, 3), Quantity(plenty.id, 1), Quantity(none.id, 2**40)]

    with pytest.raises(OutOfStock) as raised:
        async with database.transaction() as unit:
            await unit.products.take(wanted)

    assert [(fault.pointer, fault.code) for fault in raised.value.faults] == [
        ("/items/0", "out_of_stock"),
        ("/items/2", "out_of_stock"),
    ]
    assert [await stock_of(database, product) for product in (plenty, few, none)] == [50, 2, 0]


async def test_an_unknown_product_is_named_by_its_item(database: Database) -> None:
    [product] = await stocked(database, 5)

    with pytest.raises(NotFound) as raised:
        async with database.transaction() as unit:
            await unit.products.take([Quantity(product.id, 1), Quantity(uuid4(), 1)])

    assert [fault.pointer for fault in raised.value.faults] == ["/items/1"]
    assert await stock_of(database, product) == 5


async def test_products_are_paged_in_order_of_sku(database: Database) -> None:
    products = await stocked(database, 1, 2, 3)

    async with database.read() as unit:
        assert list(await unit.products.page(after_sku="", limit=2)) == products[:2]
        assert list(await unit.products.page(after_sku="SKU-1", limit=2)) == products[2:]


async def test_an_order_comes_back_as_it_was_placed_with_its_number(database: Database, customer: Account) -> None:
    products = await stocked(database, 5, 5)
    order = order_of(customer, *products)

    async with database.transaction() as unit:
        placed = await placed_by(unit, order)

    assert placed == replace(order, number=placed.number)
    async with database.read() as unit:
        assert await unit.orders.get(order.id) == placed
        assert await unit.orders.owner_of(order.id) == customer.id
        assert await unit.orders.get(uuid4()) is None
        assert await unit.orders.owner_of(uuid4()) is None


async def test_a_saved_order_has_its_new_status_version_and_time(database: Database, customer: Account) -> None:
    async with database.transaction() as unit:
        placed = await placed_by(unit, order_of(customer, *(await stocked(database, 1))))

    async with database.transaction() as unit:
        locked = await unit.orders.lock(placed.id)
        assert locked == placed
        assert await unit.orders.lock(uuid4()) is None
        later = NOW + timedelta(hours=1)
        paid = replace(placed, status=Status.PAID, version=2, updated_at=later)
        await unit.orders.save(paid, Change.of(paid, Action.PAY, Actor(customer.id, Role.STAFF)))

    async with database.read() as unit:
        assert await unit.orders.get(placed.id) == paid
        assert list(await unit.orders.changes(placed.id, after=0, limit=100)) == [
            Change(1, Action.PLACE, Status.PLACED, NOW, By.CUSTOMER, customer.id),
            Change(2, Action.PAY, Status.PAID, later, By.STAFF, customer.id),
        ]


async def test_what_is_due_is_locked_by_one_transaction_each_the_longest_overdue_first(
    database: Database, customer: Account
) -> None:
    product, *_ = await stocked(database, 9)
    ends = [None, NOW + timedelta(hours=2), NOW + timedelta(hours=1), NOW + timedelta(hours=3)]
    async with database.transaction() as unit:
        placed = [await placed_by(unit, replace(order_of(customer, product), expires_at=end)) for end in ends]
    now = NOW + timedelta(hours=2)

    async with database.transaction() as one, database.transaction() as two, database.transaction() as three:
        assert await one.orders.lock_due(now, but=set()) == placed[2]
        assert await two.orders.lock_due(now, but=set()) == placed[1]
        assert await three.orders.lock_due(now, but=set()) is None


async def test_an_order_that_is_paid_while_it_is_looked_at_is_not_due(database: Database, customer: Account) -> None:
    product, *_ = await stocked(database, 9)
    async with database.transaction() as unit:
        placed = await placed_by(unit, replace(order_of(customer, product), expires_at=NOW))
    paid = placed.after(Action.PAY, NOW)

    async with database.transaction() as unit, database.transaction() as payer:
        await payer.orders.lock(placed.id)
        await payer.orders.save(paid, Change.of(paid, Action.PAY, By.TIME))
        assert await unit.orders.lock_due(NOW, but=set()) is None  # somebody else's
    async with database.transaction() as unit:
        assert await unit.orders.lock_due(NOW, but=set()) is None


class _Interrupted:
    """A connection on which something happens right behind the first statement, too late for what that sees."""

    def __init__(self, connection: Any, happen: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._happenings = [happen]

    async def fetchval(self, query: str, *arguments: object) -> object:
        found = await self._connection.fetchval(query, *arguments)
        while self._happenings:
            await self._happenings.pop()()
        return found

    async def fetch(self, query: str, *arguments: object) -> object:
        return await self._connection.fetch(query, *arguments)


async def test_an_order_whose_payment_begins_while_it_is_looked_for_is_not_due(
    postgres: Postgres, customer: Account
) -> None:
    product, *_ = await stocked(postgres, 9)
    async with postgres.transaction() as unit:
        ends = (NOW, NOW + timedelta(hours=1))
        paid, unpaid = [await placed_by(unit, replace(order_of(customer, product), expires_at=end)) for end in ends]

    async def begin_payment() -> None:
        payment = new_payment(paid, "sandbox", Cause(NOW))
        async with postgres.transaction() as payer:
            await payer.payments.add(replace(payment, status=PaymentStatus.PROCESSING))

    async with postgres.transaction() as unit:
        orders = PostgresOrders(cast("Connection", _Interrupted(unit.orders.connection, begin_payment)), KnownOrders())
        assert await orders.lock_due(NOW + timedelta(hours=2), but=set()) == unpaid


async def test_a_locked_order_is_seen_by_the_next_who_locks_it_as_it_was_left(
    database: Database, customer: Account
) -> None:
    async with database.transaction() as unit:
        placed = await placed_by(unit, order_of(customer, *(await stocked(database, 1))))

    async def advance() -> None:
        async with database.transaction() as unit:
            locked = await unit.orders.lock(placed.id)
            assert locked is not None
            later = replace(locked, version=locked.version + 1)
            await unit.orders.save(later, Change.of(later, Action.PAY, By.TIME))

    await asyncio.gather(*(advance() for _ in range(20)))

    async with database.read() as unit:
        found = await unit.orders.get(placed.id)
    assert found is not None
    assert found.version == 21


@pytest.mark.parametrize("is_due", [False, True])
async def test_who_waited_for_a_draft_sees_what_is_in_it_now(
    postgres: Postgres, database: Database, customer: Account, *, is_due: bool
) -> None:
    mug, pot = await stocked(database, 9, 9)
    draft = replace(order_of(customer, mug), status=Status.DRAFT, expires_at=NOW)
    async with database.transaction() as unit:
        draft = await placed_by(unit, draft)
    lines = tuple(Line(product.id, product.sku, product.name, 99, 2) for product in (pot, mug))
    changed = replace(draft, lines=lines, version=2)

    async def wait() -> Order | None:
        async with database.transaction() as unit:
            return await unit.orders.lock(draft.id)

    async with asyncio.TaskGroup() as tasks, database.transaction() as unit:
        await (unit.orders.lock_due(NOW, but=set()) if is_due else unit.orders.lock(draft.id))
        waiting = tasks.create_task(wait())
        async with postgres.readers.connection() as connection:
            await until_blocked(connection)
        await unit.orders.redraft(changed, Change.of(changed, Action.EDIT, By.TIME))
        assert not waiting.done()

    assert waiting.result() == changed


async def test_an_account_is_found_by_id_and_address_and_its_address_is_unique(
    database: Database, customer: Account
) -> None:
    async with database.read() as unit:
        assert await unit.accounts.get(customer.id) == customer
        assert await unit.accounts.by_email("ada@example.com") == customer
        assert await unit.accounts.by_email("nobody@example.com") is None

    with pytest.raises(Conflict, match="e-mail"):
        async with database.transaction() as unit:
            await unit.accounts.add(replace(customer, id=uuid4()))


async def test_a_sku_is_unique(database: Database) -> None:
    [product] = await stocked(database, 1)

    with pytest.raises(Conflict, match="SKU"):
        async with database.transaction() as unit:
            await unit.products.add(replace(product, id=uuid4()))


async def test_a_kept_answer_is_given_to_whoever_claims_its_key_again(database: Database, customer: Account) -> None:
    answer = Answer(b"fingerprint", 201, b'{"number":1}')
    async with database.transaction() as unit:
        assert await unit.answers.claim(customer.id, "key") is None
        await unit.answers.keep(customer.id, "key", answer)

    async with database.transaction() as unit:
        assert await unit.answers.claim(customer.id, "key") == answer
        assert await unit.answers.claim(customer.id, "another key") is None
        assert await unit.answers.claim(uuid4(), "key") is None


async def test_a_key_in_use_is_refused_at_once_and_free_after_a_rollback(database: Database, customer: Account) -> None:
    async def claim() -> Answer | None:
        async with database.transaction() as unit:
            return await unit.answers.claim(customer.id, "key")

    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with database.transaction() as unit:
            await unit.answers.claim(customer.id, "key")
            with pytest.raises(KeyInFlight):
                await claim()
            raise ZeroDivisionError

    assert await claim() is None


async def test_of_many_requests_with_one_key_one_acts_and_the_others_replay_or_are_refused(
    database: Database, customer: Account
) -> None:
    [product] = await stocked(database, 100)

    async def place() -> UUID | bytes | None:
        try:
            async with database.transaction() as unit:
                if kept := await unit.answers.claim(customer.id, "key"):
                    return kept.body
                order = await buy(unit, customer, product)
                await unit.answers.keep(customer.id, "key", Answer(b"f", 201, order.id.bytes))
                return order.id
        except KeyInFlight:
            return None

    outcomes = await asyncio.gather(*(place() for _ in range(50)))

    [order_id] = [outcome for outcome in outcomes if isinstance(outcome, UUID)]
    assert {outcome for outcome in outcomes if isinstance(outcome, bytes)} <= {order_id.bytes}
    assert await stock_of(database, product) == 99


async def test_the_bell_rings_after_a_commit_with_events_only(postgres: Postgres, customer: Account) -> None:
    [product] = await stocked(postgres, 9)
    postgres.bell.leads = True
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with postgres.transaction() as unit:
            await buy(unit, customer, product)
            raise ZeroDivisionError
    async with postgres.transaction() as unit:
        await unit.products.take([Quantity(product.id, 1)])
    assert not postgres.bell.here.is_set()

    async with postgres.transaction() as unit:
        await buy(unit, customer, product)
        assert not postgres.bell.here.is_set()

    assert postgres.bell.here.is_set()


async def test_the_position_of_a_stream_is_its_head(database: Database, postgres_url: str) -> None:
    async with open_streams(StreamsOptions(postgres_url)) as streams:
        [_, last] = (await streams.append([Entry("orders:feed", "/", str(n), b"{}", 0) for n in range(2)])).values()

    async with database.read() as unit:
        assert await unit.positions.position("orders:feed") == Position(2, last.epoch)
        assert await unit.positions.position("order:1") == Position(0, "")


async def test_orders_come_with_the_head_of_a_stream(database: Database, customer: Account, postgres_url: str) -> None:
    [product] = await stocked(database, 9)
    async with database.transaction() as unit:
        placed = await placed_by(unit, order_of(customer, product, product))
    async with open_streams(StreamsOptions(postgres_url)) as streams:
        [head] = (await streams.append([Entry("orders:feed", "/", "1", b"{}", 0)])).values()
    written, never = Position(1, head.epoch), Position(0, "")
    newest = OrderSort.NEWEST

    async with database.read() as unit:
        for channel, position in (("orders:feed", written), ("order:1", never)):
            assert await unit.orders.get_with(channel, placed.id) == Snapshot(placed, channel, position)
            assert await unit.orders.get_with(channel, uuid4()) == Snapshot(None, channel, position)
            for which, found in ((OrderFilter(), [placed]), (OrderFilter(customer_id=uuid4()), [])):
                page = await unit.orders.page_with(channel, which, newest, after=newest.begin, limit=9)
                assert page == Snapshot(found, channel, position)


@pytest.mark.parametrize(("sku", "name"), [("", "A thing"), ("S" * 65, "A thing"), ("S", ""), ("S", "N" * 201)])
async def test_no_product_has_texts_that_are_empty_or_too_long(postgres: Postgres, sku: str, name: str) -> None:
    with pytest.raises(Conflict):
        async with postgres.pool.connection() as connection:
            await connection.execute("INSERT INTO products VALUES (gen_random_uuid(), $1, $2, 1, 'EUR', 1)", sku, name)


async def test_waiting_for_a_connection_is_bounded(postgres_url: str) -> None:
    async with (
        open_postgres(postgres_options(postgres_url, read_pool_size=1, acquire_timeout=1.0)) as postgres,
        postgres.read(),
    ):
        with pytest.raises(Unavailable):
            async with postgres.read():
                pass


async def test_a_unit_of_work_that_takes_too_long_is_given_up_and_its_connection_replaced(postgres_url: str) -> None:
    async with open_postgres(postgres_options(postgres_url, pool_size=1, deadline=30.0)) as postgres:
        with pytest.raises(Unavailable):
            async with postgres.pool.connection(deadline=0.5) as connection:
                await connection.execute("SELECT pg_sleep(20)")
        async with postgres.read() as unit:
            assert await unit.products.page(after_sku="", limit=1) == []


@pytest.mark.parametrize("begin", [Postgres.read, Postgres.look_up])
async def test_what_reads_cannot_write(
    postgres: Postgres, customer: Account, begin: Callable[[Postgres], AbstractAsyncContextManager[UnitOfWork]]
) -> None:
    with pytest.raises(Unavailable) as refused:  # as by a standby
        async with begin(postgres) as unit:
            await unit.accounts.add(replace(customer, id=uuid4(), email="eve@example.com"))
    assert isinstance(refused.value.__cause__, asyncpg.ReadOnlySQLTransactionError)


async def test_what_is_looked_up_is_planned_once_and_what_is_listed_each_time(postgres_url: str) -> None:
    newest = OrderSort.NEWEST
    counted = """SELECT sum(generic_plans)::int AS once, sum(custom_plans)::int AS anew
        FROM pg_prepared_statements WHERE statement LIKE '%orders%' AND cardinality(parameter_types) > 0"""
    plans: list[tuple[int, ...]] = []

    async with open_postgres(postgres_options(postgres_url, read_pool_size=1)) as postgres:
        for _ in range(7):  # left alone, PostgreSQL would change its mind after five
            async with postgres.look_up() as unit:
                await unit.orders.get(uuid4())
            async with postgres.read() as unit:
                await unit.orders.page_with("-", OrderFilter(), newest, after=newest.begin, limit=1)
        for pool in (postgres.lookups, postgres.readers):
            async with pool.connection() as connection:
                plans += map(tuple, await connection.fetch(counted))

    assert plans == [(7, 0), (0, 7)]


async def test_a_cancelled_request_leaves_the_pool_usable(postgres_url: str) -> None:
    started = asyncio.Event()

    async def slow(postgres: Postgres) -> None:
        async with postgres.pool.connection() as connection:
            started.set()
            await connection.execute("SELECT pg_sleep(20)")

    async with open_postgres(postgres_options(postgres_url, pool_size=1)) as postgres:
        request = asyncio.create_task(slow(postgres))
        await started.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        async with postgres.read() as unit:
            assert await unit.products.page(after_sku="", limit=1) == []


@pytest.mark.parametrize("setting", ["statement_timeout", "idle_in_transaction_session_timeout"])
async def test_the_server_too_stops_a_statement_or_a_transaction_at_the_deadline(
    postgres_url: str, setting: str
) -> None:
    async with open_postgres(postgres_options(postgres_url, deadline=2.5)) as postgres:
        for pool, expected in ((postgres.pool, "2500ms"), (postgres.reserve, "800ms")):
            async with pool.connection() as connection:
                assert await connection.fetchval(f"SHOW {setting}") == expected


async def test_the_server_soon_notices_that_the_host_of_a_client_is_gone(postgres: Postgres) -> None:
    async with postgres.pool.connection() as connection:
        asked = [await connection.fetchval(f"SHOW tcp_keepalives_{each}") for each in ("idle", "interval", "count")]
    assert asked == ["5", "2", "3"]


async def test_a_statement_that_nobody_waits_for_any_more_ends_in_the_server_too(postgres_url: str) -> None:
    async with open_postgres(postgres_options(postgres_url, deadline=30.0)) as postgres:  # of which it does not end
        with pytest.raises(Unavailable):
            async with postgres.pool.connection(deadline=0.5) as connection:
                await connection.execute("SELECT pg_sleep(20)")
        async with postgres.pool.connection(deadline=5.0) as connection:
            while await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
            ):
                pass


async def test_a_connection_that_the_server_ended_is_replaced_before_anybody_gets_it(postgres_url: str) -> None:
    async with open_postgres(postgres_options(postgres_url)) as postgres:
        async with postgres.pool.connection() as first, postgres.pool.connection() as second:
            victim = await first.fetchval("SELECT pg_backend_pid()")
            await second.execute("SELECT pg_terminate_backend($1, 5000)", victim)
        for _ in range(3):
            async with postgres.read() as unit:
                assert await unit.products.page(after_sku="", limit=1) == []


async def test_a_bug_is_not_mistaken_for_an_outage(postgres: Postgres) -> None:
    with pytest.raises(asyncpg.UndefinedColumnError):
        async with postgres.pool.connection() as connection:
            await connection.execute("SELECT no_such_column FROM orders")
