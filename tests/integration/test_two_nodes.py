"""Every feature across two whole nodes: what is done at one is true at the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from storage.postgres import open_postgres
from tests.database_options import postgres_options
from tests.deployment import ACCOUNT, Deploy, Deployment, namespace, of_account, signed, soon
from tests.doubles import a_product
from tests.integration.http_stream import Listener
from tests.integration.websocket_node import Client

SETTINGS = "[http_stream]\nenabled = true\n[sse]\nenabled = true\n[uni_sse]\nenabled = true\n" + namespace(
    "room",
    "history_size = 100",
    'history_ttl = "1h"',
    "force_recovery = true",
    "presence = true",
    "join_leave = true",
    "allow_subscribe_for_client = true",
    "allow_publish_for_client = true",
    "allow_presence_for_client = true",
    "allow_history_for_client = true",
    'allowed_delta_types = ["fossil"]',
    "delta_publish = true",
)
SETTINGS += namespace("typing", "allow_subscribe_for_client = true", "allow_publish_for_client = true")

Nodes = tuple[Deployment, Deployment]


@pytest.fixture
async def nodes(deploy: Deploy) -> AsyncIterator[Nodes]:
    async with deploy(SETTINGS) as one, deploy(SETTINGS) as other:
        while len((await one.api("info"))["nodes"]) < 2:  # noqa: ASYNC110 - they say hello by the bus
            await asyncio.sleep(0.02)
        yield one, other


async def data(client: Client) -> Any:
    return (await client.hear())["push"]["pub"]["data"]


async def test_a_publication(nodes: Nodes) -> None:
    one, other = nodes
    for channel in ("room:a", "typing:a"):
        async with one.client(channel) as near, other.client(channel) as far, other.client() as speaker:
            assert "publish" in await speaker.ask({"id": 3, "publish": {"channel": channel, "data": "by a client"}})
            assert [await data(client) for client in (near, far)] == ["by a client"] * 2
            await one.publish(channel, "by a backend")
            assert [await data(client) for client in (near, far)] == ["by a backend"] * 2


async def test_a_repeated_publication(nodes: Nodes) -> None:
    one, other = nodes
    once = {"channel": "room:a", "data": 1, "idempotency_key": "k"}
    assert await one.api("publish", **once) == await other.api("publish", **once)


async def test_a_position_and_a_history(nodes: Nodes) -> None:
    one, other = nodes
    async with one.client("room:a") as client:
        await one.publish("room:a", 1, 2, 3)
        assert [await data(client) for _ in range(3)] == [1, 2, 3]
        page = (await client.ask({"id": 3, "history": {"channel": "room:a", "limit": -1}}))["history"]
    async with other.client() as client:
        assert (await client.ask({"id": 3, "history": {"channel": "room:a", "limit": -1}}))["history"] == page
        position = {"recover": True, "offset": 1, "epoch": page["epoch"]}
        said = (await client.ask({"id": 4, "subscribe": {"channel": "room:a", **position}}))["subscribe"]
        assert said["recovered"] is True
        assert [pub["data"] for pub in said["publications"]] == [2, 3]
        await one.api("history_remove", channel="room:a")
        assert not (await other.api("history", channel="room:a", limit=-1))["publications"]


async def test_a_difference(nodes: Nodes) -> None:
    one, other = nodes
    document = {"text": "as it was, " * 20}
    async with one.client() as client:
        said = await client.ask({"id": 3, "subscribe": {"channel": "room:a", "delta": "fossil"}})
        assert said["subscribe"]["delta"] is True
        await other.publish("room:a", document, {**document, "n": 1})
        assert [(await client.hear())["push"]["pub"].get("delta", False) for _ in range(2)] == [False, True]


async def test_who_is_there(nodes: Nodes) -> None:
    one, other = nodes
    async with one.client() as client:
        await client.ask({"id": 2, "subscribe": {"channel": "room:a", "join_leave": True}})
        assert (await client.hear())["push"]["join"]["info"]["user"] == "42"
        async with other.client("room:a", token=signed(sub="43")):
            assert (await client.hear())["push"]["join"]["info"]["user"] == "43"
            members = (await client.ask({"id": 3, "presence": {"channel": "room:a"}}))["presence"]["presence"]
            assert sorted(member["user"] for member in members.values()) == ["42", "43"]
            for node in nodes:
                assert await node.api("presence_stats", channel="room:a") == {"num_clients": 2, "num_users": 2}
        assert (await client.hear())["push"]["leave"]["info"]["user"] == "43"


async def test_what_a_backend_does_to_a_user(nodes: Nodes) -> None:
    one, other = nodes
    async with one.client() as client:
        await other.api("subscribe", user="42", channel="room:a")
        assert (await client.hear())["push"]["subscribe"]["recoverable"] is True
        await other.publish("room:a", "hello")
        assert await data(client) == "hello"
        await other.api("unsubscribe", user="42", channel="room:a")
        assert (await client.hear())["push"]["unsubscribe"]["code"] == 2000
        await other.api("refresh", user="42", expire_at=soon(600))
        assert (await client.hear())["push"]["refresh"]["ttl"] > 590
        await other.api("disconnect", user="42")
        assert await client.closed() == (3503, "force disconnect")


async def test_what_a_backend_asks(nodes: Nodes) -> None:
    one, other = nodes
    async with one.client("room:a"), other.client("room:a", "typing:a"):
        for node in nodes:
            assert (await node.api("channels"))["channels"]["room:a"] == {"num_clients": 2}
            connections = (await node.api("connections", user="42"))["connections"]
            assert sorted(len(connection["channels"]) for connection in connections.values()) == [1, 2]
            assert {each["uid"] for each in (await node.api("info"))["nodes"]} == {
                each["uid"] for each in (await one.api("info"))["nodes"]
            }


@asynccontextmanager
async def streaming(node: Deployment, name: str) -> AsyncIterator[Listener]:
    hello = orjson.dumps({"id": 1, "connect": {"token": signed(sub="42")}}).decode()
    method, how = ("GET", {"params": {"cf_connect": hello}}) if "sse" in name else ("POST", {"data": hello})
    async with node.http.request(method, f"{node.url}/connection/{name}", **how) as response:
        yield Listener(response)


@pytest.mark.parametrize("name", ["http_stream", "sse"])
async def test_commands_of_a_stream_by_way_of_the_other(nodes: Nodes, name: str) -> None:
    one, other = nodes
    async with streaming(one, name) as listener:
        welcome = (await listener.hear())["connect"]
        command = orjson.dumps({"id": 2, "subscribe": {"channel": "room:a"}}).decode()
        body = {"session": welcome["session"], "node": welcome["node"], "data": command}
        async with other.http.post(f"{other.url}/emulation", json=body) as reply:
            assert reply.status == 204
        assert "subscribe" in await listener.hear()
        await other.publish("room:a", "hello")
        assert (await listener.hear())["push"]["pub"]["data"] == "hello"


async def test_an_order(nodes: Nodes, postgres_url: str) -> None:
    one, other = nodes
    mug, staff = a_product(stock=5), of_account()
    async with open_postgres(postgres_options(postgres_url, pool_size=1)) as database, database.transaction() as work:
        await work.accounts.add(ACCOUNT)
        await work.products.add(mug)
    async with one.client("orders:feed", token=staff) as near, other.client("orders:feed", token=staff) as far:
        body = {"items": [{"product_id": str(mug.id), "quantity": 2}]}
        headers = {"Authorization": f"Bearer {staff}"}
        async with one.http.post(f"{one.url}/api/v1/orders", json=body, headers=headers) as reply:
            placed = await reply.json()
        assert [(await data(client))["data"] for client in (near, far)] == [placed] * 2
        await far.say({"id": 3, "rpc": {"method": "orders.get", "data": {"id": placed["id"]}}})
        while "rpc" not in (said := await far.hear()):
            assert said["push"]["channel"] == f"#{ACCOUNT.id}"  # its own channel, too
        assert said["rpc"]["data"] | placed == said["rpc"]["data"]
