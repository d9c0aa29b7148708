from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from handlers.errors import KeyInFlight
from handlers.ports.domain import Answer
from storage.queries import load

if TYPE_CHECKING:
    from storage.pool import Connection

SQL = load("answers")


@dataclass(frozen=True, slots=True)
class PostgresAnswers:
    connection: Connection

    async def claim(self, account_id: UUID, key: str) -> Answer | None:
        if not await self.connection.fetchval(SQL["claim"], account_id, key):
            raise KeyInFlight
        # A statement of its own: one that takes the lock sees the table as it was before it had the lock.
        row = await self.connection.fetchrow(SQL["get"], account_id, key)
        return None if row is None else Answer(row["fingerprint"], row["status"], row["body"])

    async def keep(self, account_id: UUID, key: str, answer: Answer) -> None:
        await self.connection.execute(SQL["keep"], account_id, key, answer.fingerprint, answer.status, answer.body)
