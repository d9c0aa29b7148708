"""Valkey as a child: for the bus, presence, sessions and limits, on a Unix socket that nobody else can reach."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from server.embedded.binaries import find_valkey, reachable
from server.embedded.folder import Door, Home, make_private, opened_door, opened_home
from server.embedded.process import Account, Command, Plan, Server, child_account

SOCKET = "valkey.sock"
PING_TIMEOUT = 1.0


@asynccontextmanager
async def embedded_valkey(data_dir: Path) -> AsyncIterator[Server]:
    """Valkey with its data in `data_dir`/valkey, until the block ends.

    `Server.url` is for redis-py. The data folder has to be `claimed`. Raises EmbeddedError.
    """
    valkey, account = await asyncio.to_thread(_find)
    async with opened_home(data_dir / "valkey", SOCKET, account) as home:
        data = home.path / "data"
        await asyncio.to_thread(make_private, data, account)
        with opened_door(data, account) as door:
            server = Server(_plan(valkey, home, door), f"unix://{quote(str(home.sockets / SOCKET))}")
            await server.start()
            try:
                yield server
            finally:
                await server.stop()


def _find() -> tuple[Path, Account | None]:
    account = child_account()
    return reachable(find_valkey(os.environ), account), account


def _plan(valkey: Path, home: Home, door: Door) -> Plan:
    socket = home.sockets / SOCKET
    options = {
        "port": "0",
        "unixsocket": f"{home.sockets_door.path}/{SOCKET}",
        "unixsocketperm": "700",
        "dir": door.path,
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
        "loglevel": "warning",
    }

    async def is_ready() -> bool:
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                return await _answers(socket)
        except (OSError, TimeoutError):
            return False

    return Plan(
        name="Valkey",
        command=Command(
            (str(valkey), *(word for name, value in options.items() for word in (f"--{name}", value))),
            home.path / "log",
            (home.lock, *home.sockets_door.fds, *door.fds),
            home.account,
        ),
        # A killed server's socket would look like a server that refuses.
        prepare=lambda: socket.unlink(missing_ok=True),
        is_ready=is_ready,
        stop_steps=((signal.SIGTERM, 5.0),),
    )


async def _answers(socket: Path) -> bool:
    """Whether PING is answered with PONG; while it reads its data it says LOADING."""
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(b"PING\r\n")
        return await reader.readline() == b"+PONG\r\n"
    finally:
        writer.close()
