"""Migrations applied to real PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from handlers.errors import Unavailable
from storage.migrate import FOLDER, SchemaError, check, check_on, migrate, read

WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'orderwire migrate' AND wait_event_type = 'Lock'
"""
TWO_ORDERS = """
    INSERT INTO accounts (id, email, name, role, password_hash)
    VALUES (gen_random_uuid(), 'ada@example.com', 'Ada', 'customer', '$');
    INSERT INTO orders (id, customer_id, status, version, currency, created_at, updated_at, total, search)
    SELECT gen_random_uuid(), id, 'placed', 1, 'EUR', now(), now(), 0, order_words(name, email, products, NULL)
    FROM accounts, unnest(ARRAY['USB/HDMI cable', 'Other cable']) AS products
"""
FOUND = "SELECT number FROM orders WHERE search @@ websearch_to_tsquery('simple', $1) ORDER BY number"


@pytest.fixture
async def sql(postgres_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """On a database without a schema."""
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    yield connection
    await connection.close()


@pytest.fixture
def url(postgres_url: str, sql: asyncpg.Connection[asyncpg.Record]) -> str:
    return postgres_url


def write(folder: Path, *migrations: str, oldest_code: int = 1) -> Path:
    read.cache_clear()
    for number, statement in enumerate(migrations, start=1):
        (folder / f"{number:04}_step_{number}.sql").write_text(f"-- oldest-code: {oldest_code}\n{statement}\n")
    return folder


async def test_migrations_are_applied_in_order_once(url: str, tmp_path: Path) -> None:
    write(tmp_path, "CREATE TABLE a (n int);", "ALTER TABLE a RENAME TO b; INSERT INTO b VALUES (1);")

    assert await migrate(url, tmp_path) == [1, 2]
    assert await migrate(url, tmp_path) == []
    await check(url, tmp_path)


async def test_the_schema_of_this_version_is_applied_and_fits(url: str) -> None:
    read.cache_clear()
    with pytest.raises(SchemaError, match="orderwire migrate"):
        await check(url)

    applied = await migrate(url)

    assert applied == list(range(1, len(applied) + 1))
    await check(url)


async def test_a_user_who_may_not_do_it_is_told_so(
    url: str, sql: asyncpg.Connection[asyncpg.Record], unique_name: str, tmp_path: Path
) -> None:
    """Since PostgreSQL 15 only the database's owner may create anything in the schema public."""
    write(tmp_path, "CREATE TABLE a (n int);")
    place = urlsplit(url)
    theirs = place._replace(netloc=f"{unique_name}:secret@{place.netloc.rpartition('@')[2]}").geturl()
    await sql.execute(f"CREATE ROLE \"{unique_name}\" LOGIN PASSWORD 'secret'")
    await sql.execute(f'GRANT USAGE ON SCHEMA public TO "{unique_name}"')
    try:
        with pytest.raises(SchemaError, match=r"^The database's user may not: permission denied for schema public$"):
            await migrate(theirs, tmp_path)
        await migrate(url, tmp_path)
        with pytest.raises(SchemaError, match="permission denied for table schema_migrations"):
            await check(theirs, tmp_path)
    finally:
        await sql.execute(f'DROP OWNED BY "{unique_name}"; DROP ROLE "{unique_name}"')


async def test_where_no_schema_may_be_used_it_is_said_so(url: str) -> None:
    theirs = f"{url}{'&' if urlsplit(url).query else '?'}search_path=nowhere"
    for command in (migrate, check):
        with pytest.raises(SchemaError, match=r"^There is no schema that the database's user may use"):
            await command(theirs)


async def test_a_check_can_use_a_connection_that_is_there(
    url: str, sql: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    write(tmp_path, "CREATE TABLE a (n int);")
    with pytest.raises(SchemaError, match="lacks migration 1"):
        await check_on(sql, tmp_path)
    await migrate(url, tmp_path)

    await check_on(sql, tmp_path)


async def test_of_several_at_once_one_applies_and_the_others_find_nothing_to_do(
    url: str, sql: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    write(tmp_path, "CREATE TABLE a (n int);", "INSERT INTO a VALUES (1);")

    done = await asyncio.gather(*(migrate(url, tmp_path) for _ in range(4)))

    assert sorted(done) == [[], [], [], [1, 2]]
    assert await sql.fetchval("SELECT count(*) FROM a") == 1


async def test_a_migration_that_fails_leaves_nothing_and_the_ones_before_it_stay(
    url: str, sql: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    write(tmp_path, "CREATE TABLE a (n int);", "CREATE TABLE b (n int); SELECT 1 / 0;")

    with pytest.raises(SchemaError, match="0002 failed"):
        await migrate(url, tmp_path)

    assert await sql.fetchval("SELECT to_regclass('a') IS NOT NULL AND to_regclass('b') IS NULL")
    write(tmp_path, "CREATE TABLE a (n int);", "CREATE TABLE b (n int);")
    assert await migrate(url, tmp_path) == [2]


async def test_a_changed_migration_is_refused(url: str, tmp_path: Path) -> None:
    await migrate(url, write(tmp_path, "CREATE TABLE a (n int);"))
    write(tmp_path, "CREATE TABLE a (n bigint);")

    with pytest.raises(SchemaError, match="0001_step_1 was changed"):
        await migrate(url, tmp_path)
    with pytest.raises(SchemaError, match="0001_step_1 was changed"):
        await check(url, tmp_path)


@pytest.mark.parametrize("oldest_code", [1, 2])
async def test_older_code_runs_on_a_newer_schema_only_if_that_allows_it(
    url: str, tmp_path: Path, oldest_code: int
) -> None:
    await migrate(url, write(tmp_path, "CREATE TABLE a (n int);"))
    await migrate(url, _appended(tmp_path, oldest_code))
    (tmp_path / "0002_newer.sql").unlink()
    read.cache_clear()

    if oldest_code == 1:
        await check(url, tmp_path)
        assert await migrate(url, tmp_path) == []
        return
    with pytest.raises(SchemaError, match="upgrade"):
        await check(url, tmp_path)
    with pytest.raises(SchemaError, match="upgrade"):
        await migrate(url, tmp_path)


async def test_a_migration_gives_way_to_traffic_and_comes_back(
    url: str, sql: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    await migrate(url, write(tmp_path, "CREATE TABLE a (n int);"))
    write(tmp_path, "CREATE TABLE a (n int);", "ALTER TABLE a ADD COLUMN m int;")

    async with sql.transaction():
        await sql.execute("SELECT * FROM a")  # a long transaction of a client: holds its lock to the end
        migrating = asyncio.create_task(migrate(url, tmp_path))
        async with asyncio.timeout(20):
            while not await _waiting(url):
                pass
            while await _waiting(url):  # it gives up by itself, and the clients behind it go on
                pass
    assert await migrating == [2]


async def test_a_migration_that_is_in_a_deadlock_with_traffic_comes_back(
    url: str, sql: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    await migrate(url, write(tmp_path, "CREATE TABLE a (n int); CREATE TABLE b (n int);"))
    change = "SET LOCAL deadlock_timeout = '100ms'; ALTER TABLE a ADD COLUMN m int; ALTER TABLE b ADD COLUMN m int;"
    write(tmp_path, "CREATE TABLE a (n int); CREATE TABLE b (n int);", change)

    async with sql.transaction():
        await sql.execute("SET LOCAL deadlock_timeout = '10s'; SELECT * FROM b")
        migrating = asyncio.create_task(migrate(url, tmp_path))
        async with asyncio.timeout(20):
            while not await _waiting(url):
                pass
            await sql.execute("SELECT * FROM a")  # which the migration has: it waits for us, and we for it
    assert await migrating == [2]


async def test_orders_from_before_are_found_by_each_word_that_a_slash_joins(
    url: str, sql: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    for path in sorted(FOLDER.glob("*.sql"))[:12]:
        shutil.copy(path, tmp_path)
    await migrate(url, tmp_path)
    await sql.execute(TWO_ORDERS)
    assert await _found(sql, "usb/hdmi", "hdmi", "cable") == [[1], [], [1, 2]]

    await migrate(url)

    assert await _found(sql, "usb/hdmi", "hdmi", "cable", '"usb hdmi"') == [[1], [1], [1, 2], [1]]


async def test_a_database_that_is_away_is_unavailable() -> None:
    nobody = "postgresql://nobody@127.0.0.1:1/nothing"
    with pytest.raises(Unavailable):
        await migrate(nobody)
    with pytest.raises(Unavailable):
        await check(nobody)


def _appended(folder: Path, oldest_code: int) -> Path:
    (folder / "0002_newer.sql").write_text(f"-- oldest-code: {oldest_code}\nSELECT 1;\n")
    read.cache_clear()
    return folder


async def _waiting(url: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        return bool(await connection.fetchval(WAITING))
    finally:
        await connection.close()


async def _found(sql: asyncpg.Connection[asyncpg.Record], *texts: str) -> list[list[int]]:
    """The numbers of the orders, for each text."""
    return [[row["number"] for row in await sql.fetch(FOUND, text)] for text in texts]
