"""What the port's contract cannot say: the plan of the append, and epochs that follow the database."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from handlers.ports.streams import Entry
from storage.streams import SQL, PostgresStreams, StreamsOptions, open_streams


@pytest.fixture
async def sql(postgres_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


async def epoch_of(streams: PostgresStreams) -> str:
    return (await streams.open(["a"]))["a"].epoch


async def generation(streams: PostgresStreams) -> int:
    return int((await epoch_of(streams)).partition(".")[2])


@pytest.mark.parametrize("analyzed", [True, False])
async def test_the_append_is_linear_whatever_the_planner_knows(
    streams: PostgresStreams, sql: asyncpg.Connection[asyncpg.Record], analyzed: bool
) -> None:
    await sql.execute(
        "INSERT INTO seen (channel, source, id) SELECT 'c' || n % 3, '/s', n::text FROM generate_series(1, 200000) AS n"
    )
    if analyzed:
        await sql.execute("ANALYZE seen")
    size = 900
    columns: tuple[list[Any], ...] = (
        [f"c{n % 3}" for n in range(size)],
        ["/s"] * size,
        [str(200_000 - 300 + n) for n in range(size)],  # a third is known
        [b"{}"] * size,
        [0] * size,
        [None] * size,
        [None] * size,
        [10_000] * size,
        [60.0] * size,
    )

    async with streams._writers.connection() as connection:
        told = await connection.fetchval("EXPLAIN (ANALYZE, FORMAT JSON) " + SQL["append"], *columns, "saltsaltsa")

    plan = list(nodes(json.loads(told)[0]["Plan"]))
    assert "Nested Loop" not in {node["Node Type"] for node in plan}
    looks = [node for node in plan if node.get("Relation Name") == "seen" and "Insert" not in node.get("Operation", "")]
    assert {node["Node Type"] for node in looks} <= {"Index Only Scan", "Index Scan"}
    assert {node["Index Name"] for node in looks} == {"seen_pkey"}
    assert all(node["Actual Loops"] <= size for node in plan)
    assert all(node["Actual Loops"] == 1 for node in plan if node["Node Type"] == "CTE Scan")


async def test_writers_of_the_same_channels_in_any_order_never_deadlock(postgres_url: str) -> None:
    rng = random.Random(7)
    channels = [f"c{n}" for n in range(50)]

    def batch(name: str) -> list[Entry]:
        return [Entry(channel, "/", name, b"{}", 0) for channel in rng.sample(channels, len(channels))]

    async with open_streams(StreamsOptions(postgres_url, writers=8, acquire_timeout=10, append_deadline=10)) as streams:
        await asyncio.gather(*(streams.append(batch(str(n))) for n in range(100)))

        assert {head.offset for head in (await streams.open(channels)).values()} == {100}


async def test_the_append_is_planned_once_and_never_compiled(streams: PostgresStreams) -> None:
    async with streams._writers.connection() as connection:
        assert await connection.fetchval("SHOW plan_cache_mode") == "force_generic_plan"
        assert await connection.fetchval("SHOW jit") == "off"


async def test_another_database_system_changes_every_epoch_once(
    streams: PostgresStreams, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await streams.append([Entry("a", "/", "1", b"{}", 0)])
    before = await generation(streams)
    await sql.execute("UPDATE deployment SET system_identifier = system_identifier + 1")  # as after pg_restore

    after = await asyncio.gather(*(generation(streams) for _ in range(10)))

    assert set(after) == {before + 1}


async def test_whoever_asks_what_moved_notices_another_database(
    streams: PostgresStreams, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    known = await streams.open(["a", "b"])
    await sql.execute("UPDATE deployment SET timeline = timeline + 1")

    moved = await streams.moved(known)

    assert moved.keys() == known.keys()
    assert await streams.moved(moved) == {}


async def test_looking_for_what_moved_probes_the_index_however_many_streams_there_are(
    streams: PostgresStreams, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await sql.execute("INSERT INTO streams SELECT 'c' || n, 'salt', 5 FROM generate_series(1, 100000) AS n")
    await sql.execute("ANALYZE streams")
    known = [f"c{n}" for n in range(500)]

    told = await sql.fetchval("EXPLAIN (FORMAT JSON) " + SQL["moved"], known, [5] * 500, ["salt.1"] * 500)

    looks = [node for node in nodes(json.loads(told)[0]["Plan"]) if node.get("Relation Name") == "streams"]
    assert {node.get("Index Name") for node in looks} == {"streams_pkey"}


async def test_another_timeline_changes_every_epoch(
    streams: PostgresStreams, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await streams.append([Entry("a", "/", "1", b"{}", 0)])
    before = await epoch_of(streams)
    await sql.execute("UPDATE deployment SET timeline = timeline + 1")  # as after a failover

    after = await epoch_of(streams)

    assert after != before
    assert after.partition(".")[0] == before.partition(".")[0]


async def test_a_new_connection_follows_the_database_before_it_mints_offsets(
    streams: PostgresStreams, sql: asyncpg.Connection[asyncpg.Record], postgres_url: str
) -> None:
    [first] = (await streams.append([Entry("a", "/", "1", b"{}", 0)])).values()
    await sql.execute("UPDATE deployment SET timeline = timeline + 1")

    async with open_streams(StreamsOptions(postgres_url)) as restarted:
        [second] = (await restarted.append([Entry("a", "/", "2", b"{}", 0)])).values()

    assert second.epoch != first.epoch
    assert second.publication.offset == 2


async def test_an_operator_can_change_every_epoch(streams: PostgresStreams) -> None:
    await streams.append([Entry("a", "/", "1", b"{}", 0)])
    before = await epoch_of(streams)

    assert await streams.new_epoch() == await generation(streams)
    assert await epoch_of(streams) != before


async def test_streams_begun_by_different_batches_have_different_epochs(streams: PostgresStreams) -> None:
    [first] = (await streams.append([Entry("a", "/", "1", b"{}", 0)])).values()
    [second] = (await streams.append([Entry("b", "/", "1", b"{}", 0)])).values()

    assert first.epoch != second.epoch
