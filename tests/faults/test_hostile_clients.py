"""Many clients that send garbage, too much, too early, too often or nothing, at one real node: each is told why it
goes, the node's memory stays within what is allowed each of them, and a well-behaved client notices nothing."""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import pytest

from bench.processes import resident_bytes
from tests.deployment import API_KEY, TOKEN_KEY, namespace, signed
from tests.services.metrics import counted
from tests.services.orderwire import Orderwire, orderwire

MANY: Final = 40
QUEUE, FRAME = 256 * 1024, 64 * 1024
EACH: Final = 2 * QUEUE + 4 * FRAME  # bytes of memory that one of them may take, with all that Python takes for it
CALM: Final = "calm:a"
SETTINGS = f"""
[server]
keepalive_timeout = 1
body_timeout = 1

[client]
ping_interval = 4
pong_timeout = 1
stale_close_delay = 1
queue_max_size = {QUEUE}
message_size_limit = {FRAME}

[client.rate_limit]
connection = {{ total = "200/s" }}
"""
SETTINGS += namespace("calm", "history_size = 10000", 'history_ttl = "1h"', "allow_subscribe_for_client = true")
SETTINGS += namespace("loud", "allow_subscribe_for_client = true", "allow_tags_filter = true")

CONNECT: Final = orjson.dumps({"id": 1, "connect": {"token": signed(sub="43")}})
LOUD: Final = orjson.dumps({"id": 2, "subscribe": {"channel": "loud:a"}})
CONTINUATION, TEXT, CLOSE = 0, 1, 8


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orderwire]:
    file: Path = tmp_path_factory.mktemp("hostile") / "config.toml"
    file.write_text(SETTINGS)
    environment = {"ORDERWIRE_HTTP_API__KEY": API_KEY, "ORDERWIRE_CLIENT__TOKEN__HMAC_SECRET_KEY": TOKEN_KEY}
    with orderwire(environment=environment, arguments=["--config", str(file)]) as running:
        yield running


class Socket(asyncio.Protocol):
    """A connection whose bytes are ours to choose. It keeps what it hears, also from a server that resets it."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.transport: asyncio.Transport
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, _why: Exception | None) -> None:
        self.over.set_result(None)

    def say(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.send(TEXT, payload)

    def send(self, kind: int, payload: bytes, *, is_last: bool = True, size: int | None = None) -> None:
        """A masked frame; its `size` is what it says of itself."""
        head = struct.pack("!BBQ", (0x80 if is_last else 0) | kind, 0xFF, len(payload) if size is None else size)
        self.transport.write(head + bytes(4) + payload)

    async def closed(self) -> int:
        """The code of the server's close; 0 when the connection is over without one."""
        while not (code := self._close_code()) and not self.over.done():  # noqa: ASYNC110 - it has come
            await asyncio.sleep(0.01)
        return code

    def _close_code(self) -> int:
        """That of the last frame; 0 when it is no close."""
        _, _, rest = bytes(self.heard).partition(b"\r\n\r\n")
        code = 0
        while rest:
            size, at = rest[1], 2
            if size > 125:
                at = 4 if size == 126 else 10
                size = int.from_bytes(rest[2:at])
            code = int.from_bytes(rest[at : at + 2]) if rest[0] & 0x0F == CLOSE else 0
            rest = rest[at + size :]
        return code


@asynccontextmanager
async def plain(node: Orderwire, said: bytes = b"") -> AsyncIterator[Socket]:
    transport, opened = await asyncio.get_running_loop().create_connection(Socket, "127.0.0.1", node.port)
    opened.transport = transport
    try:
        transport.write(said)
        yield opened
    finally:
        transport.abort()


@asynccontextmanager
async def socket(node: Orderwire, *commands: bytes) -> AsyncIterator[Socket]:
    lines = [
        "GET /connection/websocket HTTP/1.1",
        f"Host: 127.0.0.1:{node.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    ]
    async with plain(node, "\r\n".join([*lines, "", ""]).encode()) as opened:
        opened.say(*commands)
        yield opened


def sends(*payloads: bytes, first: tuple[bytes, ...] = ()) -> Hostile:
    async def hostile(node: Orderwire) -> int:
        async with socket(node, *first, *payloads) as opened:
            return await opened.closed()

    return hostile


async def never_ends_its_message(node: Orderwire) -> int:
    async with socket(node, CONNECT) as opened:
        opened.send(TEXT, b"x" * 30_000, is_last=False)
        for _ in range(2):  # beyond what it may; with much more, TCP's reset could overtake the goodbye
            opened.send(CONTINUATION, b"x" * 30_000, is_last=False)
        return await opened.closed()


async def never_ends_its_frame(node: Orderwire) -> int:
    async with socket(node, CONNECT) as opened:
        opened.send(TEXT, b"{" * 1000, size=60_000)
        return await opened.closed()


async def announces_an_enormous_frame(node: Orderwire) -> int:
    async with socket(node, CONNECT) as opened:
        opened.send(TEXT, b"{", size=2**62)
        return await opened.closed()


async def makes_noise(node: Orderwire) -> int:
    async with socket(node, CONNECT) as opened:
        opened.transport.write(b"\xff" * 10_000)
        return await opened.closed()


async def asks_without_end(node: Orderwire) -> int:
    """And reads no answer before it has asked everything."""
    asking = b"\n".join(orjson.dumps({"id": n, "history": {"channel": CALM}}) for n in range(2, 1000))
    async with socket(node, CONNECT) as opened:
        for _ in range(20):
            opened.say(asking[:FRAME])
        return await opened.closed()


async def reads_nothing(node: Orderwire) -> int:
    """What is published meanwhile is more than the kernel's buffers hold; it may not get the goodbye any more."""
    async with socket(node, CONNECT, LOUD) as opened, aiohttp.ClientSession() as session:
        while b'"id":2' not in opened.heard:  # noqa: ASYNC110 - it is subscribed
            await asyncio.sleep(0.01)
        opened.transport.pause_reading()
        while await counted(session, node, "orderwire_connections") > 1:  # noqa: ASYNC110 - only the calm one is left
            await asyncio.sleep(0.1)
        return 3008


async def hoards_channels(node: Orderwire) -> int:
    """Comes no further than the limit."""
    wants = [{"id": n, "subscribe": {"channel": f"loud:{n}-{'x' * 200}"}} for n in range(2, 180)]
    async with socket(node, CONNECT, b"\n".join(map(orjson.dumps, wants))) as opened:
        while opened.heard.count(b'"code":106') < len(wants) - 128:  # noqa: ASYNC110 - that many are refused
            await asyncio.sleep(0.01)
    return 106


async def asks_half_a_question(node: Orderwire) -> int:
    async with plain(node, b"GET / HTTP/1.1\r\nHost: ") as opened:
        await opened.over
        return len(opened.heard)


async def sends_half_a_body(node: Orderwire) -> int:
    lines = ["POST /api/v1/auth/login HTTP/1.1", "Host: localhost", "Content-Length: 200000", "", ""]
    async with plain(node, "\r\n".join(lines).encode() + b" " * 100_000) as opened:
        while b"\r\n" not in opened.heard:  # noqa: ASYNC110 - the answer has begun
            await asyncio.sleep(0.01)
        return int(opened.heard.split()[1])


Hostile = Callable[[Orderwire], Coroutine[None, None, int]]
HOSTILE: dict[str, tuple[Hostile, int]] = {
    "says nothing": (sends(), 3502),
    "says nothing more": (sends(first=(CONNECT,)), 3012),
    "garbage": (sends(b"}{"), 3501),
    "garbage, once connected": (sends(b"\x00\xff" * 1000, first=(CONNECT,)), 3501),
    "nesting": (sends(b'{"id":2,"rpc":{"method":"m","data":' + b"[" * 60_000, first=(CONNECT,)), 3501),
    "noise": (makes_noise, 1002),
    "too early": (sends(LOUD), 3501),
    "too much": (sends(b" " * (FRAME + 1), first=(CONNECT,)), 1009),
    "an enormous frame": (announces_an_enormous_frame, 1009),
    "a message without end": (never_ends_its_message, 1009),
    "a frame without end": (never_ends_its_frame, 3012),
    "too often": (asks_without_end, 3013),
    "too many channels": (hoards_channels, 106),
    "deaf": (reads_nothing, 3008),
    "half a request": (asks_half_a_question, 0),
    "half a body": (sends_half_a_body, 408),
}


@asynccontextmanager
async def a_calm_client(node: Orderwire, session: aiohttp.ClientSession) -> AsyncIterator[None]:
    """Hears everything that is published at a steady pace while the block lasts, in order and promptly."""
    heard: list[tuple[int, float]] = []
    loop = asyncio.get_running_loop()
    published, joined = 0, asyncio.Event()
    token, channel = signed(sub="42"), f"{CALM}-{secrets.token_hex(4)}"  # the one before may still be spoken in
    async with session.ws_connect(node.websocket_url) as socket:
        await socket.send_json({"id": 1, "connect": {"token": token}})
        await socket.send_json({"id": 2, "subscribe": {"channel": channel}})

        async def listen() -> None:
            async for message in socket:
                for line in message.data.splitlines():
                    said: dict[str, Any] = orjson.loads(line)
                    if not said:
                        await socket.send_str("{}")
                    elif "subscribe" in said:
                        joined.set()
                    elif "push" in said:
                        heard.append(
                            (said["push"]["pub"]["data"]["n"], loop.time() - said["push"]["pub"]["data"]["at"])
                        )

        async def speak() -> None:
            nonlocal published
            await joined.wait()
            while True:
                published += 1
                await publish(session, node, channel, {"n": published, "at": loop.time()})
                await asyncio.sleep(0.02)

        listening, speaking = asyncio.create_task(listen()), asyncio.create_task(speak())
        try:
            while len(heard) < 5:  # noqa: ASYNC110 - it has begun
                await asyncio.sleep(0.01)
            yield
        finally:
            speaking.cancel()
            await asyncio.wait([speaking])
            async with asyncio.timeout(10):
                while len(heard) < published - 1:  # noqa: ASYNC110 - the last one may not have been published
                    await asyncio.sleep(0.01)
            await socket.close()
            await listening
    numbers = [n for n, _ in heard]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert max(late for _, late in heard) < 1.5


async def publish(session: aiohttp.ClientSession, node: Orderwire, channel: str, data: object) -> None:
    body = {"channel": channel, "data": data}
    headers = {"X-API-Key": API_KEY}
    async with session.post(f"{node.base_url}/api/publish", json=body, headers=headers, raise_for_status=True) as reply:
        assert "result" in await reply.json()


@pytest.mark.parametrize("kind", HOSTILE)
async def test_each_is_told_and_nobody_else_notices(node: Orderwire, session: aiohttp.ClientSession, kind: str) -> None:
    hostile, code = HOSTILE[kind]
    many = 10 if kind == "deaf" else MANY  # megabytes for each
    slow = await counted(session, node, "orderwire_closes_total", code="3008")
    before = most = resident_bytes(node.pid)
    async with a_calm_client(node, session), asyncio.timeout(20):
        clients = [asyncio.create_task(hostile(node)) for _ in range(many)]
        while not all(client.done() for client in clients):
            if kind == "deaf":  # before they would have to go for their pongs
                await publish(session, node, "loud:a", "x" * 100_000)
            else:
                await asyncio.sleep(0.02)
            most = max(most, resident_bytes(node.pid))
    assert [client.result() for client in clients] == [code] * many
    if kind == "deaf":
        assert await counted(session, node, "orderwire_closes_total", code="3008") == slow + many
    assert most - before < many * EACH
    while await counted(session, node, "orderwire_connections"):  # noqa: ASYNC110 - nothing of them is left
        await asyncio.sleep(0.02)
