"""PostgreSQL killed, restarted and frozen under everything that uses it: errors come fast, and work goes on after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from handlers.errors import Unavailable
from handlers.events import SOURCE, Event
from handlers.ports.domain import Position
from handlers.ports.outbox import OutboxAway
from handlers.ports.streams import Entry, StreamsAway
from storage.outbox import PostgresOutbox
from storage.postgres import Postgres, open_postgres
from storage.retention import Retention, RetentionOptions
from storage.streams import PostgresStreams, StreamsOptions, open_streams
from tests.database_options import postgres_options
from tests.services.postgres import Postgres as Server

AN_ANSWER = 3.0  # seconds until a request must have one, whatever happened to PostgreSQL


@pytest.fixture
async def postgres(own_postgres_url: str) -> AsyncIterator[Postgres]:
    async with open_postgres(postgres_options(own_postgres_url)) as opened:
        yield opened


@pytest.fixture
async def streams(own_postgres_url: str) -> AsyncIterator[PostgresStreams]:
    async with open_streams(StreamsOptions(own_postgres_url, append_deadline=2.0)) as opened:
        yield opened


async def emit(postgres: Postgres, name: str) -> None:
    async with postgres.transaction() as unit:
        await unit.outbox.add(Event(name, SOURCE, "order.created", "1", datetime(2026, 1, 31, tzinfo=UTC), {}))


async def warm(postgres: Postgres) -> None:
    """Have the whole pool connected."""
    await asyncio.gather(*(emit(postgres, str(n)) for n in range(30)))


async def test_requests_fail_while_postgresql_is_down_and_the_next_after_it_is_back_succeeds(
    own_postgres: Server, postgres: Postgres
) -> None:
    await warm(postgres)
    await asyncio.to_thread(own_postgres.kill)

    async with asyncio.timeout(AN_ANSWER):
        outcomes = await asyncio.gather(*(emit(postgres, f"lost {n}") for n in range(30)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 30

    await asyncio.to_thread(own_postgres.start)
    for n in range(20):
        await emit(postgres, f"back {n}")


async def test_a_restart_that_nobody_noticed_costs_nothing(own_postgres: Server, postgres: Postgres) -> None:
    await warm(postgres)

    await asyncio.to_thread(own_postgres.restart)

    await warm(postgres)


async def test_a_transaction_cut_off_by_a_crash_is_unavailable_and_left_nothing(
    own_postgres: Server, postgres: Postgres
) -> None:
    async def cut_off() -> None:
        async with postgres.transaction() as unit:
            await unit.outbox.add(Event("cut", SOURCE, "order.created", "1", datetime(2026, 1, 31, tzinfo=UTC), {}))
            await asyncio.to_thread(own_postgres.kill)

    with pytest.raises(Unavailable):
        await cut_off()
    assert not postgres.bell.elsewhere.is_set()

    await asyncio.to_thread(own_postgres.start)
    async with postgres.pool.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 0


async def test_a_frozen_postgresql_answers_nobody_and_hangs_nobody(own_postgres: Server, postgres: Postgres) -> None:
    await warm(postgres)
    await asyncio.to_thread(own_postgres.pause)

    async with asyncio.timeout(AN_ANSWER):
        outcomes = await asyncio.gather(*(emit(postgres, f"lost {n}") for n in range(30)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 30
    async with asyncio.timeout(AN_ANSWER):  # also where a connection has to be made
        with pytest.raises(Unavailable):
            await emit(postgres, "lost too")

    await asyncio.to_thread(own_postgres.resume)
    await emit(postgres, "back")


async def test_a_freeze_in_the_middle_of_a_transaction_ends_it(own_postgres: Server, postgres: Postgres) -> None:
    async def frozen() -> None:
        async with postgres.transaction() as unit:
            await unit.products.page(after_sku="", limit=1)
            await asyncio.to_thread(own_postgres.pause)
            await unit.products.page(after_sku="", limit=1)

    async with asyncio.timeout(AN_ANSWER):
        with pytest.raises(Unavailable):
            await frozen()

    await asyncio.to_thread(own_postgres.resume)
    await emit(postgres, "back")


async def test_streams_are_away_while_postgresql_is_and_append_and_read_after(
    own_postgres: Server, streams: PostgresStreams
) -> None:
    before = Entry("a", "/", "1", b"{}", 0)
    [first] = (await streams.append([before])).values()
    await asyncio.to_thread(own_postgres.kill)

    with pytest.raises(StreamsAway):
        await streams.append([Entry("a", "/", "2", b"{}", 0)])
    with pytest.raises(StreamsAway):
        await streams.read("a", after=0, limit=1, max_bytes=1)
    with pytest.raises(StreamsAway):
        await streams.open(["a"])
    with pytest.raises(StreamsAway):
        await streams.moved({"a": Position(1, first.epoch)})

    await asyncio.to_thread(own_postgres.start)
    [second] = (await streams.append([before, Entry("a", "/", "2", b"{}", 0)])).values()
    assert (second.publication.offset, second.epoch) == (2, first.epoch)  # a crash alone loses no offset


async def test_frozen_streams_are_away_in_time(own_postgres: Server, streams: PostgresStreams) -> None:
    await streams.append([Entry("a", "/", "1", b"{}", 0)])
    await asyncio.to_thread(own_postgres.pause)

    async with asyncio.timeout(AN_ANSWER):
        outcomes = await asyncio.gather(
            streams.append([Entry("a", "/", "2", b"{}", 0)]),
            streams.open(["a"]),
            streams.moved({}),
            streams.read("a", after=0, limit=1, max_bytes=1),
            return_exceptions=True,
        )
    assert [type(outcome) for outcome in outcomes] == [StreamsAway] * 4

    await asyncio.to_thread(own_postgres.resume)
    await streams.append([Entry("a", "/", "2", b"{}", 0)])  # whether that one made it nobody knows
    page = await streams.read("a", after=0, limit=9, max_bytes=999)
    assert [one.offset for one in page.publications] == [1, 2]


async def test_the_relay_is_told_of_a_crash_and_leads_again_after_it(
    own_postgres: Server, postgres: Postgres, own_postgres_url: str
) -> None:
    outbox = PostgresOutbox(own_postgres_url, postgres.pool, postgres.bell)
    await emit(postgres, "1")
    async with outbox.lead() as leadership:
        assert len(await leadership.pending(9, published=[])) == 1
        await asyncio.to_thread(own_postgres.kill)
        async with asyncio.timeout(AN_ANSWER):
            with pytest.raises(OutboxAway):
                await leadership.wait(60.0)
            with pytest.raises(OutboxAway):
                await leadership.pending(9, published=[])
    with pytest.raises(OutboxAway):
        async with outbox.lead():
            pass

    await asyncio.to_thread(own_postgres.start)
    async with outbox.lead() as leadership:
        assert [row.message.id for row in await leadership.pending(9, published=[])] == ["1"]


async def test_telling_another_node_and_cleaning_up_outlive_an_outage(
    own_postgres: Server, postgres: Postgres, own_postgres_url: str
) -> None:
    outbox = PostgresOutbox(own_postgres_url, postgres.pool, postgres.bell)
    retention = Retention(RetentionOptions(own_postgres_url, seen=60, interval=0.01))
    running = [asyncio.create_task(outbox.run()), asyncio.create_task(retention.run())]
    await asyncio.to_thread(own_postgres.kill)
    postgres.bell.ring()
    with pytest.raises(Unavailable):
        await retention.clean()
    await asyncio.to_thread(own_postgres.start)

    async with outbox.lead() as leadership, asyncio.timeout(AN_ANSWER):
        postgres.bell.leads = False  # as if another node led
        postgres.bell.here.clear()
        await emit(postgres, "1")
        await postgres.bell.here.wait()
        assert len(await leadership.pending(9, published=[])) == 1
    for task in running:
        assert not task.done()
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
