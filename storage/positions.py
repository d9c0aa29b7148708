from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from handlers.ports.domain import Position
from storage.queries import load

if TYPE_CHECKING:
    import asyncpg

    from storage.pool import Connection

SQL = load("positions")

NEVER_WRITTEN = Position(0, "")


@dataclass(frozen=True, slots=True)
class PostgresPositions:
    connection: Connection

    async def position(self, channel: str) -> Position:
        row = await self.connection.fetchrow(SQL["position"], channel)
        return NEVER_WRITTEN if row is None else position_of(row)


def position_of(row: asyncpg.Record) -> Position:
    """The head of a stream in it, of one that nothing was written to if there is none."""
    return NEVER_WRITTEN if row["epoch"] is None else Position(row["top"], row["epoch"])
