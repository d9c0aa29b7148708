"""The domain's ports in memory, for tests of decisions. What PostgreSQL itself promises is tested on PostgreSQL."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterable, Sequence, Set
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from handlers.accounts.model import AccessToken, Account
from handlers.actor import Actor, Role
from handlers.discounts.model import Discount
from handlers.errors import Conflict, Fault, KeyInFlight, NotFound, OutOfStock
from handlers.events import Cause, Event
from handlers.orders.lists import Mark, OrderFilter, OrderSort
from handlers.orders.model import Change, Order
from handlers.payments.model import Payment
from handlers.ports.domain import Answer, Position, Quantity, Snapshot, UnitOfWork, Wants
from handlers.products.model import Product
from handlers.stats.model import Count, Span, Window

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
POSITION = Position(7, "epoch-01.1")
"""Of every stream."""
CAUSE = Cause(NOW, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def an_actor(role: Role = Role.CUSTOMER) -> Actor:
    return Actor(uuid4(), role)


def a_product(*, stock: int = 10, price: int = 250, currency: str = "EUR", sku: str = "") -> Product:
    product_id = uuid4()
    return Product(product_id, sku or f"SKU-{product_id.hex[:8]}", "A thing", price, currency, stock)


@dataclass
class MemoryAccounts:
    rows: dict[UUID, Account] = field(default_factory=dict)

    async def get(self, account_id: UUID) -> Account | None:
        return self.rows.get(account_id)

    async def by_email(self, email: str) -> Account | None:
        return next((account for account in self.rows.values() if account.email == email), None)

    async def add(self, account: Account) -> None:
        if await self.by_email(account.email):
            raise Conflict
        self.rows[account.id] = account


@dataclass
class MemoryProducts:
    rows: dict[UUID, Product] = field(default_factory=dict)
    untold: set[UUID] = field(default_factory=set)

    async def page(self, *, after_sku: str, limit: int, for_sale: bool | None = None) -> Sequence[Product]:
        behind = [row for row in self.rows.values() if row.sku > after_sku and for_sale in {None, row.for_sale}]
        return sorted(behind, key=lambda row: row.sku)[:limit]

    async def get(self, product_id: UUID) -> Product | None:
        return self.rows.get(product_id)

    async def lock(self, product_id: UUID) -> Product | None:
        return self.rows.get(product_id)

    async def find(self, quantities: Sequence[Quantity]) -> Sequence[Product]:
        unknown = [index for index, wanted in enumerate(quantities) if wanted.product_id not in self.rows]
        if unknown:
            raise NotFound(faults=[Fault(f"/items/{index}", "not_found", "Unknown") for index in unknown])
        return [self.rows[wanted.product_id] for wanted in quantities]

    async def add(self, product: Product) -> None:
        if any(row.sku == product.sku for row in self.rows.values()):
            raise Conflict
        self.rows[product.id] = product

    async def save(self, product: Product) -> None:
        self.rows[product.id] = product

    async def take(self, quantities: Sequence[Quantity]) -> Sequence[Product]:
        await self.find(quantities)
        short = [
            index for index, wanted in enumerate(quantities) if self.rows[wanted.product_id].stock < wanted.quantity
        ]
        if short:
            raise OutOfStock(faults=[Fault(f"/items/{index}", "out_of_stock", "Too few") for index in short])
        self._change(quantities, -1)
        return [self.rows[wanted.product_id] for wanted in quantities]

    async def give_back(self, quantities: Sequence[Quantity]) -> None:
        self._change(quantities, 1)

    async def claim_untold(self, interval: timedelta) -> Sequence[UUID]:  # noqa: ARG002 the tests' time stands still
        return list(self.untold)

    async def take_untold(self, product_ids: Sequence[UUID]) -> Sequence[Product]:
        taken = self.untold.intersection(product_ids)
        self.untold -= taken
        return [self.rows[product_id] for product_id in taken]

    def _change(self, quantities: Sequence[Quantity], sign: int) -> None:
        for item in quantities:
            row = self.rows[item.product_id]
            self.rows[row.id] = row.changed(stock=row.stock + sign * item.quantity)
            self.untold.add(row.id)


@dataclass
class MemoryDiscounts:
    rows: dict[UUID, Discount] = field(default_factory=dict)

    async def add(self, discount: Discount) -> None:
        if await self.by_code(discount.code):
            raise Conflict
        self.rows[discount.id] = discount

    async def page(self, *, after_code: str, limit: int) -> Sequence[Discount]:
        return sorted((row for row in self.rows.values() if row.code > after_code), key=lambda row: row.code)[:limit]

    async def get(self, discount_id: UUID) -> Discount | None:
        return self.rows.get(discount_id)

    async def lock(self, discount_id: UUID) -> Discount | None:
        return self.rows.get(discount_id)

    async def by_code(self, code: str) -> Discount | None:
        return next((row for row in self.rows.values() if row.code == code), None)

    async def lock_code(self, code: str) -> Discount | None:
        return await self.by_code(code)

    async def save(self, discount: Discount) -> None:
        self.rows[discount.id] = discount


@dataclass
class MemoryOrders:
    rows: dict[UUID, Order] = field(default_factory=dict)
    history: dict[UUID, list[Change]] = field(default_factory=dict)

    async def add(self, order: Order, change: Change) -> Order:
        self.rows[order.id] = replace(order, number=len(self.rows) + 1)
        self.history[order.id] = [change]
        return self.rows[order.id]

    async def get(self, order_id: UUID) -> Order | None:
        return self.rows.get(order_id)

    async def get_with(self, channel: str, order_id: UUID) -> Snapshot[Order | None]:
        return Snapshot(self.rows.get(order_id), channel, POSITION)

    async def lock(self, order_id: UUID) -> Order | None:
        return self.rows.get(order_id)

    async def lock_due(self, now: datetime, *, but: Set[UUID]) -> Order | None:
        ends = [(order.expires_at, order.id) for order in self.rows.values() if order.expires_at is not None]
        due = [order_id for end, order_id in sorted(ends) if end <= now and order_id not in but]
        return self.rows[due[0]] if due else None

    async def save(self, order: Order, change: Change) -> None:
        self.rows[order.id] = order
        self.history[order.id].append(change)

    async def edit(self, order: Order, change: Change) -> None:
        await self.save(order, change)

    async def redraft(self, order: Order, change: Change) -> None:
        await self.save(order, change)

    async def changes(self, order_id: UUID, *, after: int, limit: int) -> Sequence[Change]:
        return [change for change in self.history[order_id] if change.version > after][:limit]

    async def page_with(
        self, channel: str, which: OrderFilter, sort: OrderSort, *, after: Mark, limit: int
    ) -> Snapshot[Sequence[Order]]:
        return Snapshot(listed(self.rows.values(), which, sort, after=after)[:limit], channel, POSITION)

    async def count(self, which: OrderFilter) -> int:
        return len(listed(self.rows.values(), which, OrderSort.NEWEST))

    async def owner_of(self, order_id: UUID) -> UUID | None:
        order = self.rows.get(order_id)
        return None if order is None else order.customer_id


def listed(
    orders: Iterable[Order], which: OrderFilter, sort: OrderSort, *, after: Mark | None = None
) -> Sequence[Order]:
    """What a list has of these orders, in its order; text is not looked for."""

    def place(mark: Mark) -> tuple[datetime | int, int]:
        return mark.value, mark.number

    begin = place(after or sort.begin)
    marks = {order.id: place(Mark.of(order, sort)) for order in orders}
    behind = [
        order
        for order in orders
        if (marks[order.id] < begin if sort.is_descending else marks[order.id] > begin) and _matches(order, which)
    ]
    return sorted(behind, key=lambda order: marks[order.id], reverse=sort.is_descending)


def _matches(order: Order, which: OrderFilter) -> bool:
    if which.text is not None:
        raise NotImplementedError
    return (
        which.customer_id in {None, order.customer_id}
        and (not which.statuses or order.status in which.statuses)
        and (which.created_from is None or order.created_at >= which.created_from)
        and (which.created_before is None or order.created_at < which.created_before)
        and (which.total_from is None or order.total >= which.total_from)
        and (which.total_to is None or order.total <= which.total_to)
    )


@dataclass
class MemoryPayments:
    rows: dict[UUID, Payment] = field(default_factory=dict)

    async def add(self, payment: Payment) -> None:
        self.rows[payment.id] = payment

    async def save(self, payment: Payment) -> None:
        self.rows[payment.id] = payment

    async def get(self, payment_id: UUID) -> Payment | None:
        return self.rows.get(payment_id)

    async def current(self, order_id: UUID) -> Payment | None:
        return next((each for each in reversed(self.rows.values()) if each.order_id == order_id), None)

    async def ask_soon(self, order_id: UUID, now: datetime) -> None:
        for each in self.rows.values():
            if each.order_id == order_id and not each.status.is_settled:
                self.rows[each.id] = replace(each, ask_at=now)

    async def ask_no_more(self, payment_id: UUID) -> None:
        self.rows[payment_id] = replace(self.rows[payment_id], ask_at=None)

    async def ask_about(self, provider: str, reference: str, now: datetime) -> UUID | None:
        for each in self.rows.values():
            if each.provider == provider and each.standing is not None and each.standing.reference == reference:
                self.rows[each.id] = replace(each, ask_at=now)
                return each.id
        return None

    async def take_due(self, provider: str, now: datetime) -> UUID | None:
        for each in self.rows.values():
            if each.provider == provider and each.ask_at is not None and each.ask_at <= now:
                self.rows[each.id] = replace(each, ask_at=now + timedelta(seconds=5))
                return each.id
        return None


@dataclass
class MemoryStats:
    """What it is given to hold."""

    counts: list[Count] = field(default_factory=list)
    has_changed: bool = False
    number: int = 0

    async def claim(self, interval: timedelta) -> int | None:  # noqa: ARG002 the tests' time stands still
        if not self.has_changed:
            return None
        self.has_changed = False
        self.number += 1
        return self.number

    async def add_up(self, kept: Window) -> None:
        pass

    async def version(self) -> int:
        return self.number

    async def recent(self, window: Window) -> Sequence[Count]:
        return [
            count for count in self.counts if count.span is Span.EVER or count.begins_at >= window.since(count.span)
        ]

    async def series(self, span: Span, since: datetime, before: datetime) -> Sequence[Count]:
        return [count for count in self.counts if count.span is span and since <= count.begins_at < before]


@dataclass
class MemoryAnswers:
    rows: dict[tuple[UUID, str], Answer] = field(default_factory=dict)
    in_flight: set[str] = field(default_factory=set)

    async def claim(self, account_id: UUID, key: str) -> Answer | None:
        if key in self.in_flight:
            raise KeyInFlight
        return self.rows.get((account_id, key))

    async def keep(self, account_id: UUID, key: str, answer: Answer) -> None:
        self.rows[account_id, key] = answer


@dataclass
class MemoryOutbox:
    events: list[Event] = field(default_factory=list)

    async def add(self, event: Event) -> None:
        self.events.append(event)


@dataclass
class MemoryPositions:
    """Every stream stands at the same place."""

    asked: list[str] = field(default_factory=list)

    async def position(self, channel: str) -> Position:
        self.asked.append(channel)
        return POSITION


@dataclass
class MemoryUnitOfWork:
    accounts: MemoryAccounts = field(default_factory=MemoryAccounts)
    products: MemoryProducts = field(default_factory=MemoryProducts)
    discounts: MemoryDiscounts = field(default_factory=MemoryDiscounts)
    orders: MemoryOrders = field(default_factory=MemoryOrders)
    payments: MemoryPayments = field(default_factory=MemoryPayments)
    stats: MemoryStats = field(default_factory=MemoryStats)
    answers: MemoryAnswers = field(default_factory=MemoryAnswers)
    outbox: MemoryOutbox = field(default_factory=MemoryOutbox)
    positions: MemoryPositions = field(default_factory=MemoryPositions)


@dataclass
class MemoryDatabase:
    """A transaction that raises leaves nothing behind; concurrent ones are not kept apart."""

    state: MemoryUnitOfWork = field(default_factory=MemoryUnitOfWork)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryUnitOfWork]:
        unit = copy.deepcopy(self.state)
        yield unit
        self.state = unit

    @asynccontextmanager
    async def shared_transaction(
        self, wanted: Sequence[Wants]
    ) -> AsyncIterator[Iterable[AbstractAsyncContextManager[UnitOfWork]]]:
        shared = MemoryDatabase(copy.deepcopy(self.state))
        yield [shared.transaction() for _ in wanted]
        self.state = shared.state

    @asynccontextmanager
    async def read(self) -> AsyncIterator[MemoryUnitOfWork]:
        yield self.state

    look_up = read


class PlainPasswords:
    async def hash(self, password: str) -> str:
        return f"hash of {password}"

    async def matches(self, password: str, password_hash: str | None) -> bool:
        return password_hash == f"hash of {password}"


class PlainTokens:
    def issue(self, account: Account, now: datetime) -> AccessToken:
        return AccessToken(f"token of {account.email}", now + timedelta(minutes=15))
