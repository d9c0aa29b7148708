"""The servers that are measured beside ours: a few lines each in servers/, run as children on loopback."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.services import debian, node
from tests.services.server import Launch, Server, Unavailable

_SERVERS: Final = Path(__file__).with_name("servers")
_LOCK: Final = Path(__file__).resolve().parents[2] / "requirements" / "peers.txt"

PEERS: Final = {
    "uWebSockets": ("uwebsockets.mjs", "plain"),
    "ws": ("ws.mjs", "plain"),
    "Socket.IO": ("socket_io.mjs", "engine.io"),
    "websockets": ("websockets_broadcast.py", "plain"),
    "FastAPI": ("fastapi_loop.py", "plain"),
    "python-socketio": ("python_socketio.py", "engine.io"),
}
"""Of the fan-out, by name: the program, and the dialect that it speaks."""


class Peer(Server):
    name = "peer"

    def __init__(self, program: str, environment: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._program = _SERVERS / program
        self._environment = {"PATH": os.environ.get("PATH", os.defpath), **(environment or {})}

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def _prepare(self) -> Launch:
        interpreter = _python() if self._program.suffix == ".py" else _node()
        return Launch([interpreter, self._program, str(self.port)], self._environment)

    def _is_ready(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), 1).close()
        return True


def _node() -> Path:
    program = node.executable()
    node.modules(program, _SERVERS)
    return program


def _python() -> Path:
    """Of a virtual environment with exactly what requirements/peers.txt locks. Raises Unavailable."""
    place = debian.cache_folder() / "peers"
    stamp = place / ".lock-hash"
    wanted = hashlib.sha256(_LOCK.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        uv = Path(sys.executable).with_name("uv")
        environment = {**os.environ, "UV_SYSTEM_CERTS": "1", "UV_PYTHON_DOWNLOADS": "never", "VIRTUAL_ENV": str(place)}
        try:
            for arguments in (
                ["venv", "--quiet", "--clear", "--python", sys.executable, str(place)],
                ["pip", "sync", "--quiet", "--require-hashes", str(_LOCK)],
            ):
                subprocess.run([uv, *arguments], env=environment, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"what requirements/peers.txt locks could not be installed: {error}") from error
        stamp.write_text(wanted)
    return place / "bin" / "python"
