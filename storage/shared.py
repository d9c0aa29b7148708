"""One transaction of several commands: what they want is read and locked together, what they do is written together.

In between nothing is asked of PostgreSQL: each command has a unit of work of its own in memory, and what one does that
is refused in the end is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from handlers.discounts.model import Discount
from handlers.errors import KeyInFlight
from handlers.events import Event
from handlers.orders.model import Change, Order
from handlers.ports.domain import Answer, Discounts, Orders, Products, Quantity, UnitOfWork, Wants
from handlers.products.model import Product
from storage.answers import PostgresAnswers
from storage.discounts import PostgresDiscounts
from storage.known_orders import KnownOrders
from storage.orders import PostgresOrders
from storage.outbox import OutboxWriter
from storage.products import PostgresProducts, refuse_short, refuse_unknown
from storage.queries import load

if TYPE_CHECKING:
    import asyncpg

    from storage.pool import Connection

SQL = load("shared")


class _Absent:
    """In the place of a repository that a shared transaction does not have."""

    def __getattr__(self, name: str) -> object:
        raise NotImplementedError(f"{name} needs a transaction of its own")


_ABSENT: Any = _Absent()


@dataclass(slots=True)
class _Done:
    """What one command has done so far: products and discounts (by code) are as it leaves them."""

    products: list[Product] = field(default_factory=list)
    discounts: list[Discount] = field(default_factory=list)
    orders: list[tuple[Order, Change]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    answers: list[tuple[UUID, str, Answer]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Products:
    stock: Mapping[UUID, Product]
    done: _Done

    async def find(self, quantities: Sequence[Quantity]) -> Sequence[Product]:
        refuse_unknown(quantities, self.stock)
        return [self.stock[wanted.product_id] for wanted in quantities]

    async def take(self, quantities: Sequence[Quantity]) -> Sequence[Product]:
        before = await self.find(quantities)
        refuse_short(quantities, self.stock)
        self.done.products += [
            product.without(wanted.quantity) for product, wanted in zip(before, quantities, strict=True)
        ]
        return self.done.products


@dataclass(frozen=True, slots=True)
class _Discounts:
    by_code: Mapping[str, Discount]
    done: _Done

    async def lock_code(self, code: str) -> Discount | None:
        return self.by_code.get(code)

    async def save(self, discount: Discount) -> None:
        self.done.discounts.append(discount)


@dataclass(frozen=True, slots=True)
class _Orders:
    number: int
    done: _Done

    async def add(self, order: Order, change: Change) -> Order:
        numbered = replace(order, number=self.number)
        self.done.orders.append((numbered, change))
        return numbered


@dataclass(frozen=True, slots=True)
class _Outbox:
    done: _Done

    async def add(self, event: Event) -> None:
        self.done.events.append(event)


@dataclass(frozen=True, slots=True)
class _Answers:
    """`known` was given before; `is_ours`: nobody else has the key."""

    known: Answer | None
    is_ours: bool
    done: _Done

    async def claim(self, account_id: UUID, key: str) -> Answer | None:  # noqa: ARG002 what is known is of this key
        if not self.is_ours:
            raise KeyInFlight
        return self.known

    async def keep(self, account_id: UUID, key: str, answer: Answer) -> None:
        self.done.answers.append((account_id, key, answer))


@dataclass(frozen=True, slots=True)
class _UnitOfWork:
    """Products and discounts are taken once in it, and one order is added."""

    products: Products
    discounts: Discounts
    orders: Orders
    outbox: _Outbox
    answers: _Answers
    accounts: Any = _ABSENT
    payments: Any = _ABSENT
    stats: Any = _ABSENT
    positions: Any = _ABSENT


@dataclass(frozen=True, slots=True)
class _Unit:
    """A block of its own in the transaction; `keep` what was done in it, unless it raised."""

    uow: UnitOfWork
    keep: Callable[[], None]

    async def __aenter__(self) -> UnitOfWork:
        return self.uow

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.keep()


class SharedTransaction:
    """On `connection`, for commands that want this, each with a row of `claims`; products and discounts are locked."""

    def __init__(
        self,
        connection: Connection,
        wanted: Sequence[Wants],
        claims: Sequence[asyncpg.Record],
        products: Iterable[Product],
        discounts: Iterable[Discount],
        known_orders: KnownOrders,
    ) -> None:
        self._connection = connection
        self._wanted = wanted
        self._claims = claims
        self._stock = {product.id: product for product in products}
        self._discounts = {discount.code: discount for discount in discounts}
        self._known_orders = known_orders
        self._taken: set[UUID] = set()
        self._done = _Done()

    @classmethod
    async def begin(
        cls, connection: Connection, wanted: Sequence[Wants], known_orders: KnownOrders
    ) -> SharedTransaction:
        keys = [wants.account_id for wants in wanted], [wants.key for wants in wanted]
        claims = await connection.fetch(SQL["claim"], *keys)
        # First all products, then all discounts, as a transaction of one command locks them.
        products = await PostgresProducts(connection).lock_all({each for wants in wanted for each in wants.product_ids})
        codes = {wants.discount_code for wants in wanted if wants.discount_code is not None}
        discounts = await PostgresDiscounts(connection).lock_codes(codes) if codes else ()
        return cls(connection, wanted, claims, products, discounts, known_orders)

    def units(self) -> Iterator[_Unit]:
        claimed: set[tuple[UUID, str]] = set()
        for wants, claim in zip(self._wanted, self._claims, strict=True):
            is_ours = claim["is_ours"]
            if wants.key is not None:
                # PostgreSQL gives a lock to who has it: of two in here that want one key, the second is told.
                is_ours = is_ours and (wants.account_id, wants.key) not in claimed
                claimed.add((wants.account_id, wants.key))
            known = None if claim["status"] is None else Answer(claim["fingerprint"], claim["status"], claim["body"])
            done = _Done()
            unit = _UnitOfWork(
                cast("Products", _Products(self._stock, done)),
                cast("Discounts", _Discounts(self._discounts, done)),
                cast("Orders", _Orders(claim["number"], done)),
                _Outbox(done),
                _Answers(known, is_ours, done),
            )
            yield _Unit(unit, partial(self._absorb, done))

    def _absorb(self, done: _Done) -> None:
        for product in done.products:
            self._taken.add(product.id)
            self._stock[product.id] = product
        self._discounts |= {discount.code: discount for discount in done.discounts}
        self._done.discounts += done.discounts
        self._done.orders += done.orders
        self._done.events += done.events
        self._done.answers += done.answers

    async def write(self) -> bool:
        """What was done in units that did not raise; was anything emitted?"""
        done, outbox = self._done, OutboxWriter(self._connection)
        if self._taken:
            await PostgresProducts(self._connection).save_stock([self._stock[each] for each in self._taken])
        for code in {discount.code for discount in done.discounts}:
            await PostgresDiscounts(self._connection).save(self._discounts[code])
        if done.orders:
            await PostgresOrders(self._connection, self._known_orders).add_all(done.orders)
        for event in done.events:
            await outbox.add(event)
        await outbox.write()
        if done.answers:
            await PostgresAnswers(self._connection).keep_all(done.answers)
        return bool(outbox.rows)
