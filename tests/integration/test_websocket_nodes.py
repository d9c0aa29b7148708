"""Two nodes on one PostgreSQL and one Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

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
    await other.publish(FEED, *texts(3))
    async with other.client() as client:
        command = {"id": 2, "subscribe": {"channel": FEED, "recover": True, "offset": 2, "epoch": ""}}
        reply = (await client.ask(command))["subscribe"]
    assert [publication["offset"] for publication in reply["publications"]] == [3, 4, 5]


@dataclass
class Sdk(ClientEventHandler, SubscriptionEventHandler):  # type: ignore[misc]
    subscribed: asyncio.Event = field(default_factory=asyncio.Event)
    heard: asyncio.Queue[int] = field(default_factory=lambda: asyncio.Queue(1000))

    async def on_subscribed(self, ctx: SubscribedContext) -> None:
        assert ctx.recoverable
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
