"""One connection's HTTP: what becomes of a handler when its client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
from aiohttp import web

from handlers.http import IS_STEADY
from server.http_protocol import HttpProtocol
from server.listening import listening


@dataclass
class Handling:
    """Of requests for /steady and /other; what became of each is in `ends`."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    ends: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        request[IS_STEADY] = request.path == "/steady"
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.ends.put_nowait(f"{request.path} was cancelled")
            raise
        self.ends.put_nowait(f"{request.path} is done")
        return web.Response()


@asynccontextmanager
async def served(handling: Handling) -> AsyncIterator[tuple[web.Server, asyncio.StreamWriter]]:
    """The server, with one client."""

    class Watched(HttpProtocol):
        __slots__ = ()

        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            handling.lost.set()

    server = web.Server(handling, handler_cancellation=True)
    protocols = partial(Watched, server, keepalive_timeout=75.0, message_size_limit=1024)
    async with listening(protocols, "127.0.0.1", 0, is_shared=False) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        yield server, writer
        writer.transport.abort()
    await server.shutdown(1.0)


def a_request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


@pytest.mark.parametrize(("path", "end"), [("/steady", "is done"), ("/other", "was cancelled")])
async def test_who_goes_away_cancels_what_is_not_steady_and_has_nothing_else_begun(path: str, end: str) -> None:
    handling = Handling()
    async with served(handling) as (_, writer):
        writer.write(a_request(path) * 3)
        await handling.begun.wait()
        writer.transport.abort()
        await handling.lost.wait()
        handling.go_on.set()

        assert await handling.ends.get() == f"{path} {end}"
    assert handling.ends.empty()


async def test_what_is_steady_is_cancelled_at_the_end_all_the_same() -> None:
    handling = Handling()
    async with served(handling) as (server, writer):
        writer.write(a_request("/steady"))
        await handling.begun.wait()
        await server.shutdown(0.05)

        assert await handling.ends.get() == "/steady was cancelled"


async def test_who_goes_away_between_two_requests_leaves_nothing_behind() -> None:
    handling = Handling()
    handling.go_on.set()
    before = len(asyncio.all_tasks())
    async with served(handling) as (_, writer):
        writer.write(a_request("/steady"))
        await handling.ends.get()
        writer.transport.abort()
        await handling.lost.wait()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before
