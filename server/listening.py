"""Where a node listens, and how fast it lets connections in.

When all clients come back at once, asyncio would accept every connection that waits in one turn of the loop, and each
of them then wants to be upgraded, to connect and to subscribe: what was asked meanwhile would wait for all of that. So
a few are accepted at a time, and the next ones after a rest, when the loop has nothing else to do. The others wait in
the kernel, where they cost nothing.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

import structlog

from realtime.turns import Turns

log = structlog.get_logger(__name__)

Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
"""As the standard library has it; the last is for a Python without IPv6."""
Protocols = Callable[[], asyncio.Protocol]
"""A new protocol for each connection."""

_BACKLOG: Final = 4096  # connections that wait to be accepted; Linux's own bound unless it was raised
_TOGETHER: Final = 2  # accepted in one turn
_MOST_LOOKED_AT: Final = 100  # in one turn, of those that were given up meanwhile
_REST_SECONDS: Final = 0.001  # then: at most 2,000 a second, about as many as one core can connect and subscribe
_OTHERS_SECONDS: Final = 0.02  # and then the others go first, for so long at most
_LAST_WORDS_SECONDS: Final = 0.1
_DEAF_SECONDS: Final = 60.0  # for which a peer may take nothing of what waits for it; aiohttp would wait for ever
_PAUSE_SECONDS: Final = 1.0  # without descriptors or memory
_CLOSE_WAIT: Final = 8  # of TCP's states, as Linux counts them
_NOT_OF_THIS_MACHINE: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class PortTaken(Exception):
    """The address cannot be listened on; str() says which and why."""


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def listening(protocols: Protocols, host: str, port: int, *, is_shared: bool) -> AsyncIterator[tuple[str, int]]:
    """Accept connections to every address that `host` has; with port 0 to a free one. Other processes may listen there
    too if it `is_shared`. Yields the first address. Raises PortTaken."""
    try:
        listeners = await _listeners(host, port, is_shared=is_shared)
    except OSError as error:
        raise PortTaken(f"{host}:{port}: {error.strerror}") from error
    doors = [_Door(listener, protocols) for listener in listeners]
    try:
        yield listeners[0].getsockname()[:2]
    finally:
        for door in doors:
            await door.close()


async def _listeners(host: str, port: int, *, is_shared: bool) -> Sequence[socket.socket]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)

    def listener(family: int, address: Address) -> socket.socket:
        return socket.create_server(address, family=family, backlog=_BACKLOG, reuse_port=is_shared)

    listeners = opened(found, listener)
    for each in listeners:
        each.setblocking(False)
    return listeners


def opened(
    found: Iterable[tuple[int, int, int, str, Address]], new: Callable[[int, Address], socket.socket]
) -> Sequence[socket.socket]:
    """A socket for each of the addresses that were found and that this machine has: a container without IPv6 still has
    localhost as ::1 in its /etc/hosts. Raises OSError if it has none, or if one cannot be had."""
    sockets: list[socket.socket] = []
    foreign: OSError | None = None
    try:
        for family, address in dict.fromkeys((family, address) for family, *_, address in found):
            try:
                sockets.append(new(family, address))
            except OSError as error:
                if error.errno not in _NOT_OF_THIS_MACHINE:
                    raise
                foreign = error
        if foreign is not None and not sockets:
            raise foreign
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def _is_given_up(connection: socket.socket) -> bool:
    """Has the other side closed it while it waited, for too long? Only Linux tells. (One that only says that it has no
    more to say would not be served either: aiohttp lets go of it.)"""
    if sys.platform != "linux":
        return False
    state: int = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == _CLOSE_WAIT


class _Door:
    """One listening socket."""

    def __init__(self, listener: socket.socket, protocols: Protocols) -> None:
        self._listener = listener
        self._protocols = protocols
        self._loop = asyncio.get_running_loop()
        self._turns = Turns(self._wait)
        self._entering: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._wait()

    async def close(self) -> None:
        """Whoever has come enters, also those who wait in the kernel, which would turn them away: a balancer that has
        sent its request already may not send it again elsewhere. They have a moment to say what they want."""
        self._is_closed = True
        self._loop.remove_reader(self._listener)
        with suppress(OSError):  # BlockingIOError: that was all
            while True:
                self._accept()
        self._listener.close()
        if self._entering:
            await asyncio.wait(self._entering)
            await asyncio.sleep(_LAST_WORDS_SECONDS)

    def _wait(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listener, self._accept_some)

    def _accept_some(self) -> None:
        self._loop.remove_reader(self._listener)
        rest, entered, looked_at = _REST_SECONDS, 0, 0
        try:
            while entered < _TOGETHER and looked_at < _MOST_LOOKED_AT:
                looked_at += 1
                entered += self._accept()
        except BlockingIOError:
            pass  # that was all
        except OSError as error:  # most are one connection's own (accept(2)): the next one may come
            if error.errno in _EXHAUSTED:
                log.error("cannot_accept", reason=error.strerror)
                rest = _PAUSE_SECONDS
        self._loop.call_later(rest, self._let_others)

    def _let_others(self) -> None:
        self._turns.let_others(time.monotonic(), at_most=_OTHERS_SECONDS)

    def _accept(self) -> bool:
        """Did one come that is still there?"""
        connection, _ = self._listener.accept()
        if _is_given_up(connection):
            connection.close()
            return False
        entering = self._loop.create_task(self._enter(connection))
        self._entering.add(entering)
        entering.add_done_callback(self._entering.discard)
        return True

    async def _enter(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sys.platform == "linux":
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * _DEAF_SECONDS))
            await self._loop.connect_accepted_socket(self._protocols, connection)
        except OSError:
            connection.close()  # it went meanwhile
