"""The database that comes back is not quite the one that was: clients that resume are told so, and never misled.

Whatever a client had of the end that was lost, its position belongs to an epoch that is no more.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from handlers.accounts.model import Account
from handlers.actor import Role
from handlers.errors import Unavailable
from realtime.bus_memory import MemoryExchange
from storage.migrate import migrate
from storage.postgres import open_postgres
from storage.streams import StreamsOptions, open_streams
from tests.database_options import postgres_options
from tests.integration.websocket_node import FEED, Client, Node, running, texts
from tests.services.postgres import Postgres, Standby

pytestmark = pytest.mark.timeout(120)

KEPT, LOST, NEW = 3, 2, 4


@pytest.fixture
def primary() -> Iterator[Postgres]:
    with Postgres() as server:
        asyncio.run(migrate(server.url))
        yield server


@pytest.fixture
def standby(primary: Postgres) -> Iterator[Standby]:
    with Standby(primary) as server:
        yield server


@pytest.fixture
def new_cluster() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@asynccontextmanager
async def node_on(url: str) -> AsyncIterator[Node]:
    async with open_streams(StreamsOptions(url)) as streams, running(streams, MemoryExchange().bus()) as node:
        yield node


async def subscribe(client: Client, channel: str, since: dict[str, Any], **more: Any) -> Any:
    return await client.ask({"id": 9, "subscribe": {"channel": channel, "recover": True, **since, **more}})


async def has_caught_up(primary: Postgres, standby: Standby) -> None:
    ahead, behind = await asyncpg.connect(primary.url), await asyncpg.connect(standby.url)
    at = await ahead.fetchval("SELECT pg_current_wal_lsn()::text")
    async with asyncio.timeout(10):
        has_it = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
        while not await behind.fetchval(has_it, at):
            await behind.execute("SELECT pg_sleep(0.02)")
    await asyncio.gather(ahead.close(), behind.close())


async def nobody_is_misled(node: Node, epoch: str) -> None:
    """By the database that lost its end; clients had heard `KEPT` + `LOST`."""
    await node.publish(FEED, *(b'"new %d"' % n for n in range(NEW)))
    for offset in (KEPT, KEPT + LOST):
        since = {"offset": offset, "epoch": epoch}
        async with node.client() as client:
            refused = await subscribe(client, FEED, since, flag=2)
            reply = (await subscribe(client, FEED, since))["subscribe"]
            page = (await client.ask({"id": 10, "history": {"channel": FEED, "limit": -1}}))["history"]
        assert refused["error"]["code"] == 112
        assert reply["was_recovering"] is True
        assert "recovered" not in reply
        assert "publications" not in reply
        assert reply["epoch"] != epoch
        assert (page["epoch"], page["offset"]) == (reply["epoch"], KEPT + NEW)
        assert [one["data"] for one in page["publications"]][KEPT:] == [f"new {n}" for n in range(NEW)]


async def test_a_standby_that_lagged_is_promoted(primary: Postgres, standby: Standby) -> None:
    async with node_on(primary.url) as node, node.client(FEED) as client:
        await node.publish(FEED, *texts(KEPT))
        await has_caught_up(primary, standby)
        await asyncio.to_thread(standby.stop)
        await node.publish(FEED, *texts(LOST))
        assert await client.offsets(FEED, KEPT + LOST) == list(range(1, KEPT + LOST + 1))
        epoch = await node.epoch(FEED)
        await asyncio.to_thread(primary.kill)
    await asyncio.to_thread(standby.start)
    await asyncio.to_thread(standby.promote)

    with capture_logs() as logs:
        async with node_on(standby.url) as node:
            await nobody_is_misled(node, epoch)
    assert "epochs_changed" in [entry["event"] for entry in logs]


async def test_what_is_too_late_is_not_shown_before_the_standby_has_it(primary: Postgres) -> None:
    owner = await asyncpg.connect(primary.url)
    await owner.execute("ALTER SYSTEM SET synchronous_standby_names = 'away'")
    await owner.close()
    await asyncio.to_thread(primary.stop)
    await asyncio.to_thread(primary.start)
    owner = await asyncpg.connect(primary.url)
    ada = Account(uuid4(), "ada@example.com", "Ada", Role.CUSTOMER, "$")
    async with open_postgres(postgres_options(primary.url, deadline=1.0)) as postgres:
        with pytest.raises(Unavailable):
            async with postgres.transaction() as unit:
                await unit.accounts.add(ada)
        await asyncio.sleep(1.0)  # for a server that was asked to stop
        assert await owner.fetchval("SELECT count(*) FROM accounts") == 0
        await owner.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await owner.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(10):
            while not await owner.fetchval("SELECT count(*) FROM accounts"):
                await owner.execute("SELECT pg_sleep(0.02)")
    await owner.close()


async def test_live_clients_are_told_when_their_node_finds_itself_on_the_standby(
    primary: Postgres, standby: Standby
) -> None:
    """Its URL names both, as libpq's do."""
    either = primary.url.replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/")
    async with node_on(f"{either}?target_session_attrs=primary") as node, node.client(FEED) as client:
        await node.publish(FEED, *texts(KEPT))
        await has_caught_up(primary, standby)
        await client.offsets(FEED, KEPT)
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(standby.promote)
        # Also in its personal channel, which only a new connection can be subscribed to again.
        assert await client.closed() == (3010, "insufficient state")


async def test_an_old_dump_is_restored_into_a_new_cluster(primary: Postgres, new_cluster: Postgres) -> None:
    async with node_on(primary.url) as node:
        await node.publish(FEED, *texts(KEPT))
        dump = await asyncio.to_thread(primary.dump, "postgres")
        await node.publish(FEED, *texts(LOST))
        epoch = await node.epoch(FEED)
    await asyncio.to_thread(new_cluster.restore, dump, "postgres")
    async with node_on(new_cluster.url) as node:
        await nobody_is_misled(node, epoch)


async def test_a_snapshot_of_the_files_is_put_back_and_the_operator_says_so(primary: Postgres) -> None:
    async with node_on(primary.url) as node:
        await node.publish(FEED, *texts(KEPT))
        epoch = await node.epoch(FEED)
    data, snapshot = primary.folder / "data", primary.folder / "snapshot"
    await asyncio.to_thread(primary.stop)
    await asyncio.to_thread(shutil.move, data, snapshot)
    await asyncio.to_thread(_copy, snapshot, data)
    await asyncio.to_thread(primary.start)
    async with node_on(primary.url) as node:
        await node.publish(FEED, *texts(LOST))
        assert await node.epoch(FEED) == epoch  # a restart alone changes nothing
    await asyncio.to_thread(primary.kill)
    await asyncio.to_thread(shutil.rmtree, data)
    await asyncio.to_thread(shutil.move, snapshot, data)
    await asyncio.to_thread(primary.start)

    async with open_streams(StreamsOptions(primary.url)) as streams:
        await streams.new_epoch()
    async with node_on(primary.url) as node:
        await nobody_is_misled(node, epoch)


def _copy(source: Any, target: Any) -> None:
    """With its owner."""
    subprocess.run(["cp", "-a", source, target], check=True)
