"""The domain's database: pool, unit of work, repositories."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from handlers.ports.domain import UnitOfWork, Wants
from storage.accounts import PostgresAccounts
from storage.answers import PostgresAnswers
from storage.discounts import PostgresDiscounts
from storage.known_orders import KnownOrders
from storage.orders import PostgresOrders
from storage.outbox import Bell, OutboxWriter
from storage.payments import PostgresPayments
from storage.pool import Pool, PoolOptions, in_transaction, open_pool
from storage.positions import PostgresPositions
from storage.products import PostgresProducts
from storage.shared import SharedTransaction
from storage.stats import PostgresStats

if TYPE_CHECKING:
    from storage.pool import Connection


# What is found by keys has one good plan, and to make it anew takes longer than to follow it, for an order four times
# as long. Left alone, PostgreSQL guesses too many rows of arrays, finds plans for values cheaper, and plans each
# `change_stock` anew. And a plan made while a table was small would read all of it, however large it has become.
_PLANNED_ONCE: Final = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}

RESERVE_DEADLINE = 0.8  # seconds; a health check is given one, a balancer waits two


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """Times are seconds. A unit of work that takes longer than `deadline`, waiting for a connection included,
    is given up: PostgreSQL that hangs must not hang requests."""

    url: str = field(repr=False)
    pool_size: int
    read_pool_size: int
    acquire_timeout: float
    deadline: float


@dataclass(frozen=True, slots=True)
class PostgresUnitOfWork:
    accounts: PostgresAccounts
    products: PostgresProducts
    discounts: PostgresDiscounts
    orders: PostgresOrders
    payments: PostgresPayments
    stats: PostgresStats
    answers: PostgresAnswers
    outbox: OutboxWriter
    positions: PostgresPositions

    @classmethod
    def on(cls, connection: Connection, known: KnownOrders) -> PostgresUnitOfWork:
        return cls(
            PostgresAccounts(connection),
            PostgresProducts(connection),
            PostgresDiscounts(connection),
            PostgresOrders(connection, known),
            PostgresPayments(connection),
            PostgresStats(connection),
            PostgresAnswers(connection),
            OutboxWriter(connection),
            PostgresPositions(connection),
        )


@dataclass(frozen=True, slots=True)
class Postgres:
    """`pool` also serves other parts of storage, `readers` and `lookups` queries alone, so that however many dashboards
    there are, orders are placed; `reserve` what must be answered while requests have all of it: one connection, for
    uses of a few milliseconds. `bell` rings after each commit that emitted events."""

    pool: Pool
    readers: Pool
    lookups: Pool
    reserve: Pool
    bell: Bell
    known_orders: KnownOrders

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresUnitOfWork]:
        """Also raises Unavailable when the connection is lost while committing: then nobody knows the outcome."""
        async with self._committing() as connection:
            unit = PostgresUnitOfWork.on(connection, self.known_orders)
            yield unit
            await unit.outbox.write()
        if unit.outbox.rows:
            self.bell.ring()

    @asynccontextmanager
    async def shared_transaction(
        self, wanted: Sequence[Wants]
    ) -> AsyncIterator[Iterable[AbstractAsyncContextManager[UnitOfWork]]]:
        """Also raises Unavailable as `transaction` does."""
        async with self._committing() as connection:
            shared = await SharedTransaction.begin(connection, wanted, self.known_orders)
            yield shared.units()
            has_emitted = await shared.write()
        if has_emitted:
            self.bell.ring()

    @asynccontextmanager
    async def _committing(self) -> AsyncIterator[Connection]:
        async with self.pool.connection() as connection, in_transaction(connection):
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[PostgresUnitOfWork]:
        async with self.readers.connection() as connection:
            yield PostgresUnitOfWork.on(connection, self.known_orders)

    @asynccontextmanager
    async def look_up(self) -> AsyncIterator[PostgresUnitOfWork]:
        async with self.lookups.connection() as connection:
            yield PostgresUnitOfWork.on(connection, self.known_orders)


@asynccontextmanager
async def open_postgres(options: PostgresOptions) -> AsyncIterator[Postgres]:
    """Does not wait for PostgreSQL: while it is away, every use raises Unavailable."""
    pool_options = PoolOptions(
        url=options.url,
        name="orderwire",
        size=options.pool_size,
        acquire_timeout=options.acquire_timeout,
        deadline=options.deadline,
        settings=_PLANNED_ONCE,
    )
    reader_options = replace(
        pool_options,
        name="orderwire read",
        size=options.read_pool_size,
        settings={
            "default_transaction_read_only": "on",
            # A plan for what is asked for: one for all filters would be good for none.
            "plan_cache_mode": "force_custom_plan",
            "jit": "off",
        },
    )
    lookup_options = replace(
        reader_options,
        name="orderwire look-up",
        settings={**_PLANNED_ONCE, "default_transaction_read_only": "on"},
    )
    reserve_options = replace(
        pool_options,
        name="orderwire reserve",
        size=1,
        acquire_timeout=RESERVE_DEADLINE,
        deadline=RESERVE_DEADLINE,
    )
    async with (
        open_pool(pool_options) as pool,
        open_pool(reader_options) as readers,
        open_pool(lookup_options) as lookups,
        open_pool(reserve_options) as reserve,
    ):
        yield Postgres(pool, readers, lookups, reserve, Bell(), KnownOrders())
