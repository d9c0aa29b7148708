from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

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
        row = await self.connection.fetchrow(SQL["claim"], account_id, key)
        if row is None or not row["is_ours"]:
            raise KeyInFlight
        return None if row["status"] is None else Answer(row["fingerprint"], row["status"], row["body"])

    async def keep(self, account_id: UUID, key: str, answer: Answer) -> None:
        await self.keep_all([(account_id, key, answer)])

    async def keep_all(self, answers: Iterable[tuple[UUID, str, Answer]]) -> None:
        """Raises KeyInFlight as `keep` may, and none is kept."""
        rows = [
            (account_id, key, answer.fingerprint, answer.status, answer.body) for account_id, key, answer in answers
        ]
        try:
            await self.connection.execute(SQL["keep"], *zip(*rows, strict=True))
        except asyncpg.UniqueViolationError as error:
            # The statement that claims sees the table as it was before it had the lock: the key's holder may have
            # committed and let go in between.
            raise KeyInFlight from error
