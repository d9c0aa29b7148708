"""Writing to a client's socket beside aiohttp."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from aiohttp.abc import AbstractStreamWriter

from realtime.transports.wires import SocketWire

MOST = 1024 * 1024
MORE_THAN_A_SOCKET_TAKES = 8 * 1024 * 1024


class Line:
    """A wire and the client's end of it, which reads only when it is told to."""

    def __init__(self, transport: asyncio.Transport, client: socket.socket) -> None:
        self.transport = transport
        self.client = client
        self.wire = SocketWire(transport, cast("AbstractStreamWriter", None), MOST)

    async def read(self, size: int) -> bytes:
        loop, heard = asyncio.get_running_loop(), bytearray()
        while len(heard) < size and (more := await loop.sock_recv(self.client, 1 << 20)):
            heard += more
        return bytes(heard)


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    loop = asyncio.get_running_loop()
    made: asyncio.Future[asyncio.Transport] = loop.create_future()

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.set_result(cast("asyncio.Transport", transport))

    async with await loop.create_server(Server, "127.0.0.1", 0) as server:
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setblocking(False)
            transport = await made
            try:
                yield Line(transport, client)
            finally:
                transport.abort()


async def test_what_is_written_arrives() -> None:
    async with line() as it:
        assert it.wire.write(b"one")
        assert it.wire.write(b"two")
        assert it.wire.buffered == 0
        assert await it.read(6) == b"onetwo"


async def test_what_the_socket_does_not_take_at_once_comes_in_order_before_what_follows() -> None:
    large = bytes(range(256)) * (MORE_THAN_A_SOCKET_TAKES // 256)
    async with line() as it:
        assert it.wire.write(large)
        assert it.wire.buffered > 0
        it.transport.write(b"aiohttp's own")
        assert await it.read(len(large) + 13) == large + b"aiohttp's own"


async def test_a_client_that_is_behind_is_written_no_more_than_it_may_be_behind() -> None:
    async with line() as it:
        assert it.wire.write(bytes(MORE_THAN_A_SOCKET_TAKES))  # it has kept up so far, however much this is
        buffered = it.wire.buffered
        assert not it.wire.write(bytes(MOST))
        assert it.wire.buffered == buffered


async def test_it_is_written_again_once_it_has_caught_up() -> None:
    async with line() as it:
        it.wire.write(bytes(MORE_THAN_A_SOCKET_TAKES))
        await it.read(MORE_THAN_A_SOCKET_TAKES)
        async with asyncio.timeout(5):
            while it.wire.buffered:  # noqa: ASYNC110 - the transport tells nobody
                await asyncio.sleep(0.001)
        assert it.wire.write(b"news")
        assert await it.read(4) == b"news"


@pytest.mark.parametrize("how", ["over", "closing", "aborted"])
async def test_nothing_is_written_to_one_that_ends(how: str) -> None:
    async with line() as it:
        if how == "over":
            it.wire.is_over = True
        elif how == "closing":
            it.transport.close()
        else:
            it.transport.abort()
        assert it.wire.write(b"late")
        it.transport.close()
        assert await it.read(4) == b""


async def test_a_number_that_was_given_back_is_not_written_to() -> None:
    """The kernel hands it to the next who opens something."""
    async with line() as it:
        number = it.transport.get_extra_info("socket").fileno()
        it.transport.abort()
        await asyncio.sleep(0.01)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert number in (ours.fileno(), theirs.fileno())
            it.wire.write(b"a secret")
            for each in (ours, theirs):
                each.setblocking(False)
                with pytest.raises(BlockingIOError):
                    each.recv(1)


async def test_a_transport_that_raises_is_no_error_either() -> None:
    class Closed:
        """uvloop's, in the moment in which it is closed."""

        def get_extra_info(self, name: str) -> object:
            return name == "ssl_object"

        def is_closing(self) -> bool:
            return False

        def get_write_buffer_size(self) -> int:
            return 0

        def write(self, data: bytes) -> None:
            raise RuntimeError(data)

    wire = SocketWire(cast("asyncio.Transport", Closed()), cast("AbstractStreamWriter", None), MOST)
    assert wire.write(b"late")


async def test_a_client_that_went_is_no_error() -> None:
    async with line() as it:
        it.client.close()
        for _ in range(3):
            assert it.wire.write(b"is somebody there?")
            await asyncio.sleep(0.01)
