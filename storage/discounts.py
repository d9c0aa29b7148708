from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from handlers.discounts.model import Discount
from handlers.errors import Conflict
from storage.queries import load

if TYPE_CHECKING:
    from storage.pool import Connection

SQL = load("discounts")


@dataclass(frozen=True, slots=True)
class PostgresDiscounts:
    connection: Connection

    async def add(self, discount: Discount) -> None:
        try:
            await self.connection.execute(
                SQL["add"],
                discount.id,
                discount.code,
                discount.rate,
                discount.starts_at,
                discount.ends_at,
                discount.max_uses,
                discount.uses,
                discount.version,
                discount.created_at,
                discount.updated_at,
            )
        except asyncpg.UniqueViolationError as error:
            raise Conflict("There is a discount with this code already.") from error

    async def page(self, *, after_code: str, limit: int) -> Sequence[Discount]:
        return [Discount(*row.values()) for row in await self.connection.fetch(SQL["page"], after_code, limit)]

    async def get(self, discount_id: UUID) -> Discount | None:
        return await self._one("get", discount_id)

    async def lock(self, discount_id: UUID) -> Discount | None:
        return await self._one("lock", discount_id)

    async def by_code(self, code: str) -> Discount | None:
        return await self._one("by_code", code)

    async def lock_code(self, code: str) -> Discount | None:
        return next(iter(await self.lock_codes([code])), None)

    async def lock_codes(self, codes: Collection[str]) -> Sequence[Discount]:
        """Those that there are; no other transaction changes them until this one ends."""
        return [Discount(*row.values()) for row in await self.connection.fetch(SQL["lock_codes"], codes)]

    async def save(self, discount: Discount) -> None:
        await self.connection.execute(
            SQL["save"],
            discount.id,
            discount.ends_at,
            discount.max_uses,
            discount.uses,
            discount.version,
            discount.updated_at,
        )

    async def _one(self, query: str, key: UUID | str) -> Discount | None:
        row = await self.connection.fetchrow(SQL[query], key)
        return None if row is None else Discount(*row.values())
