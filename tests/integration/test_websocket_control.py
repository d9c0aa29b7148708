"""What a backend does to somebody's connections, on two nodes that share one Redis."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from realtime.bus import Order
from realtime.bus_redis import RedisBusOptions, open_redis_bus
from realtime.control import Control, Enroll, Expel, Kick, Renew, Whose
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import ChannelOptions, Namespaces
from storage.streams import StreamsOptions, open_streams
from tests.integration.websocket_node import STAFF, Client, Node, running
from tests.peers import Peer
from tests.realtime_options import CLIENT

KEPT = ChannelOptions(history_size=10, history_ttl=60.0, force_recovery=True, allow_subscribe_for_client=True)
NAMESPACES = Namespaces(retention=86_400, named={"kept": KEPT, "plain": ChannelOptions()})
USER = str(STAFF.id)


@pytest.fixture
async def nodes(postgres_url: str, redis_url: str, unique_name: str, peer: Peer) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        streams = await stack.enter_async_context(open_streams(StreamsOptions(postgres_url)))
        client = replace(CLIENT, expired_close_delay=0.2)
        opened = []
        for _ in range(2):
            options = RedisBusOptions(redis_url, unique_name)
            bus = await stack.enter_async_context(open_redis_bus(options, RealtimeMetrics(CollectorRegistry())))
            opened.append(
                replace(await stack.enter_async_context(running(streams, bus, client, NAMESPACES)), peer=peer)
            )
        yield opened


@pytest.fixture
def control(nodes: list[Node]) -> Control:
    """A third node's, that has no connections."""
    return Control(nodes[0].bus, lambda: ())


@asynccontextmanager
async def connected(node: Node) -> AsyncIterator[tuple[Client, str]]:
    async with node.socket() as client:
        welcome = await client.ask({"id": 1, "connect": {"token": node.token()}})
        yield client, welcome["connect"]["client"]


async def test_all_of_a_users_connections_are_subscribed_and_unsubscribed(nodes: list[Node], control: Control) -> None:
    one, other = nodes
    async with connected(one) as (first, _), connected(other) as (second, _):
        await control.tell(Enroll(Whose(USER), "kept:a", data='{"hello":1}'))
        begun = [(await client.hear())["push"] for client in (first, second)]
        await one.publish("kept:a", b'"news"')
        heard = [(await client.hear())["push"]["pub"]["data"] for client in (first, second)]
        await control.tell(Expel(Whose(USER), "kept:a"))
        ended = [(await client.hear())["push"] for client in (first, second)]

    assert [push["channel"] for push in begun] == ["kept:a"] * 2
    assert all(push["subscribe"]["recoverable"] for push in begun)
    assert [push["subscribe"]["data"] for push in begun] == [{"hello": 1}] * 2
    assert heard == ["news"] * 2
    assert ended == [{"channel": "kept:a", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}] * 2


async def test_one_connection_alone_may_be_meant(nodes: list[Node], control: Control) -> None:
    one, other = nodes
    async with connected(one) as (first, _), connected(other) as (second, second_id):
        await control.tell(Enroll(Whose(USER, client=second_id), "plain:a", data="[7]"))
        begun = (await second.hear())["push"]
        assert (begun["channel"], begun["subscribe"]["data"]) == ("plain:a", [7])
        assert "error" in await first.ask({"id": 2, "ping": {}})  # and no push before it


async def test_a_user_is_closed_on_every_node_but_for_those_that_are_spared(
    nodes: list[Node], control: Control
) -> None:
    one, other = nodes
    async with connected(one) as (first, _), connected(other) as (second, second_id):
        await control.tell(Kick(Whose("somebody else"), 4000, "not you"))
        await control.tell(Kick(Whose(USER, spared=(second_id,)), 4001, "enough"))
        assert await first.closed() == (4001, "enough")
        assert "error" in await second.ask({"id": 2, "ping": {}})


async def test_a_subscription_may_begin_where_the_backend_says(nodes: list[Node], control: Control) -> None:
    node, _ = nodes
    await node.publish("kept:a", b"1", b"2")
    async with connected(node) as (client, _):
        await control.tell(Enroll(Whose(USER), "kept:a", offset=1, epoch=await node.epoch("kept:a")))
        said = (await client.hear())["push"]

    assert said["subscribe"]["offset"] == 1


async def test_a_subscription_may_begin_at_the_very_beginning(nodes: list[Node], control: Control) -> None:
    node, _ = nodes
    await node.publish("kept:c", b"1", b"2")
    async with connected(node) as (client, _):
        await control.tell(Enroll(Whose(USER), "kept:c", offset=0))
        await client.hear()
        assert await client.offsets("kept:c", 2) == [1, 2]


async def test_a_subscription_may_end_when_the_backend_says(nodes: list[Node], control: Control) -> None:
    node, _ = nodes
    async with connected(node) as (client, _):
        for channel, seconds in (("kept:a", -1), ("kept:b", 1000), ("plain:a", 2)):
            await control.tell(Enroll(Whose(USER), channel, expire_at=int(time.time()) + seconds))
        begun = [(await client.hear())["push"]["channel"] for _ in range(2)]
        ended = (await client.hear())["push"]

    assert begun == ["kept:b", "plain:a"]
    assert ended == {"channel": "plain:a", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}


async def test_nobody_is_put_into_a_channel_of_the_domain_that_is_not_theirs(
    nodes: list[Node], control: Control
) -> None:
    node, _ = nodes
    async with connected(node) as (client, _):
        for channel in (f"order:{STAFF.id}", "#00000000-0000-0000-0000-000000000007", "orders:feed"):
            await control.tell(Enroll(Whose(USER), channel))
        assert (await client.hear())["push"]["channel"] == "orders:feed"  # staff may hear this one


async def test_an_order_of_another_version_is_passed_over(nodes: list[Node], control: Control) -> None:
    node, _ = nodes
    of_newer_kind = b'{"kind":"unheard of","whose":{"user":"x"}}'
    with_more = b'{"kind":"expel","whose":{"user":"x","client":"","spared":[],"size":43},"channel":"c","more":1}'
    with_less = b'{"kind":"kick"}'
    async with connected(node) as (client, _):
        with capture_logs() as logs:
            await node.bus.publish([Order("unheard of", b"")])
            for body in (of_newer_kind, with_more, with_less):
                await node.bus.publish([Order("control", body)])
            await control.tell(Enroll(Whose(USER), "plain:a"))
            assert (await client.hear())["push"]["channel"] == "plain:a"

    said = {(entry["event"], entry["kind"]) for entry in logs if entry["event"].startswith("order")}
    assert said == {("order_unknown", "unheard of"), ("order_failed", "control")}


async def test_a_connection_is_given_more_time_or_for_ever_or_none(nodes: list[Node], control: Control) -> None:
    node, _ = nodes
    async with connected(node) as (client, client_id):
        await control.tell(Renew(Whose(USER, client_id), int(time.time()) + 1000))
        more = (await client.hear())["push"]["refresh"]
        await control.tell(Renew(Whose(USER), 0))
        for_ever = (await client.hear())["push"]["refresh"]
        await control.tell(Renew(Whose(USER), 1))
        assert await client.closed() == (3005, "connection expired")

    assert more["expires"]
    assert 990 < more["ttl"] <= 1000
    assert for_ever == {}
