"""WebSocket by hand, for measuring: a client that costs so little that the server is what is measured.

Source of the frame layout: RFC 6455, section 5.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

PING = b"{}"
PUSH = b'{"push":'


def text_frame(payload: bytes) -> bytes:
    """A client's frame. The masking key is zero, which leaves the payload as it is and is a key like any other."""
    if len(payload) < 126:
        return bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload
    return b"\x81\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload


class Subscriber(asyncio.Protocol):
    """One connection that joins one channel, counts the publications and answers pings.

    `joined` is the stream's offset at joining. Subclasses see each publication's frame in `on_publication`, and the
    reply to subscribing in `on_subscribed`.
    """

    def __init__(self, host: str, token: str, channel: str) -> None:
        self.publications = 0
        self.close_code: int | None = None
        self.transport: asyncio.Transport | None = None
        self.joined: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._host = host
        self._channel = channel
        self._token = token
        self._upgraded = False
        self._rest = b""

    def on_publication(self, _frame: bytes) -> None:
        """`_frame` is the JSON text of one push."""

    def on_subscribed(self, result: Mapping[str, Any]) -> None:
        self.joined.set_result(result.get("offset", 0))

    def on_ping(self) -> None:
        """It is answered already."""

    def subscription(self) -> dict[str, object]:
        """What is asked for."""
        return {"channel": self._channel}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        lines = (
            "GET /connection/websocket HTTP/1.1",
            f"Host: {self._host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Version: 13",
        )
        self.transport.write("\r\n".join([*lines, "", ""]).encode())
        commands = (
            {"id": 1, "connect": {"token": self._token, "name": "bench"}},
            {"id": 2, "subscribe": self.subscription()},
        )
        self.transport.write(text_frame(b"\n".join(map(orjson.dumps, commands))))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        if not self._upgraded:
            at = self._after_handshake(data)
            if not at:
                self._rest = data
                return
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            elif length == 127:
                length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
            if start + length > size:
                break
            self._on_frame(data[at], data, start, start + length)
            at = start + length
        self._rest = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.joined.done():
            self.joined.set_exception(exc or ConnectionError(f"closed before joining: {self.close_code}"))
        if not self.lost.done():
            self.lost.set_result(None)

    def _after_handshake(self, data: bytes) -> int:
        """Where the frames begin; 0 while the reply is not complete."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        if not data.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(data[:100].decode(errors="replace"))
        self._upgraded = True
        return end + 4

    def _on_frame(self, kind: int, data: bytes, start: int, end: int) -> None:
        if data[start : start + 8] == PUSH:
            self.publications += 1
            self.on_publication(data[start:end])
        elif kind == 0x88:
            self.close_code = int.from_bytes(data[start : start + 2], "big")
        elif end - start == 2:
            assert self.transport is not None
            self.transport.write(text_frame(PING))
            self.on_ping()
        else:
            self._on_replies(data[start:end])

    def _on_replies(self, frame: bytes) -> None:
        for line in frame.split(b"\n"):
            reply = orjson.loads(line)
            if "error" in reply:
                raise ConnectionError(str(reply["error"]))
            if "subscribe" in reply:
                self.on_subscribed(reply["subscribe"])


def host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port
