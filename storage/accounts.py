from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from handlers.accounts.model import Account
from handlers.actor import Role
from handlers.errors import Conflict
from storage.queries import load

if TYPE_CHECKING:
    from storage.pool import Connection

SQL = load("accounts")


@dataclass(frozen=True, slots=True)
class PostgresAccounts:
    connection: Connection

    async def get(self, account_id: UUID) -> Account | None:
        return _account(await self.connection.fetchrow(SQL["get"], account_id))

    async def by_email(self, email: str) -> Account | None:
        return _account(await self.connection.fetchrow(SQL["by_email"], email))

    async def add(self, account: Account) -> None:
        values = (account.id, account.email, account.name, account.role, account.password_hash)
        try:
            await self.connection.execute(SQL["add"], *values)
        except asyncpg.UniqueViolationError as error:
            raise Conflict("There is an account with this e-mail address or id already.") from error


def _account(row: asyncpg.Record | None) -> Account | None:
    if row is None:
        return None
    return Account(row["id"], row["email"], row["name"], Role(row["role"]), row["password_hash"])
