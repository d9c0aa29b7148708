"""A TCP proxy on loopback whose line can be cut, silenced and restored: what networks do to long-lived connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

CHUNK = 64 * 1024


class Line(Enum):
    UP = "bytes pass"
    CUT = "established connections are reset, new ones refused at once"
    SILENT = "connections stay and can be made, but no byte passes: a dead peer behind a live wire"


class Proxy:
    """Forwards 127.0.0.1:`port` to `upstream` (a port on 127.0.0.1). Used through `open_proxy`."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self._line = Line.UP
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    def cut(self) -> None:
        self._line = Line.CUT
        self._flowing.set()
        for writer in tuple(self._writers):
            writer.transport.abort()

    def silence(self) -> None:
        """What either end sends, its closing too, is held back until the line is restored."""
        self._line = Line.SILENT
        self._flowing.clear()

    def restore(self) -> None:
        self._line = Line.UP
        self._flowing.set()

    async def serve(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        self._writers.add(near_writer)
        try:
            if self._line is Line.CUT:
                return
            await self._flowing.wait()
            far, far_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            self._writers.add(far_writer)
            try:
                await self._join(near, near_writer, far, far_writer)
            finally:
                self._writers.discard(far_writer)
                far_writer.transport.abort()
        except OSError:
            return  # either end is gone: so is the other, below
        finally:
            self._writers.discard(near_writer)
            near_writer.transport.abort()

    async def _join(
        self,
        near: asyncio.StreamReader,
        near_writer: asyncio.StreamWriter,
        far: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        directions = {
            asyncio.ensure_future(self._pump(near, far_writer)),
            asyncio.ensure_future(self._pump(far, near_writer)),
        }
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            chunk = await reader.read(CHUNK)
            await self._flowing.wait()
            if not chunk:
                return
            writer.write(chunk)
            await writer.drain()


@asynccontextmanager
async def open_proxy(upstream: int) -> AsyncIterator[Proxy]:
    """A proxy on a free port of 127.0.0.1, with its line up."""
    proxy = Proxy(upstream)
    handlers: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            await proxy.serve(reader, writer)
        except asyncio.CancelledError:
            return  # closing; a cancelled handler would be logged as an error by the stream server
        finally:
            handlers.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for handler in tuple(handlers):
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await server.wait_closed()
