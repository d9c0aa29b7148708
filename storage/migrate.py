"""Forward migrations: migrations/NNNN_name.sql, each applied once, in order, in a transaction of its own.

A file starts with `-- oldest-code: N`: code that knows no migration from number N on cannot run on the schema that
this migration leaves. So two versions of the code run on one schema during a rolling deploy: expand in one release,
contract in a later one.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import structlog

from handlers.errors import Unavailable
from storage.pool import connect
from storage.queries import load
from storage.sqlstates import is_away, raising

if TYPE_CHECKING:
    from storage.pool import Connection, DirectConnection

log = structlog.get_logger(__name__)

SQL = load("migrate")

FOLDER = Path(__file__).parent / "migrations"
ATTEMPTS = 10  # at getting a migration's locks
PAUSE = (0.5, 1.5)  # seconds between them, for the traffic that has them

_FILE = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
_HEADER = re.compile(r"-- oldest-code: (?P<oldest_code>\d+)\n")


class SchemaError(Exception):
    """Schema and code do not fit; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    oldest_code: int
    checksum: str
    sql: str


@dataclass(frozen=True, slots=True)
class Applied:
    name: str
    checksum: str
    oldest_code: int


async def migrate(url: str, folder: Path = FOLDER) -> list[int]:
    """Apply what is missing and return its numbers; of two at once the second waits and finds nothing to do.

    Raises SchemaError, and Unavailable when PostgreSQL is away.
    """
    migrations = await asyncio.to_thread(read, folder)
    with raising(Unavailable):
        async with _connected(url, name="orderwire migrate", timeout=5.0) as connection:
            await connection.execute(SQL["lock"])
            await connection.execute(SQL["create_record"])
            pending = compare(migrations, await _applied(connection))
            for migration in pending:
                await _apply(connection, migration)
                log.info("migration_applied", number=migration.number, name=migration.name)
    return [migration.number for migration in pending]


async def check(url: str, folder: Path = FOLDER) -> None:
    """Raise SchemaError unless this code can run on the schema, and Unavailable when PostgreSQL is away."""
    with raising(Unavailable):
        async with _connected(url, name="orderwire check", timeout=2.0) as connection:
            await check_on(connection, folder)


@asynccontextmanager
async def _connected(url: str, *, name: str, timeout: float) -> AsyncIterator[DirectConnection]:
    """Raises SchemaError for a URL that asks for what there is not, or names a user who may not use the schema: that is
    found only now."""
    try:
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(connect(url, name=name, timeout=timeout))
            except ValueError as error:  # a ClientConfigurationError is one too
                raise SchemaError(f"The database's URL, or PGPORT or its like, cannot be used: {error}") from error
            if await connection.fetchval(SQL["schema"]) is None:
                raise SchemaError(
                    "There is no schema that the database's user may use: grant USAGE on one in its search_path."
                )
            yield connection
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaError(f"The database's user may not: {error}") from error


async def check_on(connection: Connection, folder: Path = FOLDER) -> None:
    """Like `check`, on a connection that is there; raises PostgreSQL's own errors."""
    migrations = await asyncio.to_thread(read, folder)
    applied = await _applied(connection)
    if pending := compare(migrations, applied):
        raise SchemaError(f"The schema lacks migration {pending[0].number} and newer ones: run `orderwire migrate`.")


@cache
def read(folder: Path) -> tuple[Migration, ...]:
    """The migrations that this code knows, in order; raises SchemaError for a file that is not as it must be."""
    migrations = [_parse(path) for path in sorted(folder.glob("*.sql"))]
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise SchemaError(
                f"Migration {expected:04} is missing or there twice: {migration.name} comes in its place."
            )
    return tuple(migrations)


def compare(migrations: Sequence[Migration], applied: Mapping[int, Applied]) -> Sequence[Migration]:
    """What is still to be applied. Newer migrations than this code knows are fine as long as they allow its age."""
    newest = len(migrations)
    if sorted(applied) != list(range(1, len(applied) + 1)):
        raise SchemaError("The record of applied migrations has a gap: restore schema_migrations from a backup.")
    for number, record in applied.items():
        if record.oldest_code > newest:
            raise SchemaError(
                f"This code knows migrations up to {newest}, the schema needs {record.oldest_code}: upgrade."
            )
        if number <= newest and record.checksum != migrations[number - 1].checksum:
            raise SchemaError(f"Migration {number:04}_{record.name} was changed after it was applied: write a new one.")
    return migrations[len(applied) :]


def _parse(path: Path) -> Migration:
    file = _FILE.fullmatch(path.name)
    content = path.read_bytes()
    sql = content.decode()
    header = _HEADER.match(sql)
    if file is None or header is None:
        raise SchemaError(f"{path.name}: want NNNN_name.sql that starts with '-- oldest-code: N'.")
    checksum = hashlib.sha256(content).hexdigest()
    return Migration(int(file["number"]), file["name"], int(header["oldest_code"]), checksum, sql)


async def _applied(connection: Connection) -> Mapping[int, Applied]:
    if not await connection.fetchval(SQL["is_recorded"]):
        return {}
    rows = await connection.fetch(SQL["applied"])
    return {row["number"]: Applied(row["name"], row["checksum"], row["oldest_code"]) for row in rows}


async def _apply(connection: Connection, migration: Migration) -> None:
    for _ in range(ATTEMPTS):
        try:
            async with connection.transaction():
                await connection.execute(SQL["bound_locks"])
                await connection.execute(migration.sql)
                await connection.execute(
                    SQL["record"], migration.number, migration.name, migration.checksum, migration.oldest_code
                )
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            log.warning("migration_waits_for_traffic", number=migration.number)
            await asyncio.sleep(random.uniform(*PAUSE))  # noqa: S311 jitter
        except asyncpg.PostgresError as error:
            if is_away(error):
                raise
            raise SchemaError(f"Migration {migration.number:04} failed and was rolled back: {error}") from error
        else:
            return
    raise SchemaError(f"Migration {migration.number:04} could not get its locks: run it again when traffic is lower.")
