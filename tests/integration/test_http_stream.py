"""Connections over HTTP, of which only the server's side is a stream."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import BytesIO
from socket import SO_LINGER, SOL_SOCKET

import orjson
import pytest
from google.protobuf.proto import parse_length_prefixed

from handlers.ports.streams import Streams
from realtime.bus_memory import MemoryExchange
from realtime.protocol import client_pb2 as pb
from tests.integration.http_stream import Listener, emulate, streaming
from tests.integration.websocket_node import FEED, MINE, Node, running, texts, until
from tests.peers import PROTOBUF
from tests.realtime_options import CLIENT

BOTH_WAYS = ["http_stream", "sse"]
ONE_WAY = ["uni_http_stream", "uni_sse"]
ELSEWHERE = "https://elsewhere.example"


@pytest.fixture
async def exchange() -> MemoryExchange:
    return MemoryExchange()


@pytest.fixture
async def node(streams: Streams, exchange: MemoryExchange) -> AsyncIterator[Node]:
    options = replace(CLIENT, allowed_origins=(ELSEWHERE,), ping_interval=0.4, pong_timeout=0.3)
    async with running(streams, exchange.bus(), options) as opened:
        yield opened


@asynccontextmanager
async def welcomed(node: Node, name: str) -> AsyncIterator[tuple[Listener, dict[str, str]]]:
    async with streaming(node, name, {"id": 1, "connect": {"token": node.token()}}) as listener:
        yield listener, (await listener.hear())["connect"]


@pytest.mark.parametrize("name", BOTH_WAYS)
async def test_a_client_hears_on_the_response_and_speaks_beside_it(node: Node, name: str) -> None:
    async with welcomed(node, name) as (listener, welcome):
        assert await emulate(node, welcome, {"id": 2, "subscribe": {"channel": FEED}}) == 204
        assert "subscribe" in await listener.hear()
        await node.publish(FEED, b'"first"', b'"second"')
        heard = [(await listener.hear())["push"]["pub"]["data"] for _ in range(2)]

    assert heard == ["first", "second"]
    assert welcome["pong"]


@pytest.mark.parametrize("name", BOTH_WAYS)
async def test_several_commands_come_at_once(node: Node, name: str) -> None:
    async with welcomed(node, name) as (listener, welcome):
        await emulate(
            node, welcome, {"id": 2, "subscribe": {"channel": FEED}}, {"id": 3, "unsubscribe": {"channel": FEED}}
        )
        assert [(await listener.hear())["id"] for _ in range(2)] == [2, 3]


@pytest.mark.parametrize("name", BOTH_WAYS)
async def test_pongs_come_the_other_way_too_and_who_owes_one_is_closed(node: Node, name: str) -> None:
    async with welcomed(node, name) as (listener, welcome):
        assert await listener.next() == {}
        assert await emulate(node, welcome, {}) == 204
        assert await listener.next() == {}
        [goodbye] = await listener.ended()

    assert goodbye == {"push": {"disconnect": {"code": 3012, "reason": "no pong"}}}


@pytest.mark.parametrize("name", [*BOTH_WAYS, *ONE_WAY])
async def test_a_client_that_goes_away_is_gone(node: Node, name: str) -> None:
    hello = {"token": node.token()}
    async with streaming(node, name, {"id": 1, "connect": hello} if name in BOTH_WAYS else hello) as listener:
        await listener.hear()
        assert node.measured("subscriptions") == 1
        assert listener.response.connection is not None
        assert listener.response.connection.transport is not None
        listener.response.connection.transport.abort()
        await until(lambda: len(node.connections) == 0)

    assert node.measured("subscriptions") == 0
    assert node.measured("connections") == 0


@pytest.mark.parametrize("name", ONE_WAY)
async def test_a_listener_that_asks_for_more_and_goes_away_is_gone(node: Node, name: str) -> None:
    """Requests that come while one is answered wait, and of a crowd of them the last ones are not even read."""
    body = orjson.dumps({"token": node.token()})
    head = b"POST /connection/%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (name.encode(), len(body))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(node.origin.rpartition(":")[2]))
    writer.write(head + body)
    await reader.readuntil(b'"connect"')
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
    await writer.drain()
    writer.close()
    await until(lambda: len(node.connections) == 0)


@pytest.mark.parametrize("name", ONE_WAY)
async def test_a_listener_is_sent_bare_pushes(node: Node, name: str) -> None:
    async with streaming(node, name, {"token": node.token()}) as listener:
        welcome = (await listener.hear())["connect"]
        await node.publish(MINE, b'"for you"')
        push = await listener.hear()
        pings = [await listener.next() for _ in range(2)]  # which it need not answer

    assert "pong" not in welcome
    assert welcome["subs"][MINE]["recoverable"]
    assert (push["channel"], push["pub"]["data"]) == (MINE, "for you")
    assert pings == [{}, {}]


@pytest.mark.parametrize("name", ONE_WAY)
async def test_a_listener_resumes_where_it_was(node: Node, name: str) -> None:
    await node.publish(MINE, *texts(3))
    since = {"recover": True, "offset": 1, "epoch": await node.epoch(MINE)}
    async with streaming(node, name, {"token": node.token(), "subs": {MINE: since}}) as listener:
        sub = (await listener.hear())["connect"]["subs"][MINE]

    assert sub["recovered"]
    assert [each["offset"] for each in sub["publications"]] == [2, 3]


async def test_a_listener_by_websocket_is_sent_the_same(node: Node) -> None:
    async with node.http.ws_connect(f"{node.origin}/connection/uni_websocket") as socket:
        await socket.send_json({"token": node.token()})
        welcome = await socket.receive_json()
        await socket.send_str("whatever it says now")
        await node.publish(MINE, b'"for you"')
        push = await socket.receive_json()

    assert "connect" in welcome
    assert push["pub"]["data"] == "for you"


async def test_a_listener_by_websocket_may_say_hello_in_the_address_and_hears_why_it_ends(node: Node) -> None:
    hello = {"cf_connect": orjson.dumps({"token": "no token"}).decode()}
    async with node.http.ws_connect(f"{node.origin}/connection/uni_websocket", params=hello) as socket:
        assert await socket.receive_json() == {"disconnect": {"code": 3500, "reason": "invalid token"}}
        await socket.receive()
        assert socket.close_code == 3500


@pytest.mark.parametrize("name", BOTH_WAYS)
async def test_a_bad_hello_is_told_on_the_stream(node: Node, name: str) -> None:
    async with streaming(node, name, {"id": 1, "connect": {"token": "no token"}}) as listener:
        assert await listener.ended() == [{"push": {"disconnect": {"code": 3500, "reason": "invalid token"}}}]
    async with streaming(node, name, ["what?"]) as listener:
        assert await listener.ended() == [{"push": {"disconnect": {"code": 3501, "reason": "bad request"}}}]


@pytest.mark.parametrize("name", ONE_WAY)
async def test_what_would_be_an_error_ends_a_listener(node: Node, name: str) -> None:
    async with streaming(node, name, {"token": ""}) as listener:
        assert await listener.ended() == [{"disconnect": {"code": 3501, "reason": "bad request"}}]


@pytest.mark.parametrize("name", [*BOTH_WAYS, *ONE_WAY])
async def test_a_request_that_says_nothing_is_refused(node: Node, name: str) -> None:
    address = f"{node.origin}/connection/{name}"
    async with node.http.get(address) as asked, node.http.post(address) as posted:
        assert (asked.status, posted.status) == (400, 400)
    async with node.http.post(address, data=b"x" * (CLIENT.message_size_limit + 1)) as posted:
        assert posted.status == 413


async def test_protobuf_over_http(node: Node) -> None:
    hello = PROTOBUF.say([{"id": 1, "connect": {"token": node.token()}}])
    headers = {"Content-Type": "application/octet-stream"}
    async with node.http.post(f"{node.origin}/connection/http_stream", data=hello, headers=headers) as response:
        welcome = parse_length_prefixed(pb.Reply, BytesIO(await response.content.readany()))
        assert welcome is not None
        frame = PROTOBUF.say([{"id": 2, "subscribe": {"channel": FEED}}])
        request = pb.EmulationRequest(node=welcome.connect.node, session=welcome.connect.session, data=frame)
        body = request.SerializeToString()
        async with node.http.post(f"{node.origin}/emulation", data=body, headers=headers) as accepted:
            assert accepted.status == 204
        [reply] = PROTOBUF.understand(await response.content.readany())

    assert reply["id"] == 2
    assert reply["subscribe"]["recoverable"]


async def test_a_client_of_http_1_0_gets_the_same_without_chunks(node: Node) -> None:
    body = orjson.dumps({"id": 1, "connect": {"token": node.token()}})
    reader, writer = await asyncio.open_connection("127.0.0.1", int(node.origin.rpartition(":")[2]))
    writer.write(b"POST /connection/http_stream HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    head = await reader.readuntil(b"\r\n\r\n")
    line = await reader.readline()
    writer.close()

    assert b"chunked" not in head
    assert "client" in orjson.loads(line)["connect"]


async def test_commands_find_their_connection_on_another_node(
    node: Node, streams: Streams, exchange: MemoryExchange
) -> None:
    async with running(streams, exchange.bus()) as other, welcomed(node, "sse") as (listener, welcome):
        assert await emulate(other, welcome, {"id": 2, "subscribe": {"channel": FEED}}) == 204
        assert (await listener.hear())["id"] == 2


async def test_commands_for_nobody_are_refused(node: Node, streams: Streams, exchange: MemoryExchange) -> None:
    async with running(streams, exchange.bus()) as other, welcomed(node, "sse") as (_, welcome):
        assert await emulate(node, {**welcome, "session": "x"}, {}) == 404
        assert await emulate(other, {**welcome, "session": "x"}, {}) == 404
        assert await emulate(node, {**welcome, "node": "x"}, {}) == 404
        node.bus.cut()  # type: ignore[attr-defined]
        here = await emulate(node, welcome, {"id": 2, "ping": {}})
        node.bus.mend()  # type: ignore[attr-defined]

    assert here == 204  # its own connections need no bus


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b'{"node":"n","session":"s"}', 400), (b'{"node":1,"session":"s","data":"x"}', 400)],
    ids=["nothing", "a list", "no data", "a number"],
)
async def test_a_body_that_is_none_is_refused(node: Node, body: bytes, status: int) -> None:
    async with node.http.post(f"{node.origin}/emulation", data=body) as response:
        assert response.status == status


async def test_commands_that_are_too_long_are_refused(node: Node) -> None:
    async with welcomed(node, "sse") as (_, welcome):
        assert await emulate(node, welcome, {"id": 2, "rpc": {"data": "x" * CLIENT.message_size_limit}}) == 413


@pytest.mark.parametrize("path", ["/connection/http_stream", "/connection/sse", "/emulation"])
async def test_a_page_of_an_allowed_origin_may_ask_and_another_may_not(node: Node, path: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    async with node.http.options(node.origin + path, headers={"Origin": ELSEWHERE, **asked}) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == ELSEWHERE
        assert "content-type" in response.headers["Access-Control-Allow-Headers"]
    for method in ("OPTIONS", "POST"):
        foreign = {"Origin": "https://foreign.example"}
        async with node.http.request(method, node.origin + path, headers=foreign, data=b"{}") as response:
            assert response.status == 403
            assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_page_of_an_allowed_origin_may_read_the_stream(node: Node) -> None:
    hello = {"id": 1, "connect": {"token": node.token()}}
    async with streaming(node, "sse", hello, Origin=ELSEWHERE) as listener:
        assert listener.response.headers["Access-Control-Allow-Origin"] == ELSEWHERE
        assert listener.response.headers["Content-Type"] == "text/event-stream"
        assert "no-store" in listener.response.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["/connection/http_stream", "/connection/sse", "/emulation"])
async def test_a_page_of_an_allowed_origin_may_read_a_refusal_from_before_the_handler(node: Node, path: str) -> None:
    for origin, shared in ((ELSEWHERE, ELSEWHERE), ("https://foreign.example", None)):
        large = BytesIO(b"x" * (1024 * 1024 + 1))
        async with node.http.post(node.origin + path, headers={"Origin": origin}, data=large) as response:
            assert response.status in {403, 413}
            assert response.headers.get("Access-Control-Allow-Origin") == shared


@pytest.mark.parametrize("name", [*BOTH_WAYS, *ONE_WAY])
@pytest.mark.parametrize("is_answered", [False, True], ids=["before its answer", "before its goodbye"])
async def test_who_resets_the_connection_makes_no_error_of_the_server(
    node: Node, name: str, caplog: pytest.LogCaptureFixture, *, is_answered: bool
) -> None:
    head = b"POST /connection/%b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{" % name.encode()
    for _ in range(50):
        _, writer = await asyncio.open_connection("127.0.0.1", int(node.origin.rpartition(":")[2]))
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))  # resets it
        writer.write(head)
        if is_answered:
            await turn_of(node)
        writer.write(b"}")
        writer.close()
    await turn_of(node)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def turn_of(node: Node) -> None:
    """The node has read what was sent before."""
    async with node.http.post(f"{node.origin}/emulation", data=b"") as response:
        assert response.status == 400


async def test_a_client_that_reads_nothing_is_slow_and_ends(streams: Streams, exchange: MemoryExchange) -> None:
    options = replace(CLIENT, queue_max_size=64 * 1024)
    async with running(streams, exchange.bus(), options) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(node.origin.rpartition(":")[2]), limit=1024)
        body = orjson.dumps({"token": node.token()})
        head = b"POST /connection/uni_http_stream HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(200):
            await node.publish(MINE, *texts(10, 10_000))
            if node.measured("drops_total", {"reason": "slow_client"}):
                break
        await until(lambda: len(node.connections) == 0)
        writer.close()

    assert node.measured("closes_total", {"code": "3008"}) == 1


async def test_a_node_that_leaves_says_so(node: Node) -> None:
    async with welcomed(node, "http_stream") as (listener, _):
        await node.connections.drain(2.0)
        [goodbye] = await listener.ended()

    assert goodbye == {"push": {"disconnect": {"code": 3001, "reason": "shutdown"}}}
