"""Who is there, and who comes and goes: on real sockets of two nodes that share one Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from handlers.accounts.model import Account
from handlers.actor import Role
from realtime.bus_redis import RedisBusOptions, open_redis_bus
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import ChannelOptions, Namespaces
from realtime.presence_redis import RedisPresenceOptions, open_redis_presence
from storage.streams import StreamsOptions, open_streams
from tests.integration.websocket_node import STAFF, Client, Node, running
from tests.peers import Peer

SEEN = ChannelOptions(
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
    allow_subscribe_for_client=True,
    allow_presence_for_subscriber=True,
)
NAMESPACES = Namespaces(
    retention=86_400,
    named={
        "room": SEEN,
        "kept": replace(SEEN, history_size=10, history_ttl=60.0, force_recovery=True),
        "users": replace(SEEN, join_leave_per_user=True),
        "asked": replace(SEEN, force_push_join_leave=False),
        "shy": replace(SEEN, force_push_join_leave=False, allow_presence_for_subscriber=False),
        "unseen": ChannelOptions(allow_subscribe_for_client=True),
    },
)
OTHER = Account(UUID(int=43), "other@example.com", "Other", Role.CUSTOMER, "hash")

OpenNode = Callable[[], AbstractAsyncContextManager[Node]]


@pytest.fixture
def open_node(postgres_url: str, redis_url: str, unique_name: str, peer: Peer) -> OpenNode:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Node]:
        async with (
            open_streams(StreamsOptions(postgres_url)) as streams,
            open_redis_bus(RedisBusOptions(redis_url, unique_name), RealtimeMetrics(CollectorRegistry())) as bus,
            open_redis_presence(RedisPresenceOptions(redis_url, unique_name)) as presence,
            running(streams, bus, namespaces=NAMESPACES, presence=presence) as node,
        ):
            yield replace(node, peer=peer)

    return opened


@pytest.fixture
async def nodes(open_node: OpenNode) -> AsyncIterator[tuple[Node, Node]]:
    async with open_node() as one, open_node() as other:
        yield one, other


@asynccontextmanager
async def subscriber(
    node: Node, channel: str, account: Account = STAFF, *, join_leave: bool = False
) -> AsyncIterator[tuple[Client, str]]:
    """A client in the channel, and its id."""
    async with node.socket() as client:
        welcome = await client.ask({"id": 1, "connect": {"token": node.token(account)}})
        reply = await client.ask({"id": 2, "subscribe": {"channel": channel, "join_leave": join_leave}})
        assert "subscribe" in reply, reply
        yield client, welcome["connect"]["client"]


def abort(client: Client) -> None:
    """Without a word, as a machine that loses its network."""
    connection = client.socket._response.connection
    assert connection is not None
    assert connection.transport is not None
    connection.transport.abort()


async def told(client: Client) -> tuple[str, str]:
    """The next join or leave, and whose connection it is."""
    push = (await client.hear())["push"]
    kind = "join" if "join" in push else "leave"
    return kind, push[kind]["info"]["client"]


async def present(client: Client, channel: str) -> dict[str, Any]:
    members: dict[str, Any] = (await client.ask({"id": 5, "presence": {"channel": channel}}))["presence"]["presence"]
    return members


@pytest.mark.parametrize("channel", ["room:a", "kept:a"])
async def test_who_is_in_a_channel_is_known_on_every_node(nodes: tuple[Node, Node], channel: str) -> None:
    one, other = nodes
    async with subscriber(one, channel) as (first, first_id):
        assert await told(first) == ("join", first_id)
        async with subscriber(other, channel, OTHER) as (second, second_id):
            assert await told(first) == ("join", second_id)
            assert await told(second) == ("join", second_id)
            for client in (first, second):
                assert {name: info["user"] for name, info in (await present(client, channel)).items()} == {
                    first_id: str(STAFF.id),
                    second_id: str(OTHER.id),
                }
                stats = await client.ask({"id": 6, "presence_stats": {"channel": channel}})
                assert stats["presence_stats"] == {"num_clients": 2, "num_users": 2}
            await second.ask({"id": 7, "unsubscribe": {"channel": channel}})
            assert await told(first) == ("leave", second_id)
        assert set(await present(first, channel)) == {first_id}


async def test_who_loses_its_connection_is_gone_at_once(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    async with subscriber(one, "room:a") as (first, first_id), AsyncExitStack() as stack:
        await told(first)
        second, second_id = await stack.enter_async_context(subscriber(other, "room:a", OTHER))
        await told(first)
        abort(second)

        assert await told(first) == ("leave", second_id)
        assert set(await present(first, "room:a")) == {first_id}


async def test_two_tabs_are_one_user_that_joins_once_and_leaves_once(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    async with subscriber(one, "users:a") as (first, first_id):
        await told(first)
        async with subscriber(other, "users:a", OTHER) as (_, tab):
            assert await told(first) == ("join", tab)
            async with subscriber(one, "users:a", OTHER):
                stats = await first.ask({"id": 6, "presence_stats": {"channel": "users:a"}})
                assert stats["presence_stats"] == {"num_clients": 3, "num_users": 2}
            await first.ask({"id": 7, "presence": {"channel": "users:a"}})
        kind, _ = await told(first)
        assert kind == "leave"
        assert set(await present(first, "users:a")) == {first_id}


async def test_on_its_own_node_a_client_is_there_with_the_reply_and_gone_with_the_next(open_node: OpenNode) -> None:
    async with open_node() as node, subscriber(node, "asked:a") as (watcher, watching), node.client() as busy:
        for _ in range(20):
            await busy.ask({"id": 2, "subscribe": {"channel": "asked:a"}})
            assert len(await present(busy, "asked:a")) == 2
            await busy.ask({"id": 3, "unsubscribe": {"channel": "asked:a"}})
            assert set(await present(watcher, "asked:a")) == {watching}


@pytest.mark.parametrize(
    ("channel", "asks", "hears"),
    [("asked:a", False, False), ("asked:a", True, True), ("shy:a", True, False)],
)
async def test_who_asks_for_joins_and_may_see_the_presence_hears_them(
    nodes: tuple[Node, Node], channel: str, asks: bool, hears: bool
) -> None:
    node, _ = nodes
    async with (
        subscriber(node, channel, join_leave=asks) as (client, _),
        subscriber(node, "room:end") as (watch, watch_id),
    ):
        # The same node told of the second join later than of the first.
        assert await told(watch) == ("join", watch_id)
        await client.say({"id": 9, "ping": {}})
        first = await client.hear()

    assert ("push" in first) == hears


@pytest.mark.parametrize("command", ["presence", "presence_stats"])
@pytest.mark.parametrize(
    ("channel", "code"), [("unseen:a", 108), ("shy:a", 103), ("room:b", 103), ("orders:feed", 108), ("nowhere:a", 102)]
)
async def test_who_may_not_see_the_presence_has_its_error(
    nodes: tuple[Node, Node], command: str, channel: str, code: int
) -> None:
    async with nodes[0].client("room:a") as client:
        while True:
            reply = await client.ask({"id": 3, command: {"channel": channel}})
            if "push" not in reply:
                break
        assert reply["error"]["code"] == code


async def test_who_was_refused_an_unrecovered_start_is_not_there(nodes: tuple[Node, Node]) -> None:
    node, _ = nodes
    async with subscriber(node, "kept:a") as (first, first_id):
        await told(first)
        async with node.client() as second:
            lost = {"recover": True, "offset": 7, "epoch": "lost", "flag": 2}
            reply = await second.ask({"id": 2, "subscribe": {"channel": "kept:a", **lost}})
            assert reply["error"]["code"] == 112
            assert {(await told(first))[0], (await told(first))[0]} == {"join", "leave"}
            assert set(await present(first, "kept:a")) == {first_id}
