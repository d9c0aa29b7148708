"""Tokens that a deployment's own backend makes, on real sockets, in both forms of the protocol."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from handlers.ports.streams import Streams
from realtime.bus_memory import MemoryExchange
from realtime.namespaces import ChannelOptions, Namespaces
from tests.integration.websocket_node import CLIENT_TOKEN_KEY, FEED, Client, Node, running
from tests.peers import Peer
from tests.realtime_options import CLIENT

SEEN = ChannelOptions(presence=True, allow_presence_for_subscriber=True)
NAMESPACES = Namespaces(
    retention=86_400,
    has_personal=True,
    named={
        "kept": ChannelOptions(history_size=10, history_ttl=60.0, presence=True),
        "room": SEEN,
        "open": replace(SEEN, allow_subscribe_for_client=True, allow_publish_for_subscriber=True),
    },
)
QUICK = replace(CLIENT, expired_close_delay=0.3)
ACCOUNT = "00000000-0000-0000-0000-00000000002a"


def signed(**claims: Any) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(CLIENT_TOKEN_KEY), algorithms=["HS256"])


def soon() -> int:
    """A moment that a client has to refresh by: in one to two seconds."""
    return int(time.time()) + 2


@pytest.fixture
async def node(streams: Streams, peer: Peer) -> AsyncIterator[Node]:
    async with running(streams, MemoryExchange().bus(), QUICK, NAMESPACES) as started:
        yield replace(started, peer=peer)


@asynccontextmanager
async def connected(node: Node, **claims: Any) -> AsyncIterator[tuple[Client, Any]]:
    async with node.socket() as client:
        yield client, (await client.ask({"id": 1, "connect": {"token": signed(**claims)}}))["connect"]


async def test_a_user_of_the_backend_has_a_channel_of_its_own_and_no_end_without_one(node: Node) -> None:
    async with connected(node, sub="42") as (client, welcome):
        await node.publish("#42", b'"hello"')
        heard = (await client.hear())["push"]

    assert not welcome.get("expires")
    assert list(welcome["subs"]) == ["#42"]
    assert heard["channel"] == "#42"


async def test_a_connection_lives_as_long_as_its_token_and_as_the_next(node: Node) -> None:
    async with connected(node, sub="42", exp=soon() + 600) as (client, welcome):
        assert welcome["expires"] is True
        assert 590 < welcome["ttl"] <= 602
        again = await client.ask({"id": 2, "refresh": {"token": signed(sub="42", exp=soon())}})
        assert again["refresh"]["ttl"] <= 2
        assert await client.closed() == (3005, "connection expired")


@pytest.mark.parametrize(
    ("claims", "code"),
    [({"sub": "43"}, 3500), ({"sub": "42", "channels": ["open:b"]}, 3011), ({"sub": "42", "exp": 1}, 3005)],
)
async def test_a_refresh_for_somebody_else_or_other_channels_ends_the_connection(
    node: Node, claims: dict[str, Any], code: int
) -> None:
    async with connected(node, sub="42", exp=soon() + 60) as (client, _):
        await client.say({"id": 2, "refresh": {"token": signed(**claims)}})
        assert (await client.closed())[0] == code


async def test_an_expired_token_at_connect_is_an_error(node: Node) -> None:
    async with node.socket() as client:
        reply = await client.ask({"id": 1, "connect": {"token": signed(sub="42", exp=1)}})
        assert reply["error"]["code"] == 109


async def test_the_token_names_channels_that_the_server_subscribes_to(node: Node) -> None:
    subs = {"room:a": {"info": {"seat": 7}}}
    async with connected(node, sub="42", info={"name": "Ann"}, channels=["open:a"], subs=subs) as (client, welcome):
        members = await client.ask({"id": 2, "presence": {"channel": "room:a"}})
        while not members["presence"].get("presence"):
            members = await client.ask({"id": 2, "presence": {"channel": "room:a"}})

    assert set(welcome["subs"]) == {"#42", "open:a", "room:a"}
    assert members["presence"]["presence"] == {
        welcome["client"]: {
            "user": "42",
            "client": welcome["client"],
            "conn_info": {"name": "Ann"},
            "chan_info": {"seat": 7},
        }
    }


async def test_a_user_of_the_backend_is_no_account_whatever_its_id(node: Node) -> None:
    async with connected(node, sub=ACCOUNT, exp=soon() + 60) as (client, _):
        reply = await client.ask({"id": 2, "subscribe": {"channel": FEED}})
        assert reply["error"]["code"] == 103


@pytest.mark.parametrize("channel", [FEED, f"#{ACCOUNT}", "order:00000000-0000-0000-0000-000000000007"])
async def test_a_token_that_names_a_channel_of_the_domain_lets_nobody_in(node: Node, channel: str) -> None:
    async with node.socket() as client:
        reply = await client.ask({"id": 1, "connect": {"token": signed(sub="42", channels=[channel])}})
        assert reply["error"]["code"] == 103


async def test_a_users_id_may_be_a_uuid(node: Node) -> None:
    async with connected(node, sub=ACCOUNT) as (_, welcome):
        assert list(welcome["subs"]) == [f"#{ACCOUNT}"]


async def test_a_subscription_token_opens_a_channel_that_is_closed_otherwise(node: Node) -> None:
    async with connected(node, sub="42") as (client, _):
        for channel in ("room:a", "$open:a"):
            assert (await client.ask({"id": 2, "subscribe": {"channel": channel}}))["error"]["code"] == 103
            token = signed(sub="42", channel=channel)
            said = await client.ask({"id": 3, "subscribe": {"channel": channel, "token": token}})
            assert not said["subscribe"].get("expires")


async def test_what_a_subscription_token_says_of_its_bearer_stands_in_what_it_publishes(node: Node) -> None:
    async with connected(node, sub="42") as (client, _):
        token = signed(sub="42", channel="$open:a", info={"seat": 7})
        await client.ask({"id": 2, "subscribe": {"channel": "$open:a", "token": token}})
        await client.say({"id": 3, "publish": {"channel": "$open:a", "data": 1}})
        said = [await client.hear(), await client.hear()]

    [push] = [one["push"] for one in said if "push" in one]
    assert push["pub"]["info"]["chan_info"] == {"seat": 7}


@pytest.mark.parametrize(
    ("claims", "code"), [({"channel": "room:a", "sub": "42", "exp": 1}, 109), ({"sub": "42"}, 103)]
)
async def test_a_bad_subscription_token_is_an_error(node: Node, claims: dict[str, Any], code: int) -> None:
    async with connected(node, sub="42") as (client, _):
        reply = await client.ask({"id": 2, "subscribe": {"channel": "room:a", "token": signed(**claims)}})
        assert reply["error"]["code"] == code


@pytest.mark.parametrize("other", [{"channel": "room:b"}, {"sub": "43"}, {"client": "another"}])
async def test_a_subscription_token_of_somebody_else_ends_the_connection(node: Node, other: dict[str, str]) -> None:
    async with connected(node, sub="42") as (client, _):
        token = signed(**{"sub": "42", "channel": "room:a", **other})
        await client.say({"id": 2, "subscribe": {"channel": "room:a", "token": token}})
        assert await client.closed() == (3500, "invalid token")


async def test_a_subscription_ends_with_its_token_unless_it_is_refreshed(node: Node) -> None:
    async with connected(node, sub="42") as (client, _):
        for channel in ("room:a", "room:b"):
            token = signed(sub="42", channel=channel, exp=soon())
            said = await client.ask({"id": 2, "subscribe": {"channel": channel, "token": token}})
            assert said["subscribe"]["expires"] is True
        refresh = {"channel": "room:a", "token": signed(sub="42", channel="room:a", exp=soon() + 60)}
        assert (await client.ask({"id": 3, "sub_refresh": refresh}))["sub_refresh"]["ttl"] > 50
        ended = (await client.hear())["push"]

    assert ended == {"channel": "room:b", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}


@pytest.mark.parametrize(
    ("claims", "code"), [({"channel": "room:a", "sub": "42", "exp": 1}, 110), ({"sub": "42"}, 103)]
)
async def test_a_bad_refresh_of_a_subscription_is_an_error(node: Node, claims: dict[str, Any], code: int) -> None:
    async with connected(node, sub="42") as (client, _):
        token = signed(sub="42", channel="room:a", exp=soon() + 60)
        await client.ask({"id": 2, "subscribe": {"channel": "room:a", "token": token}})
        reply = await client.ask({"id": 3, "sub_refresh": {"channel": "room:a", "token": signed(**claims)}})
        assert reply["error"]["code"] == code


async def answers_in(client: Client, channel: str) -> list[int]:
    """The error codes, 0 for none, of everything that can be done with a channel."""
    commands: list[dict[str, Any]] = [
        {"publish": {"channel": channel, "data": 1}},
        {"history": {"channel": channel}},
        {"presence": {"channel": channel}},
    ]
    answers = [await client.ask({"id": n, **command}) for n, command in enumerate(commands, 10)]
    return [answer.get("error", {}).get("code", 0) for answer in answers]


async def test_a_connection_token_opens_channels_by_name_and_by_wildcard(node: Node) -> None:
    caps = [
        {"channels": ["kept:a"], "allow": ["sub"]},
        {"channels": ["kept:*"], "match": "wildcard", "allow": ["pub", "hst", "prs"]},
        {"channels": ["orders:feed"], "allow": ["sub", "pub", "hst", "prs"]},
    ]
    async with connected(node, sub="42", caps=caps) as (client, _):
        assert await answers_in(client, "kept:b") == [0, 0, 0]
        for channel, code in (("kept:b", 103), (FEED, 103), ("kept:a", 0)):
            answer = await client.ask({"id": 2, "subscribe": {"channel": channel}})
            assert answer.get("error", {}).get("code", 0) == code
        assert await answers_in(client, FEED) == [103, 103, 108]
    async with connected(node, sub="42") as (client, _):
        assert await answers_in(client, "kept:b") == [103, 103, 103]


async def test_a_subscription_token_opens_more_than_hearing_to_who_has_subscribed_with_it(node: Node) -> None:
    async with connected(node, sub="42") as (client, _):
        token = signed(sub="42", channel="kept:a", allow=["hst", "prs"])
        assert await answers_in(client, "kept:a") == [103, 103, 103]
        subscribe = {"channel": "kept:a", "token": token, "recoverable": True}
        assert (await client.ask({"id": 2, "subscribe": subscribe}))["subscribe"]["recoverable"]
        assert await answers_in(client, "kept:a") == [103, 0, 0]
        newer = {"channel": "kept:a", "token": signed(sub="42", channel="kept:a", allow=["pub"])}
        await client.ask({"id": 3, "sub_refresh": newer})
        await client.say({"id": 4, "publish": {"channel": "kept:a", "data": 1}})
        assert {kind for _ in range(2) for kind in await client.hear()} >= {"push", "publish"}
        await client.ask({"id": 5, "unsubscribe": {"channel": "kept:a"}})
        assert await answers_in(client, "kept:a") == [103, 103, 103]
