"""Writing to a client's socket beside aiohttp, by itself and together with others."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import cast

import pytest
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_writer import StreamWriter

from realtime.transports.batches import SocketBatch, batch_of
from realtime.transports.wires import SocketWire
from realtime.wire import OneByOne

MOST = 1024 * 1024
MORE_THAN_A_SOCKET_TAKES = 8 * 1024 * 1024


class Line:
    """A wire and the client's end of it, which reads only when it is told to."""

    def __init__(self, transport: asyncio.Transport, client: socket.socket) -> None:
        self.transport = transport
        self.client = client
        self.wire = SocketWire(transport, cast("AbstractStreamWriter", None), MOST)
        self.batch = [self.wire]

    def write(self, data: bytes) -> bool:
        """To all of the batch, if it is in one. Was it written to this one?"""
        if len(self.batch) == 1:
            return self.wire.write(data)
        return self.batch.index(self.wire) not in batch_of(self.batch).write(data)

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


@pytest.fixture(params=["alone", "first", "middle", "last"])
async def it(request: pytest.FixtureRequest) -> AsyncIterator[Line]:
    """A line, alone or in a batch of three."""
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(line()) for _ in range(1 if request.param == "alone" else 3)]
        chosen = lines[{"middle": 1, "last": -1}.get(request.param, 0)]
        chosen.batch = [each.wire for each in lines]
        yield chosen


async def test_what_is_written_arrives(it: Line) -> None:
    assert it.write(b"one")
    assert it.write(b"two")
    assert it.wire.buffered == 0
    assert await it.read(6) == b"onetwo"


async def test_what_the_socket_does_not_take_at_once_comes_in_order_before_what_follows(it: Line) -> None:
    large = bytes(range(256)) * (MORE_THAN_A_SOCKET_TAKES // 256)
    assert it.write(large)
    assert it.wire.buffered > 0
    it.transport.write(b"aiohttp's own")
    assert await it.read(len(large) + 13) == large + b"aiohttp's own"


async def test_a_client_that_is_behind_is_written_no_more_than_it_may_be_behind(it: Line) -> None:
    assert it.write(bytes(MORE_THAN_A_SOCKET_TAKES))  # it has kept up so far, however much this is
    buffered = it.wire.buffered
    assert not it.write(bytes(MOST))
    assert it.wire.buffered == buffered


async def test_it_is_written_again_once_it_has_caught_up(it: Line) -> None:
    it.write(bytes(MORE_THAN_A_SOCKET_TAKES))
    await it.read(MORE_THAN_A_SOCKET_TAKES)
    async with asyncio.timeout(5):
        while it.wire.buffered:  # noqa: ASYNC110 - the transport tells nobody
            await asyncio.sleep(0.001)
    assert it.write(b"news")
    assert await it.read(4) == b"news"


@pytest.mark.parametrize("how", ["over", "closing", "aborted"])
async def test_nothing_is_written_to_one_that_ends(it: Line, how: str) -> None:
    if how == "over":
        it.wire.shut()
    elif how == "closing":
        it.transport.close()
    else:
        it.transport.abort()
    assert it.write(b"late")
    it.transport.close()
    assert await it.read(4) == b""


async def test_a_number_that_was_given_back_is_not_written_to(it: Line) -> None:
    """The kernel hands it to the next who opens something."""
    number = it.transport.get_extra_info("socket").fileno()
    it.transport.abort()
    await asyncio.sleep(0.01)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert number in (ours.fileno(), theirs.fileno())
        it.write(b"a secret")
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


async def test_a_client_that_went_is_no_error(it: Line) -> None:
    it.client.close()
    for _ in range(3):
        assert it.write(b"is somebody there?")
        await asyncio.sleep(0.01)


async def test_a_client_that_went_is_let_go_although_nothing_is_read_from_it(it: Line) -> None:
    """aiohttp reads no more from who sends requests while one is answered, and so does not learn it."""
    it.transport.pause_reading()
    it.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it resets
    it.client.close()
    assert it.write(b"is somebody there?")
    assert it.transport.is_closing()


@pytest.mark.parametrize("how", ["over", "closing", "behind", "full", "gone"])
async def test_what_keeps_one_of_a_batch_keeps_no_other(how: str) -> None:
    async with line() as before, line() as kept, line() as after:
        filling = 0
        if how == "over":
            kept.wire.shut()
        elif how == "closing":
            kept.transport.close()
        elif how == "behind":
            kept.write(bytes(MORE_THAN_A_SOCKET_TAKES))
        elif how == "gone":
            kept.client.close()
            for _ in range(2):
                kept.write(b"to learn it")
        else:
            filling = fill_up(kept.wire.number)
        batch = batch_of([before.wire, kept.wire, after.wire])
        assert isinstance(batch, SocketBatch)
        news = bytes(range(256)) * 256
        assert list(batch.write(news)) == ([1] if how == "behind" else [])
        for each in (before, after):
            assert await each.read(len(news)) == news
        if how == "full":
            assert (await kept.read(filling + len(news)))[filling:] == news


@asynccontextmanager
async def behind() -> AsyncIterator[tuple[SocketWire, BaseProtocol]]:
    """A wire with aiohttp's own writer, whose client takes nothing more."""
    async with line() as it:
        protocol = BaseProtocol(asyncio.get_running_loop())
        protocol.connection_made(it.transport)
        wire = SocketWire(it.transport, StreamWriter(protocol, asyncio.get_running_loop()), MOST)
        it.transport.write(bytes(MORE_THAN_A_SOCKET_TAKES))
        protocol.pause_writing()
        yield wire, protocol


async def test_who_waits_no_longer_takes_nobody_else_along() -> None:
    async with behind() as (wire, protocol):
        waiting = asyncio.create_task(wire.drain())
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wire.drain(), 0.01)
        assert not waiting.done()
        protocol.resume_writing()
        await waiting
        await wire.drain()


async def test_who_waits_is_told_when_the_client_goes() -> None:
    async with behind() as (wire, protocol):
        waiting = asyncio.create_task(wire.drain())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        protocol.connection_lost(ConnectionResetError())
        with pytest.raises(ConnectionError):
            await waiting


def fill_up(number: int) -> int:
    """How many bytes the socket took until it took no more."""
    taken = 0
    with suppress(BlockingIOError):
        while True:
            taken += os.write(number, bytes(1024))
    return taken


async def test_what_has_no_plain_socket_is_written_to_one_by_one() -> None:
    async with line() as plain, line() as behind_tls:
        behind_tls.wire.number = -1
        batch = batch_of([plain.wire, behind_tls.wire])
        assert isinstance(batch, OneByOne)
        assert list(batch.write(b"news")) == []
        for each in (plain, behind_tls):
            assert await each.read(4) == b"news"


async def test_what_is_held_is_kept_until_it_is_released(it: Line) -> None:
    it.wire.hold()
    assert it.write(b"early")
    assert not it.write(bytes(MOST))
    assert it.wire.release() == b"early"
    assert it.write(b"on time")
    assert await it.read(7) == b"on time"


async def test_what_is_over_while_it_is_held_stays_over(it: Line) -> None:
    it.wire.hold()
    it.write(b"early")
    it.wire.shut()
    assert it.wire.release() == b""
    assert it.write(b"late")
    it.transport.write(b".")
    assert await it.read(1) == b"."


async def test_what_is_over_is_not_held_and_opened_again() -> None:
    """A key may be fetched for a connect while the Close frame is answered."""
    async with line() as it:
        it.wire.shut()
        it.wire.hold()
        it.wire.release()
        it.wire.write(b"late")
        with pytest.raises(BlockingIOError):
            it.client.recv(10)


async def test_who_is_not_behind_waits_for_no_turn_of_the_loop() -> None:
    async with line() as it:
        with pytest.raises(StopIteration):
            it.wire.drain().send(None)
