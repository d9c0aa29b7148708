"""The channels that the server subscribes a client to: the client knows of each before it hears anything of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import pytest

from handlers.ports.domain import Position
from realtime.bus_memory import MemoryExchange
from realtime.control import Control, Enroll, Whose
from realtime.namespaces import ChannelOptions, Namespaces
from storage.streams import PostgresStreams, StreamsOptions, open_streams
from tests.integration.test_websocket_tokens import connected, signed
from tests.integration.websocket_node import Node, running, texts, until
from tests.peers import Peer

KEPT = ChannelOptions(history_size=1000, history_ttl=60.0, force_recovery=True)
NAMESPACES = Namespaces(retention=86_400, has_personal=True, named={"kept": KEPT})
BOTH = ["kept:a", "kept:late"]


class Late(PostgresStreams):
    """What is called late is opened when it may be."""

    asked: asyncio.Event
    may_open: asyncio.Event

    async def open(self, channels: Sequence[str]) -> Mapping[str, Position]:
        if "kept:late" in channels:
            self.asked.set()
            await self.may_open.wait()
        return await super().open(channels)


@pytest.fixture
async def streams(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Late]:
    async with open_streams(StreamsOptions(postgres_url)) as opened:
        monkeypatch.setattr(opened, "__class__", Late)
        assert isinstance(opened, Late)
        opened.asked, opened.may_open = asyncio.Event(), asyncio.Event()
        yield opened


@pytest.fixture
async def node(streams: Late, peer: Peer) -> AsyncIterator[Node]:
    async with running(streams, MemoryExchange().bus(), namespaces=NAMESPACES) as started:
        yield replace(started, peer=peer)


async def test_nothing_is_pushed_before_the_reply_to_connect(node: Node, streams: Late) -> None:
    """An SDK does not know the channel before: what came too early was lost."""
    async with node.socket() as client:
        await client.say({"id": 1, "connect": {"token": signed(sub="42", channels=BOTH)}})
        await streams.asked.wait()
        await node.publish("kept:a", b'"news"')
        await until(lambda: node.measured("deliveries_total") == 1)
        streams.may_open.set()
        assert set((await client.hear())["connect"]["subs"]) == {*BOTH, "#42"}
        assert (await client.hear())["push"]["pub"]["data"] == "news"


async def test_a_large_recovery_goes_on_after_the_reply_to_connect(node: Node, streams: Late) -> None:
    await node.publish("kept:a", *texts(300, 10_000))
    since = {"kept:a": {"recover": True, "offset": 0, "epoch": await node.epoch("kept:a")}}
    async with node.socket() as client:
        await client.say({"id": 1, "connect": {"token": signed(sub="42", channels=BOTH), "subs": since}})
        await streams.asked.wait()
        for _ in range(5):  # whoever went on meanwhile would have read as much by then
            await streams.read("kept:a", after=0, limit=1000, max_bytes=256 * 1024)
        streams.may_open.set()
        recovered = (await client.hear())["connect"]["subs"]["kept:a"]["publications"]
        heard = [item["offset"] for item in recovered] + await client.offsets("kept:a", 300)
    assert heard == list(range(1, 301))


async def test_an_error_at_connect_is_said_though_channels_were_joined(node: Node, streams: Late) -> None:
    async with node.socket() as client:
        await client.say({"id": 1, "connect": {"token": signed(sub="42", channels=[*BOTH, "unknown:a"])}})
        await streams.asked.wait()
        await node.publish("kept:a", b'"news"')
        streams.may_open.set()
        assert (await client.hear())["error"]["code"] == 102


async def test_where_the_backend_lets_a_subscription_begin_what_was_missed_follows(node: Node) -> None:
    await node.publish("kept:a", b"1", b"2", b"3")
    async with connected(node, sub="42") as (client, _):
        epoch = await node.epoch("kept:a")
        await Control(node.bus, list).tell(Enroll(Whose("42"), "kept:a", offset=1, epoch=epoch))
        begun = (await client.hear())["push"]["subscribe"]
        await node.publish("kept:a", b"4")
        assert await client.offsets("kept:a", 4) == [2, 3, 4]
    assert begun == {"recoverable": True, "positioned": True, "offset": 1, "epoch": epoch}


@pytest.mark.parametrize("user", ["Jürgen", "x" * 255])
async def test_a_user_whose_id_names_no_channel_has_none_of_its_own(node: Node, user: str) -> None:
    async with connected(node, sub=user) as (_, welcome):
        assert not welcome.get("subs")


async def test_other_data_for_a_channel_is_no_other_grant(node: Node) -> None:
    async with connected(node, sub="42", subs={"kept:a": {"data": {"at": 1}}}) as (client, _):
        again = signed(sub="42", subs={"kept:a": {"data": {"at": 2}}})
        assert "refresh" in await client.ask({"id": 2, "refresh": {"token": again}})
