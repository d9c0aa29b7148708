from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import orjson

from handlers.orders.lists import Mark, OrderFilter, OrderSort
from handlers.orders.model import Action, Address, By, Change, Line, Order, Status
from handlers.ports.domain import Snapshot
from storage.known_orders import KnownOrders, State
from storage.pool import in_transaction
from storage.positions import position_of
from storage.queries import load

if TYPE_CHECKING:
    import asyncpg

    from storage.pool import Connection

SQL = load("orders")

ATTEMPTS = 3  # at a list while its orders change; then it is read in one snapshot

_COLUMNS = {
    OrderSort.NEWEST: "created_at",
    OrderSort.OLDEST: "created_at",
    OrderSort.CHANGED_LAST: "updated_at",
    OrderSort.CHANGED_FIRST: "updated_at",
    OrderSort.DEAREST: "total",
    OrderSort.CHEAPEST: "total",
}

_LINES = ("product_ids", "skus", "names", "unit_prices", "quantities", "tax_rates", "discounts")
"""Arrays of what a `Line` is made of."""


def _page(sort: OrderSort) -> str:
    direction, behind = ("DESC", "<") if sort.is_descending else ("ASC", ">")
    return SQL["page"].format(column=_COLUMNS[sort], direction=direction, behind=behind)


_PAGES = {sort: _page(sort) for sort in OrderSort}


@dataclass(frozen=True, slots=True)
class PostgresOrders:
    connection: Connection
    known: KnownOrders

    async def add(self, order: Order, change: Change) -> Order:
        numbered = replace(order, number=await self._add([(*_head(order, change), None)], [order]))
        self.known.add(numbered)
        return numbered

    async def add_all(self, orders: Sequence[tuple[Order, Change]]) -> None:
        """As `add`, with the numbers that they have."""
        heads = [(*_head(order, change), order.number) for order, change in orders]
        await self._add(heads, [order for order, _ in orders])
        for order, _ in orders:
            self.known.add(order)

    async def _add(self, heads: Iterable[Sequence[object]], orders: Iterable[Order]) -> int:
        """The number of one of them."""
        lines = ((order.id, *line) for order in orders for line in _lines(order))
        number: int = await self.connection.fetchval(SQL["add"], *zip(*heads, strict=True), *zip(*lines, strict=True))
        return number

    async def get(self, order_id: UUID) -> Order | None:
        return (await self.get_with("", order_id)).state

    async def get_with(self, channel: str, order_id: UUID) -> Snapshot[Order | None]:
        [row] = await self.connection.fetch(SQL["get"], order_id, channel)
        return Snapshot(None if row["id"] is None else _order(row), channel, position_of(row))

    async def lock(self, order_id: UUID) -> Order | None:
        await self.connection.execute(SQL["lock"], order_id)
        return await self.get(order_id)

    async def lock_due(self, now: datetime, *, but: Set[UUID]) -> Order | None:
        due, before = await self._lock_due(now, but), None
        # Until it is the same twice: the statement that takes the lock sees no payment that was begun since it began,
        # and the next sees whatever was done under the lock of somebody else.
        while due != before:
            due, before = await self._lock_due(now, but), due
        return None if due is None else await self.get(due)

    async def _lock_due(self, now: datetime, but: Set[UUID]) -> UUID | None:
        due: UUID | None = await self.connection.fetchval(SQL["lock_due"], now, list(but))
        return due

    async def save(self, order: Order, change: Change) -> None:
        await self.connection.execute(
            SQL["save"],
            order.id,
            order.status,
            order.version,
            order.updated_at,
            order.expires_at,
            change.action,
            change.by,
            change.account_id,
            order.refunded,
        )

    async def edit(self, order: Order, change: Change) -> None:
        await self.connection.execute(
            SQL["edit"],
            order.id,
            order.version,
            order.updated_at,
            _as_json(order.address),
            order.note,
            change.action,
            change.status,
            change.by,
            change.account_id,
        )

    async def redraft(self, order: Order, change: Change) -> None:
        await self.connection.execute(SQL["redraft"], *_head(order, change), *zip(*_lines(order), strict=True))

    async def changes(self, order_id: UUID, *, after: int, limit: int) -> Sequence[Change]:
        return [_change(row) for row in await self.connection.fetch(SQL["changes"], order_id, after, limit)]

    async def page_with(
        self, channel: str, which: OrderFilter, sort: OrderSort, *, after: Mark, limit: int
    ) -> Snapshot[Sequence[Order]]:
        # What a transaction has changed itself nobody else may see.
        is_within = self.connection.is_in_transaction()
        known = KnownOrders(limit) if is_within else self.known
        asked = (*_asked_for(which), after.value, after.number, limit, channel)
        attempts = 0
        while True:
            attempts += 1
            async with nullcontext() if is_within or attempts < ATTEMPTS else _in_one_snapshot(self.connection):
                rows = await self.connection.fetch(_PAGES[sort], *asked)
                states = [State(row["id"], row["version"], row["updated_at"]) for row in rows if row["id"] is not None]
                orders = await self._read(states, known)
            if orders is not None:
                return Snapshot(orders, channel, position_of(rows[0]))

    async def _read(self, states: Sequence[State], known: KnownOrders) -> Sequence[Order] | None:
        """None when one of them is in another state by now."""
        found = dict(zip(states, known.find(states), strict=True))
        missing = [state.id for state, order in found.items() if order is None]
        if missing:
            for read in map(_order, await self.connection.fetch(SQL["get_all"], missing)):
                known.add(read)
                found[State.of(read)] = read
        orders = [order for state in states if (order := found[state]) is not None]
        return orders if len(orders) == len(states) else None

    async def count(self, which: OrderFilter) -> int:
        counted: int = await self.connection.fetchval(SQL["count"], *_asked_for(which))
        return counted

    async def owner_of(self, order_id: UUID) -> UUID | None:
        owner: UUID | None = await self.connection.fetchval(SQL["owner_of"], order_id)
        return owner


def _in_one_snapshot(connection: Connection) -> AbstractAsyncContextManager[None]:
    """Takes two round trips more."""
    return in_transaction(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ")


def _head(order: Order, change: Change) -> Sequence[object]:
    """All of an order but its lines, and what made it so."""
    return (
        order.id,
        order.customer_id,
        order.status,
        order.version,
        order.currency,
        order.created_at,
        order.updated_at,
        order.expires_at,
        change.action,
        change.by,
        change.account_id,
        order.total,
        _as_json(order.address),
        order.note,
        order.discount_code,
        order.tax_included,
        " ".join([line.name for line in order.lines] + [line.sku for line in order.lines]),  # to be searched for
    )


def _lines(order: Order) -> Sequence[Sequence[object]]:
    """All of them, numbered."""
    return [
        (number, line.product_id, line.sku, line.name, line.unit_price, line.quantity, line.tax_rate, line.discount)
        for number, line in enumerate(order.lines, 1)
    ]


def _asked_for(which: OrderFilter) -> Sequence[object]:
    return (
        which.customer_id,
        list(which.statuses) or None,
        which.created_from,
        which.created_before,
        which.total_from,
        which.total_to,
        which.words,
        which.number,
    )


def _order(row: asyncpg.Record) -> Order:
    return Order(
        id=row["id"],
        number=row["number"],
        customer_id=row["customer_id"],
        status=Status(row["status"]),
        version=row["version"],
        currency=row["currency"],
        lines=() if row["skus"] is None else tuple(map(Line, *(row[column] for column in _LINES))),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        expires_at=row["expires_at"],
        refunded=row["refunded"],
        address=None if row["address"] is None else Address(**orjson.loads(row["address"])),
        note=row["note"],
        discount_code=row["discount_code"],
        tax_included=row["tax_included"],
    )


def _as_json(address: Address | None) -> str | None:
    return None if address is None else orjson.dumps(address).decode()


def _change(row: asyncpg.Record) -> Change:
    return Change(
        row["version"],
        Action(row["action"]),
        Status(row["status"]),
        row["changed_at"],
        By(row["changed_by"]),
        row["account_id"],
    )
