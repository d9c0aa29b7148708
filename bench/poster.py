"""Requests over HTTP/1.1, in an open loop: one request at a time on each of a pool of connections."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import cast

import orjson

from bench.wire import host_and_port
from tests.torture.load import Shop

CONNECTIONS = 32
LATE = 30.0  # seconds without an answer after which a run is a failure


@dataclass(frozen=True, slots=True)
class Posted:
    """One order: when the request was due, and when its reply had arrived. Unix time."""

    order_id: str
    due: float
    replied: float


class HttpLine(asyncio.Protocol):
    """Requests with a body of ours, replies with a Content-Length: all that our server sends here."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[bytes] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def request(self, message: bytes) -> asyncio.Future[bytes]:
        """The body of the reply; ConnectionError unless it is a 200 or 201."""
        assert self._transport is not None
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return self._reply

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        mark = head.lower().find(b"content-length:") + len(b"content-length:")
        if len(body) < int(head[mark:].split(b"\r\n", 1)[0]) or self._reply is None:
            return
        self._received = b""
        if head.startswith(b"HTTP/1.1 20"):
            self._reply.set_result(body)
        else:
            self._reply.set_exception(ConnectionError((head[:30] + b" " + body[:300]).decode()))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(exc or ConnectionError("closed"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Poster:
    """Places orders of `lines` products each, or with none reads the products. `async with` it."""

    def __init__(self, url: str, shop: Shop, *, lines: int = 1) -> None:
        self._url = url
        self._shop = shop
        self._lines = lines
        self._rng = random.Random(1)
        self._free: asyncio.LifoQueue[HttpLine] = asyncio.LifoQueue(CONNECTIONS)
        self._all: list[HttpLine] = []

    async def __aenter__(self) -> Poster:
        host, port = host_and_port(self._url)
        for _ in range(CONNECTIONS):
            _, connection = await asyncio.get_running_loop().create_connection(HttpLine, host, port)
            self._all.append(connection)
            self._free.put_nowait(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._all:
            connection.close()

    async def run(self, rate: float, seconds: float) -> list[Posted]:
        """`rate` requests a second, evenly spaced. Raises ConnectionError for any reply but 200 and 201."""
        posted: list[Posted] = []
        start = time.time()
        async with asyncio.TaskGroup() as requests:
            for number in range(round(rate * seconds)):
                due = start + number / rate
                if (wait := due - time.time()) > 0:
                    await asyncio.sleep(wait)
                requests.create_task(self._place(due, posted))
        return posted

    async def _place(self, due: float, posted: list[Posted]) -> None:
        message = self._message()
        connection = await self._free.get()
        try:
            async with asyncio.timeout(LATE):
                body = await connection.request(message)
        finally:
            self._free.put_nowait(connection)
        posted.append(Posted(orjson.loads(body).get("id", ""), due, time.time()))

    def _message(self) -> bytes:
        return self._order() if self._lines else self._request("GET /api/v1/products?limit=20")

    def _order(self) -> bytes:
        products = self._rng.sample(self._shop.product_ids, self._lines)
        body = orjson.dumps({"items": [{"product_id": product, "quantity": 1} for product in products]})
        return self._request("POST /api/v1/orders", body)

    def _request(self, line: str, body: bytes = b"") -> bytes:
        host, port = host_and_port(self._url)
        lines = (
            f"{line} HTTP/1.1",
            f"Host: {host}:{port}",
            f"Authorization: Bearer {self._rng.choice(self._shop.customers).token}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        return "\r\n".join([*lines, "", ""]).encode() + body
