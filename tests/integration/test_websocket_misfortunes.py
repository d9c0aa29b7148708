"""What goes wrong for one client is nobody else's misfortune, and nothing is lost without a word."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import orjson
import pytest
from aiohttp import WSMsgType
from aiohttp.helpers import DEFAULT_CHUNK_SIZE
from joserfc import jwt
from joserfc.jwk import OctKey
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

import realtime.connection
import realtime.connections
from handlers.audience import order_stats
from handlers.ports.domain import Position
from handlers.ports.streams import Entry, Published, Streams
from realtime.bus import BusAway, decode
from realtime.bus_memory import MemoryExchange
from realtime.connections import Link
from realtime.identities import Identities
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import ChannelOptions, Namespaces
from realtime.protocol.codes import Closing, Disconnect
from realtime.protocol.json_codec import JsonCodec
from realtime.publisher import Draft, Publisher
from realtime.transports.websocket import Frames
from realtime.transports.wires import SocketWire
from storage.streams import PostgresStreams
from tests.integration.websocket_node import CLIENT_TOKEN_KEY, FEED, PATH, Node, running, texts, until
from tests.peers import Peer
from tests.realtime_options import CLIENT, HUB

OPEN = ChannelOptions(allow_subscribe_for_client=True, allow_publish_for_client=True)
KEPT = replace(OPEN, history_size=100, history_ttl=60.0, force_recovery=True)
NAMESPACES = Namespaces(
    retention=86_400,
    has_personal=True,
    named={
        "open": OPEN,
        "kept": KEPT,
        "paced": replace(KEPT, write_delay=0.05),
        "value": replace(KEPT, history_size=5, is_cache=True),
    },
)


class Moody(PostgresStreams):
    """Raises, for what is said to be bad, what nobody expects."""

    async def append(self, entries: Sequence[Entry]) -> Mapping[int, Published]:
        self._refuse([entry.data.decode() for entry in entries])
        return await super().append(entries)

    async def open(self, channels: Sequence[str]) -> Mapping[str, Position]:
        self._refuse(channels)
        return await super().open(channels)

    def _refuse(self, said: Sequence[str]) -> None:
        if any("bad" in each for each in said):
            raise RuntimeError


@pytest.fixture
async def node(streams: Streams, peer: Peer) -> AsyncIterator[Node]:
    async with running(streams, MemoryExchange().bus(), namespaces=NAMESPACES) as started:
        yield replace(started, peer=peer)


@pytest.mark.parametrize("command", ["subscribe", "publish", "history", "presence"])
@pytest.mark.parametrize("name", ["kept:\x00", "kept:\x1b", "kept:\x7f"])
async def test_control_characters_name_no_channel(node: Node, command: str, name: str) -> None:
    async with node.client() as bad, node.client("kept:a") as good:
        refused = await bad.ask({"id": 5, command: {"channel": name, **({"data": 1} if command == "publish" else {})}})
        assert refused["error"]["code"] == 107
        await node.publish("kept:a", b"1")
        assert (await good.hear())["push"]["pub"]["data"] == 1


async def test_what_cannot_be_appended_or_opened_is_an_error_for_who_wanted_it(
    streams: PostgresStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "__class__", Moody)
    async with running(streams, MemoryExchange().bus(), namespaces=NAMESPACES) as node, node.client("kept:a") as client:
        with capture_logs() as logs:
            for command in ({"publish": {"channel": "kept:a", "data": "bad"}}, {"subscribe": {"channel": "kept:bad"}}):
                assert (await client.ask({"id": 3, **command}))["error"]["code"] == 100
        assert {log["event"] for log in logs if log["log_level"] == "error"} >= {"append_failed", "opening_failed"}
        await client.say({"id": 4, "publish": {"channel": "kept:a", "data": "good"}})
        assert {*await client.hear(), *await client.hear()} == {"push", "id", "publish"}
        assert "subscribe" in await client.ask({"id": 5, "subscribe": {"channel": "kept:b"}})


async def test_a_bug_closes_the_client_whose_it_is(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError

    async with node.client("kept:a") as good, node.socket() as bad:
        with monkeypatch.context() as patched, capture_logs() as logs:
            patched.setattr(Identities, "wants_key", lambda *_: True)
            patched.setattr(Identities, "fetch_key", fail)
            await bad.say({"id": 1, "connect": {"token": "t"}})
            assert (await bad.closed())[0] == Disconnect.SERVER_ERROR.code
        assert "connection_failed" in {log["event"] for log in logs}
        await node.publish("kept:a", b"1")
        assert (await good.hear())["push"]["pub"]["data"] == 1


async def test_a_slow_but_steady_client_gets_all_that_it_missed_and_what_comes_then(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page takes it longer than the time in which it may take nothing at all."""
    monkeypatch.setattr(realtime.connection, "_CATCH_UP_PATIENCE", 0.3)
    many = 40
    async with running(streams, MemoryExchange().bus()) as node:
        for _ in range(many // 10):
            await node.publish(FEED, *texts(10, 100_000))
        where = {"recover": True, "offset": 0, "epoch": await node.epoch(FEED)}
        reader, writer = await narrow(node)
        writer.write(masked({"id": 1, "connect": {"token": node.token()}}))
        await reader.readuntil(b'"connect"')
        [theirs] = node.connections
        with socket.socket(fileno=os.dup(cast("SocketWire", theirs.wire).number)) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)  # as on a line with a small window
        writer.write(masked({"id": 2, "subscribe": {"channel": FEED, **where}}))
        heard = bytearray()
        began = time.monotonic()
        while time.monotonic() < began + 1.5:
            heard += await reader.read(2048)
            await asyncio.sleep(0.02)
        assert len(heard) < 256 * 1024  # not yet the first page
        await node.publish(FEED, b'"live"')
        async with asyncio.timeout(10):
            while b'"live"' not in heard[-1000:]:
                heard += await reader.read(1 << 20)
        writer.transport.abort()

    offsets = [int(found[1]) for found in re.finditer(rb'"offset":(\d+)\}', heard)]
    assert offsets == list(range(1, many + 2))


async def narrow(node: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket that takes little at a time."""
    host, _, port = node.origin.removeprefix("http://").partition(":")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=raw, limit=4096)
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: {host}:{port}\r\n{upgrade}\r\n{key}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def masked(command: object) -> bytes:
    """A text frame, with a mask that changes nothing."""
    payload = orjson.dumps(command)
    return b"\x81\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload


async def test_who_is_behind_is_never_sent_an_older_state_after_a_newer_one(streams: Streams) -> None:
    """Not either while somebody else takes differences."""
    async with running(streams, MemoryExchange().bus()) as node, node.client(order_stats()) as slow:
        connection = slow.socket.get_extra_info("socket") and slow.socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        cast("asyncio.Transport", connection.transport).pause_reading()
        [theirs] = node.connections
        count = 0
        while not theirs._held:
            count += 1
            await node.publish(order_stats(), orjson.dumps({"n": count, "padding": "x" * 100_000}))
            await asyncio.sleep(0.01)
        async with node.client() as other:
            await other.ask({"id": 2, "subscribe": {"channel": order_stats(), "delta": "fossil"}})
            await node.publish(order_stats(), b'{"n":"newest"}')
            await other.hear()
            cast("asyncio.Transport", connection.transport).resume_reading()
            offsets = await slow.offsets(order_stats(), up_to=count + 1)

    assert offsets == sorted(set(offsets))


async def test_the_latest_state_is_never_older_than_the_one_that_a_client_has(node: Node) -> None:
    async with node.client("value:a") as other, node.client() as client:
        await node.publish("value:a", b'"old"')
        await other.hear()
        await node.publish("value:a", b'"new"', lose=True)  # the client has it from another node
        where = {"recover": True, "offset": 2, "epoch": await node.epoch("value:a")}
        said = (await client.ask({"id": 3, "subscribe": {"channel": "value:a", **where}}))["subscribe"]

    assert (said["offset"], said.get("publications", [])) == (2, [])


@pytest.mark.parametrize("name", ["kept:a", "paced:a"])
async def test_a_message_that_overtook_another_is_asked_for_at_once(streams: Streams, name: str) -> None:
    """Long before a look at the head of the stream would find it."""
    rarely = replace(HUB, head_check_interval=60.0, head_check_interval_without_bus=60.0)
    async with (
        running(streams, MemoryExchange().bus(), namespaces=NAMESPACES, hub_options=rarely) as node,
        node.client(name) as client,
    ):
        await node.publish(name, b"1")
        await node.publish(name, b"2")
        entries = [Entry(name, "/tests", str(number), b"%d" % number, 0) for number in (3, 4)]
        three, four = (await streams.append(entries)).values()
        await node.bus.publish([four])
        await asyncio.sleep(0)
        assert await client.offsets(name, up_to=4) == [1, 2, 3, 4]
        assert three.publication.offset == 3


async def test_a_publication_with_a_key_that_did_not_come_about_can_be_tried_again(streams: Streams) -> None:
    bus = MemoryExchange().bus()
    publisher = Publisher(streams, bus, RealtimeMetrics(CollectorRegistry()))
    draft = Draft("open:a", b"1", "/tests", "key")
    publishing = asyncio.create_task(publisher.run())
    await asyncio.sleep(0)
    bus.cut()
    with pytest.raises(BusAway):
        await publisher.publish(draft, OPEN)
    bus.mend()

    heard: asyncio.Queue[bytes] = asyncio.Queue()
    listening = asyncio.create_task(bus.run(heard.put_nowait))
    await until(lambda: bus.is_connected)
    assert [await publisher.publish(draft, OPEN) for _ in range(2)] == [None, None]
    await publisher.publish(replace(draft, id="another"), OPEN)
    messages = [await heard.get() for _ in range(2)]  # of the repetition there is none
    listening.cancel()
    publishing.cancel()
    assert [len(list(decode(message))) for message in messages] == [1, 1]
    assert heard.empty()


@pytest.mark.parametrize("opcode", [9, 10])
async def test_who_pings_without_end_leaves_others_their_turn(streams: Streams, opcode: int) -> None:
    async with running(streams, MemoryExchange().bus()) as node:
        many, turns = 5_000, 0
        _, writer = await narrow(node)
        writer.write(
            bytes([0x80 | opcode, 0x80, 0, 0, 0, 0]) * many + masked({"id": 1, "connect": {"token": node.token()}})
        )
        async with asyncio.timeout(10):
            while not any(each.user for each in node.connections):
                turns += 1
                await asyncio.sleep(0)
        writer.transport.abort()
    assert turns >= many


async def test_who_goes_as_its_ping_is_answered_makes_no_error_of_the_server(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await narrow(node)
    [connection] = node.connections
    writer.write(bytes([0x89, 0x80, 0, 0, 0, 0]) * 500)
    for _ in range(10):  # it goes amid them
        await asyncio.sleep(0)
    cast("SocketWire", connection.wire)._transport.abort()
    await until(lambda: not len(node.connections))
    writer.transport.abort()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_times_in_milliseconds_are_times_in_a_far_future(node: Node) -> None:
    """For clients whose timers count with 32 bits."""
    much = int(time.time()) * 1000
    token = jwt.encode({"alg": "HS256"}, {"sub": "42", "exp": much}, OctKey.import_key(CLIENT_TOKEN_KEY))
    async with node.socket() as client:
        connected = (await client.ask({"id": 1, "connect": {"token": token}}))["connect"]
        assert (connected["expires"], connected["ttl"]) == (True, 2**31 - 1)


async def test_who_takes_no_goodbye_can_still_be_closed(streams: Streams) -> None:
    """It reads nothing, and its pongs are as many bytes as aiohttp writes before it waits: the goodbye waits then."""
    async with running(streams, MemoryExchange().bus(), namespaces=NAMESPACES) as node:
        reader, writer = await narrow(node)
        writer.write(masked({"id": 1, "connect": {"token": node.token()}}))
        await reader.readuntil(b'"connect"')
        writer.write(masked({"id": 2, "subscribe": {"channel": "kept:a"}}))
        await reader.readuntil(b'"subscribe"')
        [theirs] = node.connections
        cast("asyncio.Transport", writer.transport).pause_reading()
        while theirs.wire.buffered < 128 * 1024:
            await node.publish("kept:a", *texts(1, 50_000))
            await asyncio.sleep(0)
        pongs, rest = divmod(DEFAULT_CHUNK_SIZE - 2, 2 + 125)
        writer.write(pinging(125) * pongs + pinging(rest - 2) + b"\x88\x82" + bytes(4) + b"\x03\xe8")
        try:
            await until(lambda: not node.hub.hears("kept:a"))
            assert len(node.connections) == 1
            await node.connections.drain(0.2)
        finally:
            writer.transport.abort()


async def test_who_goes_while_the_node_drains_keeps_no_other_from_being_told(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(realtime.connections, "_SMALLEST_WAVE", 1)
    monkeypatch.setattr(realtime.connections, "_WAVE_SECONDS", 0.2)
    async with running(streams, MemoryExchange().bus()) as node, node.client() as first:
        _, going = await narrow(node)
        async with node.client() as last:
            draining = asyncio.create_task(node.connections.drain(3.0))
            assert (await first.closed())[0] == Disconnect.SHUTDOWN.code
            going.transport.abort()
            assert (await last.closed())[0] == Disconnect.SHUTDOWN.code
            await draining


class Broken:
    """The wire of a client whose transport fails as it never does."""

    buffered = 0

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def write(self, _: bytes) -> bool:
        return True

    async def drain(self) -> None: ...

    def hold(self) -> None: ...

    def release(self) -> bytes:
        return b""

    def end(self, _: Disconnect | Closing) -> None:
        self.ended.set()
        raise RuntimeError


@pytest.mark.parametrize("way", ["its time is over", "the node drains"])
async def test_a_client_whose_transport_fails_at_its_end_takes_no_other_with_it(streams: Streams, way: str) -> None:
    options = replace(CLIENT, stale_close_delay=0.1 if way == "its time is over" else 60.0)
    async with running(streams, MemoryExchange().bus(), options) as node, node.client() as other:
        wire, frames = Broken(), Frames(JsonCodec(), WSMsgType.TEXT)
        with capture_logs() as logged, node.connections.open(wire, frames, frames.codec, Link("websocket")):
            if way == "the node drains":
                await node.connections.drain(0.5)
            await asyncio.wait_for(wire.ended.wait(), 5)
            if way == "its time is over":
                await node.connections.drain(0.5)
        assert (await other.closed())[0] == Disconnect.SHUTDOWN.code
    assert [each["event"] for each in logged].count("connection_failed") == 1


def pinging(size: int) -> bytes:
    """A ping of so many bytes."""
    return bytes([0x89, 0x80 | size]) + bytes(4 + size)
