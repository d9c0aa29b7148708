from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING
from uuid import UUID

from handlers.orders.model import Action, By, Change, Line, Order, Status
from handlers.ports.domain import OrderFilter
from storage.queries import load

if TYPE_CHECKING:
    import asyncpg

    from storage.pool import Connection

SQL = load("orders")

_NEWEST = 2**63 - 1  # above every number


@dataclass(frozen=True, slots=True)
class PostgresOrders:
    connection: Connection

    async def add(self, order: Order, change: Change) -> Order:
        number: int = await self.connection.fetchval(
            SQL["add"],
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
            [line.product_id for line in order.lines],
            [line.sku for line in order.lines],
            [line.name for line in order.lines],
            [line.unit_price for line in order.lines],
            [line.quantity for line in order.lines],
        )
        return replace(order, number=number)

    async def get(self, order_id: UUID) -> Order | None:
        return next(_orders(await self.connection.fetch(SQL["get"], order_id)), None)

    async def lock(self, order_id: UUID) -> Order | None:
        return next(_orders(await self.connection.fetch(SQL["lock"], order_id)), None)

    async def lock_due(self, now: datetime) -> Order | None:
        return next(_orders(await self.connection.fetch(SQL["lock_due"], now)), None)

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
        )

    async def changes(self, order_id: UUID) -> Sequence[Change]:
        return [_change(row) for row in await self.connection.fetch(SQL["changes"], order_id)]

    async def page(self, which: OrderFilter) -> Sequence[Order]:
        before = _NEWEST if which.before is None else which.before
        if which.customer_id is None:
            rows = await self.connection.fetch(SQL["page"], before, which.limit)
        else:
            rows = await self.connection.fetch(SQL["page_of_customer"], before, which.limit, which.customer_id)
        return list(_orders(rows))

    async def owner_of(self, order_id: UUID) -> UUID | None:
        owner: UUID | None = await self.connection.fetchval(SQL["owner_of"], order_id)
        return owner


def _orders(rows: Iterable[asyncpg.Record]) -> Iterator[Order]:
    for _, group in groupby(rows, key=lambda row: row["id"]):
        lines = list(group)
        first = lines[0]
        yield Order(
            id=first["id"],
            number=first["number"],
            customer_id=first["customer_id"],
            status=Status(first["status"]),
            version=first["version"],
            currency=first["currency"],
            lines=tuple(_line(row) for row in lines if row["product_id"] is not None),
            created_at=first["created_at"],
            updated_at=first["updated_at"],
            expires_at=first["expires_at"],
        )


def _change(row: asyncpg.Record) -> Change:
    return Change(
        row["version"],
        Action(row["action"]),
        Status(row["status"]),
        row["changed_at"],
        By(row["changed_by"]),
        row["account_id"],
    )


def _line(row: asyncpg.Record) -> Line:
    return Line(row["product_id"], row["sku"], row["name"], row["unit_price"], row["quantity"])
