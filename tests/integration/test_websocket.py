"""Real sockets, real streams in PostgreSQL; the bus in process, so that a test can lose what it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import orjson
import pytest

from handlers.accounts.model import Account
from handlers.actor import Role
from realtime.bus_memory import MemoryBus, MemoryExchange
from storage.streams import PostgresStreams
from tests.integration.websocket_node import FEED, MINE, Client, Node, running, texts, until
from tests.peers import JSON, PROTOBUF, Peer
from tests.realtime_options import CLIENT


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryExchange().bus()


@pytest.fixture
async def node(streams: PostgresStreams, bus: MemoryBus, peer: Peer) -> AsyncIterator[Node]:
    """With clients of each form."""
    async with running(streams, bus) as node:
        node.peer = peer
        yield node


async def connected(client: Client, node: Node) -> Any:
    return await client.ask({"id": 1, "connect": {"token": node.token()}})


async def test_a_large_recovery_is_a_page_in_the_reply_and_the_rest_before_what_is_live(node: Node) -> None:
    await node.publish(FEED, *texts(2500, 300))
    async with node.client() as client:
        await client.say({"id": 2, "subscribe": {"channel": FEED, "recover": True, "offset": 0, "epoch": ""}})
        reply = (await client.hear())["subscribe"]
        assert reply["recovered"]
        page = [publication["offset"] for publication in reply["publications"]]
        assert 0 < len(page) < 1000
        await node.publish(FEED, *texts(1))
        assert page + await client.offsets(FEED, 2501) == list(range(1, 2502))


async def test_more_missed_than_the_limit_means_to_reload(node: Node) -> None:
    for _ in range(11):
        await node.publish(FEED, *texts(1000), lose=True)
    async with node.client() as client:
        reply = await client.ask({"id": 2, "subscribe": {"channel": FEED, "recover": True, "offset": 0, "epoch": ""}})
        assert reply["subscribe"]["offset"] == 11_000
        assert reply["subscribe"]["was_recovering"]
        assert "recovered" not in reply["subscribe"]


async def test_a_lost_last_message_arrives_all_the_same(node: Node) -> None:
    async with node.client(FEED) as client:
        await node.publish(FEED, *texts(3), lose=True)
        assert await client.offsets(FEED, 3) == [1, 2, 3]


async def test_a_gap_is_filled_before_what_came_after_it(node: Node) -> None:
    async with node.client(FEED) as client:
        await node.publish(FEED, *texts(1))
        await node.publish(FEED, *texts(2), lose=True)
        await node.publish(FEED, *texts(1))
        assert await client.offsets(FEED, 4) == [1, 2, 3, 4]
    assert node.measured("gaps_repaired_total") == 1


async def test_delivery_goes_on_without_the_bus(node: Node, bus: MemoryBus) -> None:
    async with node.client(FEED) as client:
        bus.cut()
        await node.publish(FEED, *texts(2))
        assert await client.offsets(FEED, 2) == [1, 2]
        bus.mend()
        await node.publish(FEED, *texts(1))
        assert await client.offsets(FEED, 3) == [3]


async def test_the_personal_channel_is_recovered_at_connect(node: Node) -> None:
    await node.publish(MINE, *texts(3))
    async with node.socket() as client:
        subs = {MINE: {"recover": True, "offset": 1, "epoch": await node.epoch(MINE)}}
        reply = await client.ask({"id": 1, "connect": {"token": node.token(), "subs": subs}})
    mine = reply["connect"]["subs"][MINE]
    assert mine["recovered"]
    assert [publication["offset"] for publication in mine["publications"]] == [2, 3]


async def past(client: Client, **asked: Any) -> Any:
    return await client.ask({"id": 9, "history": {"channel": FEED, **asked}})


async def test_the_past_is_read_forwards_and_backwards_without_subscribing(node: Node) -> None:
    await node.publish(FEED, *texts(5))
    epoch = await node.epoch(FEED)
    async with node.client() as client:
        for asked, offsets in (
            ({"limit": 2}, [1, 2]),
            ({"limit": -1}, [1, 2, 3, 4, 5]),
            ({"limit": 9, "since": {"offset": 3, "epoch": epoch}}, [4, 5]),
            ({"limit": 9, "since": {"offset": 0, "epoch": ""}}, [1, 2, 3, 4, 5]),
            ({"limit": 9, "since": {"offset": 5, "epoch": epoch}}, []),
            ({"limit": 2, "reverse": True}, [5, 4]),
            ({"limit": -1, "reverse": True, "since": {"offset": 3, "epoch": epoch}}, [2, 1]),
            ({}, []),
        ):
            page = (await past(client, **asked))["history"]
            assert [item["offset"] for item in page.get("publications", [])] == offsets, asked
            assert (page["offset"], page["epoch"]) == (5, epoch)


async def test_the_past_of_a_stream_that_nobody_wrote_has_a_position_to_subscribe_from(node: Node) -> None:
    async with node.client() as client:
        page = (await past(client, limit=-1))["history"]
        assert page["epoch"] == await node.epoch(FEED)
        await node.publish(FEED, *texts(1))
        since = {"recover": True, "offset": page.get("offset", 0), "epoch": page["epoch"]}
        reply = await client.ask({"id": 10, "subscribe": {"channel": FEED, **since}})
    assert [item["offset"] for item in reply["subscribe"]["publications"]] == [1]


@pytest.mark.parametrize("since", [{"offset": 2, "epoch": "another"}, {"offset": 2}])
async def test_the_past_after_a_position_of_another_epoch_is_not_known(node: Node, since: dict[str, Any]) -> None:
    await node.publish(FEED, *texts(3))
    async with node.client() as client:
        reply = await past(client, limit=1, since=since)
    assert reply == {"id": 9, "error": {"code": 112, "message": "unrecoverable position"}}


async def test_who_may_not_hear_a_channel_may_not_read_its_past(node: Node) -> None:
    customer = Account(uuid4(), "c@example.com", "C", Role.CUSTOMER, "hash")
    async with node.socket() as client:
        await client.ask({"id": 1, "connect": {"token": node.token(customer)}})
        assert (await past(client, limit=1))["error"]["code"] == 103
        reply = await client.ask({"id": 10, "history": {"channel": "nobody:knows", "limit": 1}})
        assert reply["error"]["code"] == 102


async def test_one_reply_holds_as_much_of_the_past_as_the_settings_say(
    streams: PostgresStreams, bus: MemoryBus
) -> None:
    options = replace(CLIENT, history_max_publication_limit=2)
    async with running(streams, bus, options) as node, node.client() as client:
        await node.publish(FEED, *texts(5))
        page = (await past(client, limit=-1))["history"]
        assert [item["offset"] for item in page["publications"]] == [1, 2]


async def test_large_publications_of_the_past_come_in_pages(node: Node) -> None:
    await node.publish(FEED, *texts(4, size=100_000))
    epoch = await node.epoch(FEED)
    async with node.client() as client:
        first = (await past(client, limit=-1))["history"]
        then = (await past(client, limit=-1, since={"offset": 2, "epoch": epoch}))["history"]
    assert [[item["offset"] for item in page["publications"]] for page in (first, then)] == [[1, 2], [3, 4]]


async def test_a_stream_that_began_anew_ends_its_subscriptions(node: Node, postgres_url: str) -> None:
    await node.publish(FEED, *texts(1))
    async with node.client(FEED) as client:
        connection = await asyncpg.connect(postgres_url)
        await connection.execute("UPDATE streams SET salt = 'another' WHERE channel = $1", FEED)
        await connection.close()
        assert (await client.hear())["push"] == {
            "channel": FEED,
            "unsubscribe": {"code": 2500, "reason": "insufficient state"},
        }
        again = await client.ask({"id": 3, "subscribe": {"channel": FEED}})
        assert again["subscribe"]["offset"] == 1


async def test_a_new_generation_ends_connections(node: Node, streams: PostgresStreams) -> None:
    async with node.client() as client:
        await streams.new_epoch()
        assert await client.closed() == (3010, "insufficient state")


async def test_a_customer_may_not_hear_the_feed(node: Node) -> None:
    customer = Account(uuid4(), "c@example.com", "C", Role.CUSTOMER, "hash")
    async with node.socket() as client:
        await client.ask({"id": 1, "connect": {"token": node.token(customer)}})
        reply = await client.ask({"id": 2, "subscribe": {"channel": FEED}})
    assert reply == {"id": 2, "error": {"code": 103, "message": "permission denied"}}


async def test_commands_of_one_frame_are_answered_in_order(node: Node) -> None:
    async with node.socket() as client:
        await client.say(
            {"id": 1, "connect": {"token": node.token()}},
            {"id": 2, "subscribe": {"channel": FEED}},
            {"id": 3, "subscribe": {"channel": "nobody:knows"}},
            {"id": 4, "unsubscribe": {"channel": FEED}},
        )
        assert [(await client.hear())["id"] for _ in range(4)] == [1, 2, 3, 4]


@pytest.mark.parametrize(("peer", "other"), [(JSON, PROTOBUF), (PROTOBUF, JSON)], ids=["json", "protobuf"])
async def test_a_frame_of_the_other_form_is_a_bad_request(node: Node, other: Peer) -> None:
    async with node.socket() as client:
        await Client(client.socket, other).say({"id": 1, "connect": {"token": node.token()}})
        assert await client.closed() == (3501, "bad request")


@pytest.mark.parametrize(
    ("peer", "frame"),
    [
        *((JSON, frame) for frame in (b"", b"{", b"\x00", b"[]", b'{"id":1,"connect":{"token":7}}')),
        *((PROTOBUF, frame) for frame in (b"", b"\x05", b"{}", b"\x02\x08\xff", b"\xff" * 40)),
    ],
)
async def test_garbage_is_a_bad_request(node: Node, frame: bytes) -> None:
    async with node.socket() as client:
        await client.send(frame)
        assert await client.closed() == (3501, "bad request")


async def test_an_oversized_frame_is_closed_as_too_big(node: Node) -> None:
    async with node.socket() as client:
        await client.send(b"x" * (CLIENT.message_size_limit + 1))
        assert (await client.closed())[0] == 1009


async def test_a_frame_of_just_the_size_that_is_allowed_is_read(node: Node) -> None:
    async with node.socket() as client:
        await client.send(b"x" * CLIENT.message_size_limit)
        assert await client.closed() == (3501, "bad request")


@pytest.mark.parametrize("noise", [b"\xff" * 40, b"\x83\x80\0\0\0\0"])
async def test_what_is_no_websocket_frame_is_a_protocol_error(node: Node, noise: bytes) -> None:
    async with node.socket() as client:
        connection = client.socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.write(noise)
        assert (await client.closed())[0] == 1002


async def test_an_invalid_token_is_closed(node: Node) -> None:
    async with node.socket() as client:
        await client.say({"id": 1, "connect": {"token": "nonsense"}})
        assert await client.closed() == (3500, "invalid token")


async def test_nothing_is_left_of_a_client_that_vanished(node: Node) -> None:
    async with node.client(FEED) as client:
        assert node.measured("subscriptions") == 2
        transport = client.socket._response.connection
        assert transport is not None
        assert transport.transport is not None
        transport.transport.abort()
        await until(lambda: not node.measured("connections"))
    assert node.measured("subscriptions") == node.measured("channels") == 0


@pytest.mark.parametrize(
    ("peer", "offered"),
    [
        (JSON, ["centrifuge-json"]),
        (JSON, ["centrifuge-json", "centrifuge-protobuf"]),
        (PROTOBUF, ["centrifuge-protobuf"]),
        (PROTOBUF, ["centrifuge-protobuf", "centrifuge-json"]),
        (PROTOBUF, ["unheard-of", "centrifuge-protobuf"]),
    ],
)
async def test_the_form_that_a_client_wants_most_is_spoken(node: Node, peer: Peer, offered: list[str]) -> None:
    async with node.socket(protocols=offered) as client:
        assert client.socket.protocol == peer.subprotocol
        assert "connect" in await connected(client, node)


@pytest.mark.parametrize(
    ("peer", "query"),
    [
        (JSON, {}),
        (JSON, {"cf_protocol_version": "v2"}),
        (PROTOBUF, {"cf_protocol": "protobuf"}),
        (PROTOBUF, {"format": "protobuf"}),
    ],
)
async def test_a_client_without_a_subprotocol_says_in_the_address_what_it_speaks(
    node: Node, query: dict[str, str]
) -> None:
    async with node.socket(protocols=[], params=query) as client:
        assert client.socket.protocol is None
        assert "connect" in await connected(client, node)


async def test_clients_of_both_forms_hear_the_same(node: Node) -> None:
    payload = orjson.dumps({"ä": ["\n", 1.5, None]})
    async with node.socket(peer=JSON) as first, node.socket(peer=PROTOBUF) as second:
        for client in (first, second):
            await connected(client, node)
            await client.ask({"id": 2, "subscribe": {"channel": FEED}})
        await node.publish(FEED, payload)
        heard = [await client.hear() for client in (first, second)]
    push = {"push": {"channel": FEED, "pub": {"data": orjson.loads(payload), "offset": 1}}}
    assert heard == [push, push]


async def refused(node: Node, **options: Any) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        async with node.socket(**options):
            pass
    return refusal.value.status


async def test_a_foreign_origin_is_refused_and_an_allowed_one_is_not(streams: PostgresStreams, bus: MemoryBus) -> None:
    options = replace(CLIENT, allowed_origins=("https://*.example.com", "http://[::1]:3000"))
    async with running(streams, bus, options) as node:
        assert await refused(node, headers={"Origin": "https://example.org"}) == 403
        assert await refused(node, headers={"Origin": "null"}) == 403
        assert await refused(node, headers={"Origin": "http://1:3000"}) == 403  # one of the signs between the brackets
        host = node.url.removeprefix("http://").partition("/")[0]
        for origin in ("https://shop.example.com", "http://[::1]:3000", f"http://{host}"):
            async with node.socket(headers={"Origin": origin}) as client:
                assert "connect" in await connected(client, node)


async def test_a_full_node_takes_no_more(streams: PostgresStreams, bus: MemoryBus) -> None:
    async with running(streams, bus, replace(CLIENT, connection_limit=1)) as node, node.client():
        assert await refused(node) == 503


async def test_a_client_that_does_not_pong_is_closed_and_one_that_does_stays(
    streams: PostgresStreams, bus: MemoryBus, peer: Peer
) -> None:
    options = replace(CLIENT, ping_interval=0.6, pong_timeout=0.3)
    async with running(streams, bus, options) as node:
        node.peer = peer
        await the_silent_is_closed(node)


async def the_silent_is_closed(node: Node) -> None:
    async with node.client() as silent, node.client() as lively:
        for _ in range(3):
            assert await lively.next() == {}
            await lively.say({})
        assert await silent.closed() == (3012, "no pong")
        assert (await lively.ask({"id": 9, "rpc": {}}))["id"] == 9


async def test_a_client_that_never_connects_is_stale(streams: PostgresStreams, bus: MemoryBus) -> None:
    async with running(streams, bus, replace(CLIENT, stale_close_delay=0.1)) as node, node.socket() as client:
        assert await client.closed() == (3502, "stale")


async def test_draining_closes_everyone_in_time_and_takes_nobody(node: Node) -> None:
    async with node.client(FEED) as first, node.client(FEED) as second:
        async with asyncio.TaskGroup() as tasks:
            drained = tasks.create_task(node.connections.drain(5))
            closes = [tasks.create_task(client.closed()) for client in (first, second)]
        assert [close.result() for close in closes] == [(3001, "shutdown")] * 2
        assert drained.done()
        assert await refused(node) == 503


async def test_a_slow_client_is_closed_and_the_others_keep_receiving(streams: PostgresStreams, bus: MemoryBus) -> None:
    options = replace(CLIENT, queue_max_size=256 * 1024)
    async with running(streams, bus, options) as node, node.client(FEED) as healthy, deaf_client(node):
        received: list[int] = []
        while not node.measured("closes_total", {"code": "3008"}):
            await node.publish(FEED, *texts(2, 100_000))
            received += await healthy.offsets(FEED, len(received) + 2)
        await until(lambda: node.measured("connections") == 1)
        await node.publish(FEED, *texts(1))
        received += await healthy.offsets(FEED, len(received) + 1)
        assert received == list(range(1, len(received) + 1))


@asynccontextmanager
async def deaf_client(node: Node) -> AsyncIterator[None]:
    """Subscribed to the feed; then it reads nothing more."""
    host, port = node.url.removeprefix("http://").partition("/")[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    lines = [
        "GET /connection/websocket HTTP/1.1",
        f"Host: {host}:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.write(
        masked({"id": 1, "connect": {"token": node.token()}}) + masked({"id": 2, "subscribe": {"channel": FEED}})
    )
    await reader.readuntil(b'"id":2')
    yield
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def masked(command: dict[str, Any]) -> bytes:
    """A client's text frame, masked with zeros."""
    payload = orjson.dumps(command)
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + payload
