"""Where a node listens: every connection gets in, a few at a time, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from server.listening import PortTaken, listening, opened
from tests.services.server import free_port


@dataclass
class Guests(asyncio.Protocol):
    """Says welcome to everyone who comes in."""

    arrivals: list[float] = field(default_factory=list)
    transports: list[asyncio.Transport] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.arrivals.append(time.monotonic())
        self.transports.append(cast("asyncio.Transport", transport))
        self.transports[-1].write(b"welcome")

    def connection_lost(self, _why: Exception | None) -> None:
        self.left.set()


@asynccontextmanager
async def house(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[Guests, tuple[str, int]]]:
    guests = Guests()
    async with listening(lambda: guests, host, port, is_shared=False) as place:
        yield guests, place
    for transport in guests.transports:
        transport.abort()
    await asyncio.sleep(0)


async def welcomed(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        return await reader.readexactly(7)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_all_of_a_crowd_get_in() -> None:
    async with house() as (guests, place), asyncio.timeout(10):
        assert await asyncio.gather(*(welcomed(*place) for _ in range(200))) == [b"welcome"] * 200
        assert len(guests.arrivals) == 200


async def test_between_two_of_them_the_loop_does_other_work() -> None:
    async with house() as (guests, place), asyncio.timeout(10):
        crowd = asyncio.gather(*(welcomed(*place) for _ in range(100)))
        turns = 0
        while len(guests.arrivals) < 100:
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 50
        await crowd


async def test_a_small_message_leaves_at_once() -> None:
    async with house() as (guests, place):
        await welcomed(*place)
        one: Any = guests.transports[0].get_extra_info("socket")
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told")
async def test_who_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.listening._DEAF_SECONDS", 0.3, raising=False)
    async with house() as (guests, place):
        with socket.create_connection(place):
            async with asyncio.timeout(5):
                while not guests.transports:  # noqa: ASYNC110 - it is let in
                    await asyncio.sleep(0.01)
                guests.transports[0].write(bytes(16 * 1024 * 1024))
                await guests.left.wait()


async def test_who_gave_up_while_waiting_is_not_let_in() -> None:
    async with house() as (guests, place):
        for _ in range(20):
            with socket.create_connection(place) as impatient:
                impatient.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert await welcomed(*place) == b"welcome"
        assert len(guests.arrivals) == 1


async def test_every_address_of_the_host_is_listened_on() -> None:
    port = free_port()
    addresses = {address[0] for *_, address in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
    async with house("localhost", port) as (guests, _):
        for address in addresses:
            assert await welcomed(str(address), port) == b"welcome"
        assert len(guests.arrivals) == len(addresses)


async def test_a_port_that_is_taken_is_said_with_its_address() -> None:
    async with house() as (_, (host, port)):
        with pytest.raises(PortTaken, match=f"{host}:{port}: Address already in use"):
            async with listening(asyncio.Protocol, host, port, is_shared=False):
                pass


@pytest.mark.parametrize("addresses", [("192.0.2.1", "127.0.0.1"), ("127.0.0.1", "192.0.2.1")])
def test_of_the_addresses_of_a_name_those_that_this_machine_has_are_enough(addresses: tuple[str, str]) -> None:
    """As localhost is ::1 too where IPv6 is off."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
    [listener] = opened(found, lambda family, address: socket.create_server(address, family=family))
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"


async def test_an_address_that_this_machine_has_not_is_said() -> None:
    with pytest.raises(PortTaken, match=r"^192\.0\.2\.1:0: Cannot assign requested address"):
        async with listening(asyncio.Protocol, "192.0.2.1", 0, is_shared=False):
            pass


async def test_several_may_share_a_port_if_all_agree() -> None:
    async with (
        listening(asyncio.Protocol, "127.0.0.1", 0, is_shared=True) as place,
        listening(asyncio.Protocol, *place, is_shared=True) as other,
    ):
        assert other == place


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ECONNABORTED, errno.EPROTO, errno.EPERM])
async def test_what_fails_to_be_accepted_keeps_nobody_else_out(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("server.listening._PAUSE_SECONDS", 0.05)
    accept, fails = socket.socket.accept, [True, True]

    def accept_or_fail(self: socket.socket) -> tuple[socket.socket, Any]:
        if fails:
            fails.pop()
            raise OSError(number, os.strerror(number))
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", accept_or_fail)
    with capture_logs() as logs:
        async with house() as (_, place), asyncio.timeout(5):
            began = time.monotonic()
            assert await welcomed(*place) == b"welcome"
            took = time.monotonic() - began
    assert took > (0.08 if number == errno.EMFILE else 0)  # a loop without descriptors would do nothing but try
    assert [line["reason"] for line in logs] == (["Too many open files"] * 2 if number == errno.EMFILE else [])


async def test_who_waits_outside_as_it_closes_is_let_in() -> None:
    guests = Guests()
    async with listening(lambda: guests, "127.0.0.1", 0, is_shared=False) as place:
        outside = []
        for _ in range(20):  # more than are let in together
            guest = socket.create_connection(place)
            guest.setblocking(False)
            outside.append(guest)
    try:
        assert len(guests.arrivals) == 20
        assert [guest.recv(7) for guest in outside] == [b"welcome"] * 20
    finally:
        for guest in outside:
            guest.close()
        for transport in guests.transports:
            transport.abort()
        await asyncio.sleep(0)
