from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from handlers.orders.model import Status
from handlers.stats.model import Count, Span, Window
from storage.queries import load

if TYPE_CHECKING:
    import asyncpg

    from storage.pool import Connection

SQL = load("stats")

_BATCH = 20_000  # changes that are added up by one statement, well within its deadline


@dataclass(frozen=True, slots=True)
class PostgresStats:
    connection: Connection

    async def claim(self, interval: timedelta) -> int | None:
        version: int | None = await self.connection.fetchval(SQL["claim"], interval)
        return version

    async def add_up(self, kept: Window) -> None:
        while await self.connection.fetchval(SQL["add_up"], _BATCH, kept.minutes, kept.hours) == _BATCH:
            pass

    async def version(self) -> int:
        version: int = await self.connection.fetchval(SQL["version"])
        return version

    async def recent(self, window: Window) -> Sequence[Count]:
        rows = await self.connection.fetch(SQL["recent"], window.minutes, window.hours, window.days)
        return list(_counts(rows))

    async def series(self, span: Span, since: datetime, before: datetime) -> Sequence[Count]:
        return list(_counts(await self.connection.fetch(SQL["series"], span, since, before)))


def _counts(rows: Iterable[asyncpg.Record]) -> Iterable[Count]:
    for row in rows:
        yield Count(
            Span(row["span"]),
            row["begins_at"],
            row["currency"],
            Status(row["status"]),
            row["orders"],
            row["total"],
            row["refunded"],
        )
