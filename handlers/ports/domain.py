"""What the domain asks of the outside world. Variants live in storage/ and realtime/; server/ chooses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from handlers.accounts.model import AccessToken, Account
from handlers.discounts.model import Discount
from handlers.events import Event
from handlers.orders.lists import Mark, OrderFilter, OrderSort
from handlers.orders.model import Change, Order
from handlers.payments.model import Payment
from handlers.products.model import Product
from handlers.stats.model import Count, Span, Window

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader is in a stream: it has everything up to and including `offset` of `epoch`."""

    offset: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T_co]):
    """What a reader loads before subscribing. `position` is not newer than `state`, so a subscriber who resumes there
    misses nothing; what it hears twice has a version that is not newer."""

    state: T_co
    channel: str
    position: Position


@dataclass(frozen=True, slots=True)
class Quantity:
    product_id: UUID
    quantity: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The first answer that was given under an idempotency key; `fingerprint` tells which request it answered."""

    fingerprint: bytes
    status: int
    body: bytes


class Accounts(Protocol):
    async def get(self, account_id: UUID) -> Account | None: ...

    async def by_email(self, email: str) -> Account | None: ...

    async def add(self, account: Account) -> None:
        """Raises Conflict when there is an account with this e-mail address."""
        ...


class Products(Protocol):
    async def page(self, *, after_sku: str, limit: int, for_sale: bool | None = None) -> Sequence[Product]:
        """In order of SKU; only those that are `for_sale`, or are not, unless that is None."""
        ...

    async def get(self, product_id: UUID) -> Product | None: ...

    async def lock(self, product_id: UUID) -> Product | None:
        """Like `get`, and no other transaction changes it until this one ends."""
        ...

    async def find(self, quantities: Sequence[Quantity]) -> Sequence[Product]:
        """The products, in the order asked for; nothing is taken. Raises NotFound as `take` does."""
        ...

    async def add(self, product: Product) -> None:
        """Raises Conflict when there is a product with this SKU."""
        ...

    async def save(self, product: Product) -> None:
        """Write what can change of a locked product."""
        ...

    async def take(self, quantities: Sequence[Quantity]) -> Sequence[Product]:
        """Take pieces out of stock, each product's next version, and return them as they are afterwards, in the order
        asked for.

        Product ids are distinct. Locks in order of product id, so that two buyers never wait for each other in a
        circle. Raises NotFound or OutOfStock (a fault per item, pointing at /items/<index>); the transaction is then
        lost.
        """
        ...

    async def give_back(self, quantities: Sequence[Quantity]) -> None: ...

    async def claim_untold(self, interval: timedelta) -> Sequence[UUID]:
        """Be the one who tells of those of which pieces were taken or given back since that was told. Empty when there
        are none, or somebody else was the one within `interval`."""
        ...

    async def take_untold(self, product_ids: Sequence[UUID]) -> Sequence[Product]:
        """Those of these that are untold, each as it is now; they are told when the transaction commits."""
        ...


class Discounts(Protocol):
    async def add(self, discount: Discount) -> None:
        """Raises Conflict when there is a discount with this code."""
        ...

    async def page(self, *, after_code: str, limit: int) -> Sequence[Discount]:
        """In order of code."""
        ...

    async def get(self, discount_id: UUID) -> Discount | None: ...

    async def lock(self, discount_id: UUID) -> Discount | None:
        """Like `get`, and no other transaction changes it until this one ends."""
        ...

    async def by_code(self, code: str) -> Discount | None: ...

    async def lock_code(self, code: str) -> Discount | None:
        """Like `by_code`, and no other transaction changes it until this one ends."""
        ...

    async def save(self, discount: Discount) -> None:
        """Write what can change of a locked discount."""
        ...


class Orders(Protocol):
    async def add(self, order: Order, change: Change) -> Order:
        """Insert, with the begin of its history; the order comes back with the `number` that it was given."""
        ...

    async def get(self, order_id: UUID) -> Order | None: ...

    async def get_with(self, channel: str, order_id: UUID) -> Snapshot[Order | None]:
        """Like `get`, with the position of the channel's stream."""
        ...

    async def lock(self, order_id: UUID) -> Order | None:
        """Like `get`, and no other transaction changes the order until this one ends."""
        ...

    async def lock_due(self, now: datetime, *, but: Set[UUID]) -> Order | None:
        """Like `lock`, of the order that should have expired first, of all but these and those that are just being paid
        for; None when no order is due, or those that are belong to other transactions."""
        ...

    async def save(self, order: Order, change: Change) -> None:
        """Write status, version, updated_at, expires_at and refunded of a locked order, and what has changed it."""
        ...

    async def edit(self, order: Order, change: Change) -> None:
        """Write address, note, version and updated_at of a locked order, and what has changed it."""
        ...

    async def redraft(self, order: Order, change: Change) -> None:
        """Write all of a locked order that was a draft, lines included, and what has changed it. Placed, it counts from
        then on."""
        ...

    async def changes(self, order_id: UUID, *, after: int, limit: int) -> Sequence[Change]:
        """An order's history behind a version, oldest first."""
        ...

    async def page_with(
        self, channel: str, which: OrderFilter, sort: OrderSort, *, after: Mark, limit: int
    ) -> Snapshot[Sequence[Order]]:
        """The first of these orders behind `after`, with the position of the channel's stream."""
        ...

    async def count(self, which: OrderFilter) -> int:
        """How many of these orders there are."""
        ...

    async def owner_of(self, order_id: UUID) -> UUID | None:
        """The account that placed the order, None if there is no such order."""
        ...


class Payments(Protocol):
    """Those of an order are changed under its lock alone; the last that was added is the one that counts."""

    async def add(self, payment: Payment) -> None: ...

    async def save(self, payment: Payment) -> None:
        """Write what changes in the life of a payment, and its refunds. Asking again begins anew, with short pauses."""
        ...

    async def get(self, payment_id: UUID) -> Payment | None: ...

    async def current(self, order_id: UUID) -> Payment | None:
        """The last that was added of an order's."""
        ...

    async def ask_soon(self, order_id: UUID, now: datetime) -> None:
        """Let the provider be asked about what is not settled of an order's payments."""
        ...

    async def ask_no_more(self, payment_id: UUID) -> None:
        """There is nothing to learn about it."""
        ...

    async def ask_about(self, provider: str, reference: str, now: datetime) -> UUID | None:
        """Let the provider be asked about this one, and return its id; None if there is none."""
        ...

    async def take_due(self, provider: str, now: datetime) -> UUID | None:
        """The payment that should be asked about first, of this provider's. It is due again after a pause that grows
        each time, so whoever has taken it may die. None when none is due."""
        ...


class Answers(Protocol):
    """Answers given under idempotency keys, kept for 24 hours."""

    async def claim(self, account_id: UUID, key: str) -> Answer | None:
        """Return the answer given before, or None: then the key belongs to this transaction until it ends.

        Raises KeyInFlight while another transaction holds the key; never waits for it.
        """
        ...

    async def keep(self, account_id: UUID, key: str, answer: Answer) -> None: ...


class Outbox(Protocol):
    async def add(self, event: Event) -> None:
        """Emit with this transaction. Call it after the row lock of the event's subject was taken, so that
        events of one subject get ids in commit order."""
        ...


class Positions(Protocol):
    async def position(self, channel: str) -> Position:
        """Where the channel's stream is now. Read it *before* the state that it goes with (from the primary), if not
        together with that: the state may be ahead of the position, never behind."""
        ...


class Stats(Protocol):
    """How many orders there are and what they come to. Each transaction that changes an order counts that too; sums are
    made of it later, and reading sees both."""

    async def claim(self, interval: timedelta) -> int | None:
        """Be the one who adds up until the transaction ends, and return the version that this makes. None when nothing
        has changed, or somebody else is at it or was within `interval`."""
        ...

    async def add_up(self, kept: Window) -> None:
        """Add to the sums what has changed, as far back as these are kept."""
        ...

    async def version(self) -> int:
        """Read it *before* what it goes with, which may be ahead of it, never behind."""
        ...

    async def recent(self, window: Window) -> Sequence[Count]:
        """Since ever, and the spans of the window; by span, begin, currency and status."""
        ...

    async def series(self, span: Span, since: datetime, before: datetime) -> Sequence[Count]:
        """Spans that began at `since` or later, and before `before`; by begin, currency and status."""
        ...


class UnitOfWork(Protocol):
    """The repositories, all on one connection."""

    @property
    def accounts(self) -> Accounts: ...
    @property
    def products(self) -> Products: ...
    @property
    def discounts(self) -> Discounts: ...
    @property
    def orders(self) -> Orders: ...
    @property
    def payments(self) -> Payments: ...
    @property
    def stats(self) -> Stats: ...
    @property
    def answers(self) -> Answers: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def positions(self) -> Positions: ...


@dataclass(frozen=True, slots=True)
class Wants:
    """What a command finds in a transaction that it shares: the answer given under its account's idempotency key, the
    products of which it takes pieces, and the discount that it uses."""

    account_id: UUID
    key: str | None
    product_ids: Sequence[UUID]
    discount_code: str | None


class Database(Protocol):
    """Raises Unavailable when no connection is free within the bounded wait, or PostgreSQL is away."""

    def transaction(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """One transaction: committed when the block ends, rolled back when it raises.

        After the block has ended the writes are durable and the relay has been told of new events.
        """
        ...

    def shared_transaction(
        self, wanted: Sequence[Wants]
    ) -> AbstractAsyncContextManager[Iterable[AbstractAsyncContextManager[UnitOfWork]]]:
        """One transaction of several commands, which are run one after the other, each in the unit of work for what it
        wants: committed when the block ends, but for what was done in units whose own blocks raised.

        There is no more in a unit than what it takes to place an order.
        """
        ...

    def read(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """For reads only, which have connections of their own; each statement sees what was committed before it."""
        ...

    def look_up(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """As `read`, of what is found by its key: there is only one good way to it, and it is soon there."""
        ...


class Passwords(Protocol):
    """Argon2id. Slow on purpose, so both run in a bounded pool of threads, off the event loop."""

    async def hash(self, password: str) -> str: ...

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """False for a None hash, after the same time as for a wrong password: nobody learns which e-mails exist."""
        ...


class Tokens(Protocol):
    """Signed access tokens."""

    def issue(self, account: Account, now: datetime) -> AccessToken: ...
