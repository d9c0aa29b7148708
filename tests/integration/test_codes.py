"""Codes that it takes some doing to be given, on real sockets; the others are met where their matter is tested."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from handlers.ports.streams import Page, Streams
from realtime.bus_memory import MemoryExchange
from realtime.control import Control, Kick, Whose
from realtime.protocol.codes import Disconnect, Error, Unsubscribed
from realtime.rate_limits import Rate, RateLimits
from tests.integration.http_stream import emulate, streaming
from tests.integration.test_websocket_tokens import signed
from tests.integration.websocket_node import FEED, STAFF, Node, running, texts
from tests.peers import Peer
from tests.realtime_options import CLIENT


@asynccontextmanager
async def a_node(streams: Streams, peer: Peer, **how: Any) -> AsyncIterator[Node]:
    async with running(streams, MemoryExchange().bus(), **how) as started:
        yield replace(started, peer=peer)


async def test_more_subscriptions_than_allowed_are_106(streams: Streams, peer: Peer) -> None:
    async with a_node(streams, peer, options=replace(CLIENT, channel_limit=1)) as node, node.client(FEED) as client:
        refused = await client.ask({"id": 3, "subscribe": {"channel": "open:a"}})
        await client.ask({"id": 4, "unsubscribe": {"channel": FEED}})
        assert (refused["error"]["code"], refused["error"]["message"]) == (106, "limit exceeded")
        assert "subscribe" in await client.ask({"id": 5, "subscribe": {"channel": FEED}})


async def test_a_second_subscription_to_a_channel_is_105(streams: Streams, peer: Peer) -> None:
    async with a_node(streams, peer) as node, node.client(FEED) as client:
        refused = await client.ask({"id": 3, "subscribe": {"channel": FEED}})
        assert (refused["error"]["code"], refused["error"]["message"]) == (105, "already subscribed")
        await node.publish(FEED, *texts(1))
        assert (await client.hear())["push"]["pub"]["offset"] == 1


@pytest.mark.parametrize("kind", [1, 2])
async def test_kinds_of_subscriptions_that_there_are_not_are_108(streams: Streams, peer: Peer, kind: int) -> None:
    async with a_node(streams, peer) as node, node.client() as client:
        refused = await client.ask({"id": 3, "subscribe": {"channel": FEED, "type": kind}})
        assert (refused["error"]["code"], refused["error"]["message"]) == (108, "not available")


async def test_a_message_that_nobody_takes_is_3508(streams: Streams, peer: Peer) -> None:
    async with a_node(streams, peer) as node, node.client() as client:
        await client.say({"send": {"data": "hello"}})
        assert await client.closed() == (3508, "not available")


async def test_more_commands_than_allowed_are_111_and_going_on_is_3013(streams: Streams, peer: Peer) -> None:
    limits = RateLimits(connection={"rpc": Rate(2, 60.0)})
    async with a_node(streams, peer, limits=limits) as node, node.client() as client:
        calls = [{"id": n, "rpc": {"method": "m"}} for n in range(2, 5)]
        answers = [(await client.ask(call))["error"] for call in calls]
        assert [answer["code"] for answer in answers] == [108, 108, 111]
        assert answers[-1]["temporary"] is True
        assert "error" in await client.ask({"id": 5, "ping": {}})  # of which there may be more
        await client.say(calls[0], calls[1])
        assert await client.closed() == (3013, "too many requests")
        assert node.measured("command_errors_total", {"code": "111"}) == 1


async def test_the_connections_of_one_user_share_its_limit(streams: Streams, peer: Peer) -> None:
    limits = RateLimits(user={"connect": Rate(2, 60.0)})
    async with a_node(streams, peer, limits=limits) as node, node.client(), node.client():
        async with node.socket() as third:
            refused = await third.ask({"id": 1, "connect": {"token": node.token()}})
            assert refused["error"]["code"] == 111
        async with node.socket() as somebody_else:
            other = replace(STAFF, id=uuid4())
            welcome = await somebody_else.ask({"id": 1, "connect": {"token": node.token(other)}})
            assert "connect" in welcome


async def test_more_waiting_than_two_frames_hold_is_3013_over_http(streams: Streams) -> None:
    small = replace(CLIENT, message_size_limit=1024)
    async with (
        running(streams, MemoryExchange().bus(), small) as node,
        streaming(node, "http_stream", {"id": 1, "connect": {"token": node.token()}}) as listener,
    ):
        welcome = (await listener.hear())["connect"]
        many = [{"id": n, "history": {"channel": FEED}} for n in range(2, 20)]
        await asyncio.gather(*(emulate(node, welcome, *many) for _ in range(50)))  # faster than PostgreSQL answers
        [*_, last] = await listener.ended()
        assert last["push"]["disconnect"] == {"code": 3013, "reason": "too many requests"}


async def test_a_socket_that_says_more_than_can_wait_is_held_back_and_not_closed(streams: Streams, peer: Peer) -> None:
    small = replace(CLIENT, message_size_limit=1024)
    async with a_node(streams, peer, options=small) as node, node.client() as client:
        ids = range(2, 1_002)
        for first in ids[::10]:
            await client.say(*({"id": n, "history": {"channel": FEED}} for n in range(first, first + 10)))
        assert [(await client.hear())["id"] for _ in ids] == [*ids]


@dataclass
class Breaking:
    """Streams with a bug that shows in the second page that is read."""

    streams: Streams
    reads: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.streams, name)

    async def read(self, channel: str, *, after: int, limit: int, max_bytes: int) -> Page:
        self.reads += 1
        if self.reads > 1:
            raise LookupError("a bug")
        return await self.streams.read(channel, after=after, limit=limit, max_bytes=max_bytes)


async def test_a_bug_that_shows_after_the_reply_is_3004(streams: Streams, peer: Peer) -> None:
    async with a_node(streams, peer) as node:
        await node.publish(FEED, *texts(20, 100_000))
        epoch = await node.epoch(FEED)
    with capture_logs() as logs:
        async with a_node(Breaking(streams), peer) as node, node.client() as client:
            since = {"recover": True, "offset": 0, "epoch": epoch}
            assert "subscribe" in await client.ask({"id": 2, "subscribe": {"channel": FEED, **since}})
            assert await client.closed() == (3004, "internal server error")

    assert "command_failed" in [entry["event"] for entry in logs]


async def test_who_is_sent_away_is_told_3503(streams: Streams, peer: Peer) -> None:
    why = Disconnect.FORCE_NO_RECONNECT
    async with a_node(streams, peer) as node, node.client() as client:
        await Control(node.bus, lambda: ()).tell(Kick(Whose(str(STAFF.id)), why.code, why.reason))
        assert await client.closed() == (3503, "force disconnect")


@pytest.mark.parametrize("name", ["uni_sse", "uni_http_stream"])
async def test_a_listener_that_may_not_hear_its_channels_is_told_3507(streams: Streams, peer: Peer, name: str) -> None:
    async with (
        a_node(streams, peer) as node,
        streaming(node, name, {"token": signed(sub="42", channels=["orders:feed"])}) as listener,
    ):
        assert await listener.ended() == [{"disconnect": {"code": 3507, "reason": "permission denied"}}]


def test_every_code_is_met_on_a_socket() -> None:
    """By one of the tests of a running node; a number that they do not even mention, they do not meet."""
    folder = Path(__file__).parent
    texts = [file.read_text() for file in (*folder.glob("test_*.py"), *(folder.parent / "faults").glob("test_*.py"))]
    mentioned = {int(number) for text in texts for number in re.findall(r"\b\d{3,4}\b", text)}
    assert {each.code for each in (*Error, *Disconnect, *Unsubscribed)} <= mentioned
