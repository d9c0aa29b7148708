"""Two nodes on one PostgreSQL and one Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import pytest
from centrifuge import (  # type: ignore[import-untyped]
    Client,
    ClientEventHandler,
    PublicationContext,
    SubscribedContext,
    SubscriptionEventHandler,
)
from prometheus_client import CollectorRegistry

from realtime.bus_redis import RedisBusOptions, open_redis_bus
from realtime.metrics import RealtimeMetrics
from storage.streams import StreamsOptions, open_streams
from tests.integration.websocket_node import FEED, Node, running, texts


@asynccontextmanager
async def a_node(postgres_url: str, redis_url: str, channel: str) -> AsyncIterator[Node]:
    metrics = RealtimeMetrics(CollectorRegistry())
    async with (
        open_streams(StreamsOptions(postgres_url)) as streams,
        open_redis_bus(RedisBusOptions(redis_url, channel), metrics) as bus,
        running(streams, bus) as node,
    ):
        yield node


@pytest.fixture
async def nodes(postgres_url: str, redis_url: str, unique_name: str) -> AsyncIterator[tuple[Node, Node]]:
    async with (
        a_node(postgres_url, redis_url, unique_name) as one,
        a_node(postgres_url, redis_url, unique_name) as other,
    ):
        yield one, other


async def test_what_two_nodes_publish_at_once_reaches_the_clients_of_both_in_order(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    async with one.client(FEED) as here, other.client(FEED) as there:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(50):
                tasks.create_task(one.publish(FEED, *texts(2)))
                tasks.create_task(other.publish(FEED, *texts(2)))
        assert await here.offsets(FEED, 200) == await there.offsets(FEED, 200) == list(range(1, 201))


async def test_a_client_resumes_on_the_other_node(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    async with one.client(FEED) as client:
        await one.publish(FEED, *texts(2))
        await client.offsets(FEED, 2)
    epoch = await one.epoch(FEED)
    await other.publish(FEED, *texts(3))
    async with other.client() as client:
        command = {"id": 2, "subscribe": {"channel": FEED, "recover": True, "offset": 2, "epoch": epoch}}
        reply = (await client.ask(command))["subscribe"]
    assert [publication["offset"] for publication in reply["publications"]] == [3, 4, 5]


async def test_a_history_that_is_removed_on_one_node_is_nowhere(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    await one.publish(FEED, *texts(3))
    async with other.client(FEED) as client:
        await one.publish(FEED, *texts(2))  # which the other node remembers
        await client.offsets(FEED, 5)
        await one.hub.remove_history(FEED)
        await one.publish(FEED, b'"later"')
        await client.offsets(FEED, 6)  # so it has heard of the removal too
        epoch = await one.epoch(FEED)
        async with other.client() as late:
            since = {"recover": True, "offset": 4, "epoch": epoch}
            reply = (await late.ask({"id": 2, "subscribe": {"channel": FEED, **since}}))["subscribe"]
            page = (await late.ask({"id": 3, "history": {"channel": FEED, "limit": -1}}))["history"]

    assert "recovered" not in reply
    assert [publication["data"] for publication in page["publications"]] == ["later"]
    assert page["offset"] == 6


@dataclass
class Sdk(ClientEventHandler, SubscriptionEventHandler):  # type: ignore[misc]
    subscribed: asyncio.Event = field(default_factory=asyncio.Event)
    joins: asyncio.Queue[SubscribedContext] = field(default_factory=lambda: asyncio.Queue(1000))
    heard: asyncio.Queue[int] = field(default_factory=lambda: asyncio.Queue(1000))

    async def on_subscribed(self, ctx: SubscribedContext) -> None:
        assert ctx.recoverable
        self.joins.put_nowait(ctx)
        self.subscribed.set()

    async def on_publication(self, ctx: PublicationContext) -> None:
        self.heard.put_nowait(ctx.pub.offset)


@asynccontextmanager
async def sdk_client(node: Node, sdk: Sdk) -> AsyncIterator[Client]:
    client = Client(node.url.replace("http", "ws"), events=sdk, token=node.token())
    try:
        await client.connect()
        yield client
    finally:
        await client.disconnect()


async def test_the_python_sdk_hears_what_it_missed_while_it_was_away(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    sdk = Sdk()
    async with sdk_client(one, sdk) as client:
        await client.new_subscription(FEED, events=sdk).subscribe()
        async with asyncio.timeout(10):
            await sdk.subscribed.wait()
            await other.publish(FEED, *texts(2))
            heard = [await sdk.heard.get() for _ in range(2)]
            await client.disconnect()
            await other.publish(FEED, *texts(3))
            await client.connect()
            heard += [await sdk.heard.get() for _ in range(3)]
    assert heard == [1, 2, 3, 4, 5]


async def test_the_python_sdk_that_came_before_the_first_publication_is_told_of_a_new_epoch(
    nodes: tuple[Node, Node], postgres_url: str
) -> None:
    """A failover lost the last two of what it heard, and others have their offsets now."""
    one, other = nodes
    sdk = Sdk()
    async with sdk_client(one, Sdk()) as client, asyncio.timeout(20):
        await client.new_subscription(FEED, events=sdk).subscribe()
        before = await sdk.joins.get()
        await one.publish(FEED, *texts(5))
        assert [await sdk.heard.get() for _ in range(5)] == [1, 2, 3, 4, 5]
        await client.disconnect()
        await lose_the_end(postgres_url, 3)
        await other.publish(FEED, *texts(2))

        await client.connect()
        after = await sdk.joins.get()

    assert (after.was_recovering, after.recovered) == (True, False)
    assert after.stream_position.offset == 5
    assert after.stream_position.epoch != before.stream_position.epoch != ""


async def lose_the_end(postgres_url: str, top: int) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute('DELETE FROM publications WHERE "offset" > $1', top)
    await connection.execute("DELETE FROM seen")
    await connection.execute("UPDATE streams SET top = $1 WHERE channel = $2", top, FEED)
    await connection.execute("UPDATE deployment SET timeline = timeline + 1")
    await connection.close()
