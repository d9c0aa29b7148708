"""What is too old goes, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TypeAlias
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import orjson
import pytest
from structlog.testing import capture_logs

from handlers.ports.streams import Entry, Keep
from storage.retention import SQL as RETENTION
from storage.retention import Retention, RetentionOptions
from storage.streams import SQL as STREAMS
from storage.streams import TRIM_EVERY, PostgresStreams

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

HOUR = 3600.0


@pytest.fixture
async def sql(postgres_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


@pytest.fixture
def retention(postgres_url: str) -> Retention:
    return Retention(RetentionOptions(postgres_url, seen=2 * HOUR, batch=7))


async def fill(streams: PostgresStreams, channel: str, count: int) -> None:
    await streams.append([Entry(channel, "/", str(n), b"{}", 0) for n in range(count)])


async def offsets(streams: PostgresStreams, channel: str) -> list[int]:
    page = await streams.read(channel, after=0, limit=1000, max_bytes=2**20)
    return [one.offset for one in page.publications]


async def test_old_publications_go_in_batches_and_the_head_stays(
    streams: PostgresStreams, sql: Connection, retention: Retention
) -> None:
    for channel in ("a", "b"):
        await fill(streams, channel, 30)
    await sql.execute("""UPDATE publications SET expires_at = now() - interval '1 minute' WHERE "offset" <= 20""")
    heads = await streams.open(["a", "b"])

    deleted = await retention.clean()

    assert deleted == {"publications": 40, "seen": 0, "answers": 0, "minutes": 0, "hours": 0, "streams": 0}
    assert await offsets(streams, "a") == await offsets(streams, "b") == list(range(21, 31))
    assert await streams.open(["a", "b"]) == heads


async def test_a_publication_lives_as_long_as_its_entry_said(
    streams: PostgresStreams, sql: Connection, retention: Retention
) -> None:
    await streams.append([Entry("a", "/", str(ttl), b"{}", 0, keep=Keep(ttl=ttl)) for ttl in (0.001, HOUR)])

    await retention.clean()

    assert await offsets(streams, "a") == [2]
    left = await sql.fetchval("SELECT expires_at - now() FROM publications")
    assert timedelta(minutes=59) < left < timedelta(minutes=61)


async def test_what_no_longer_can_be_read_of_a_small_stream_goes_as_it_grows(
    streams: PostgresStreams, sql: Connection
) -> None:
    for n in range(TRIM_EVERY):
        await streams.append([Entry("a", "/", str(n), b"{}", 0, keep=Keep(size=5))])

    assert await sql.fetchval("SELECT count(*) FROM publications") == 5


async def test_a_stream_never_loses_one_from_its_middle(
    streams: PostgresStreams, sql: Connection, retention: Retention
) -> None:
    await fill(streams, "a", 10)
    # A transaction that waited for the stream's lock is dated before the one that it waited for.
    await sql.execute("""UPDATE publications SET expires_at = now() - interval '1 minute' WHERE "offset" IN (2, 5)""")

    await retention.clean()

    assert await offsets(streams, "a") == [6, 7, 8, 9, 10]


async def test_a_batch_that_ends_within_a_stream_leaves_its_newer_part(
    streams: PostgresStreams, sql: Connection
) -> None:
    await fill(streams, "a", 20)
    await sql.execute("UPDATE publications SET expires_at = now() - interval '1 minute'")

    await sql.execute(RETENTION["publications"].replace("$1", "'0'").replace("$2", "7"))

    left = await offsets(streams, "a")
    assert left == list(range(21 - len(left), 21))
    assert 0 < len(left) < 20


async def test_an_event_is_recognized_after_its_publication_went(
    streams: PostgresStreams, sql: Connection, retention: Retention
) -> None:
    await fill(streams, "a", 3)
    await sql.execute("UPDATE publications SET expires_at = now() - interval '1 minute'")
    await sql.execute("UPDATE seen SET seen_at = now() - interval '61 minutes'")
    await retention.clean()
    assert await streams.append([Entry("a", "/", "1", b"{}", 0)]) == {}

    await sql.execute("UPDATE seen SET seen_at = now() - interval '121 minutes'")
    assert (await retention.clean())["seen"] == 3
    assert len(await streams.append([Entry("a", "/", "1", b"{}", 0)])) == 1


async def test_answers_go_after_a_day(sql: Connection, retention: Retention) -> None:
    account = uuid4()
    await sql.execute(
        "INSERT INTO accounts (id, email, name, role, password_hash) VALUES ($1, 'a@b', '', 'customer', '')", account
    )
    await sql.execute(
        "INSERT INTO idempotency_answers (account_id, key, fingerprint, status, body, created_at) "
        "SELECT $1, n::text, '', 201, '', now() - n * interval '1 hour' FROM generate_series(1, 40) AS n",
        account,
    )

    assert (await retention.clean())["answers"] == 17
    assert await sql.fetchval("SELECT max(now() - created_at) < interval '24 hours' FROM idempotency_answers")


async def test_streams_go_when_unused_for_a_month_unless_they_have_publications(
    streams: PostgresStreams, sql: Connection, retention: Retention
) -> None:
    for channel in ("unused", "empty", "full"):
        await fill(streams, channel, 1)
    await sql.execute("DELETE FROM publications WHERE channel <> 'full'")
    await sql.execute("UPDATE streams SET updated_at = now() - interval '31 days' WHERE channel <> 'empty'")
    epoch = (await streams.open(["unused"]))["unused"].epoch

    assert (await retention.clean())["streams"] == 1
    assert await sql.fetchval("SELECT array_agg(channel ORDER BY channel) FROM streams") == ["empty", "full"]

    [again] = (await streams.append([Entry("unused", "/", "new", b"{}", 0)])).values()
    assert again.publication.offset == 1
    assert again.epoch != epoch


async def test_a_stream_is_not_forgotten_before_what_it_recognizes(
    streams: PostgresStreams, sql: Connection, postgres_url: str
) -> None:
    await fill(streams, "a", 1)
    await sql.execute("DELETE FROM publications; UPDATE streams SET updated_at = now() - interval '40 days'")

    for days, gone in ((50, 0), (35, 1)):
        retention = Retention(RetentionOptions(postgres_url, seen=days * 24 * HOUR))
        assert (await retention.clean())["streams"] == gone


async def test_a_stream_that_is_appended_to_while_it_is_looked_at_is_kept(
    streams: PostgresStreams, sql: Connection, retention: Retention, postgres_url: str
) -> None:
    await fill(streams, "a", 1)
    await sql.execute("DELETE FROM publications; UPDATE streams SET updated_at = now() - interval '31 days'")
    async with sql.transaction():
        await sql.fetch(
            STREAMS["append"], ["a"], ["/"], ["new"], [b"{}"], [0], [None], [None], [9], [9.0], "saltsaltsa"
        )
        cleaning = asyncio.create_task(retention.clean())
        async with asyncio.timeout(20):
            while not await _is_waiting(postgres_url):
                pass

    assert (await cleaning)["streams"] == 0
    assert await offsets(streams, "a") == [2]


@pytest.mark.parametrize(("table", "at"), [("publications", "expires_at"), ("seen", "seen_at")])
async def test_looking_for_old_rows_in_vain_reads_few_pages(sql: Connection, table: str, at: str) -> None:
    columns = {
        "publications": f"""("offset", channel, data, time_ms, {at}) SELECT $1 + n, 'a', repeat('x', 300)::bytea, 0""",
        "seen": f"(id, channel, source, {at}) SELECT $1 + n, 'a', repeat('x', 300)",
    }[table]
    window, rows = 3, 4000
    for hour in range(8):  # a day's life in short: rows come, the oldest go, vacuum makes room for the next
        await sql.execute(
            f"INSERT INTO {table} {columns}, now() + $2 * interval '1 hour' FROM generate_series(1, {rows}) AS n",
            hour * rows,
            hour - window,
        )
        await sql.execute(f"DELETE FROM {table} WHERE {at} < now() + $1 * interval '1 hour'", hour - 2 * window)
        await sql.execute(f"VACUUM ANALYZE {table}")

    assert await sql.fetchval(f"SELECT pg_relation_size('{table}') / 8192") > 400
    statement = RETENTION[table].replace("$1::interval", "interval '10 hours'").replace("$2", "5000")
    assert await _pages_read(sql, statement) < 20


async def test_streams_with_publications_are_passed_over_without_reading_those(sql: Connection) -> None:
    await sql.execute(
        "INSERT INTO streams (channel, salt, top, updated_at) "
        "SELECT n, 'saltsaltsa', 100, now() - interval '40 days' FROM generate_series(1, 20) AS n"
    )
    await sql.execute(
        """INSERT INTO publications (channel, "offset", data, time_ms) """
        "SELECT c, n, repeat('x', 300)::bytea, 0 FROM generate_series(1, 20) AS c, generate_series(1, 1000) AS n"
    )
    await sql.execute("VACUUM ANALYZE")

    statement = RETENTION["streams"].replace("$1::interval", "interval '30 days'").replace("$2", "5000")
    assert await _pages_read(sql, statement) < 200


async def test_one_node_cleans_at_a_time(sql: Connection, retention: Retention) -> None:
    await sql.execute(RETENTION["try_lock"])

    assert await retention.clean() == {}


async def _pages_read(sql: Connection, statement: str) -> int:
    [plan] = orjson.loads(await sql.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {statement}"))
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


async def _is_waiting(url: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'orderwire retention' AND wait_event_type = 'Lock'"
            )
        )
    finally:
        await connection.close()


async def test_what_may_not_be_deleted_does_not_end_it(postgres_url: str, unique_name: str) -> None:
    role = unique_name.replace("-", "_")
    parts = urlsplit(postgres_url)
    url = urlunsplit(parts._replace(netloc=f"{role}:p@{parts.netloc.rpartition('@')[2]}"))
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    await admin.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        with capture_logs() as logs:
            running = asyncio.create_task(Retention(RetentionOptions(url, seen=3600, interval=0.02)).run())
            async with asyncio.timeout(10):
                while len(logs) < 2 and not running.done():  # noqa: ASYNC110 - it tells nobody but the log
                    await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()
    finally:
        await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await admin.close()

    assert {log["event"] for log in logs} == {"retention_postponed"}
