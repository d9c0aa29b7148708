"""The real server as a child process, on loopback: started, awaited, killed and started again on its port and data.

Used by the end-to-end, browser and fault tests and by the torture run. Everything that the server is to know comes
through its environment, as in production; with no URL given it is the embedded default on its own data folder.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.services.folders import new_folder
from tests.services.nursery import Forked, nursery
from tests.services.server import free_port

CHECKOUT = Path(__file__).parents[2]
READY_TIMEOUT = 45.0  # seconds; the first start of the embedded default makes a database cluster, on a shared core


class NotReady(Exception):
    """The server ended, or did not become ready in time; the message carries the end of its log."""


class Orderwire:
    """One node.

    `folder` holds the log and, for the embedded default, the data; its parents must be traversable for the
    unprivileged account that PostgreSQL runs as under root. `environment` is what a deployment would set
    (`ORDERWIRE_DATABASE__URL` ...); nothing of this process's own environment is handed on. The port is chosen once,
    so that clients find a restarted server where it was. `program` is the module that is run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        port: int | None = None,
        program: str = "server",
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._program = program
        self._environment = dict(environment or {})
        self._arguments = tuple(arguments)
        self._process: Forked | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    @property
    def log_file(self) -> Path:
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise NotReady("not started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """Everything that all runs of this node have printed."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def spawn(self, **more: str) -> None:
        """Start the process, with `more` in its environment, without waiting until it is ready; it dies with this
        process."""
        if self.is_running:
            raise RuntimeError("already running")
        own = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "PYTHONPATH": str(CHECKOUT),
            "ORDERWIRE_DATA_DIR": str(self.folder / "data"),
            "ORDERWIRE_LOG__FORMAT": "json",
            "ORDERWIRE_SERVER__SHUTDOWN_PAUSE": "0",  # no balancer watches
        }
        arguments = ["serve", "--port", str(self.port), *self._arguments]
        environment = own | self._environment | more
        self._process = nursery().fork(self._program, arguments, environment, self.folder, self.log_file)

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Block until /health/ready answers 200. Raises NotReady."""
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            self._check_progress(deadline)
            time.sleep(0.05)

    async def ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Like `wait_ready`, for callers on an event loop."""
        deadline = time.monotonic() + timeout
        while not await asyncio.to_thread(self._is_ready):
            self._check_progress(deadline)
            await asyncio.sleep(0.05)

    def start(self) -> None:
        self.spawn()
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL, as a crash would; returns when the process is gone."""
        self._end(signal.SIGKILL, timeout=5.0)

    def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM and the exit code; SIGKILL after `timeout`, so that no test leaves a server behind."""
        try:
            return self._end(signal.SIGTERM, timeout)
        except subprocess.TimeoutExpired:
            return self._end(signal.SIGKILL, timeout=5.0)

    def interrupt(self, timeout: float) -> int:
        """SIGINT, as Ctrl-C would, and the exit code. Raises subprocess.TimeoutExpired."""
        return self._end(signal.SIGINT, timeout)

    def _end(self, how: signal.Signals, timeout: float) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(how)
        code = self._process.wait(timeout)
        self._process = None
        return code

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2.0)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _check_progress(self, deadline: float) -> None:
        if not self.is_running:
            raise NotReady(f"the server ended:\n{self.log()[-4000:]}")
        if time.monotonic() > deadline:
            raise NotReady(f"the server is not ready:\n{self.log()[-4000:]}")


@contextmanager
def orderwire(
    *, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = (), port: int | None = None
) -> Iterator[Orderwire]:
    """A started node in a folder of its own, both gone afterwards."""
    with reachable_folder() as folder:
        node = Orderwire(folder, environment=environment, arguments=arguments, port=port)
        try:
            node.start()
            yield node
        finally:
            node.stop()


@contextmanager
def reachable_folder(*, on_disk: bool = False) -> Iterator[Path]:
    """A new folder that other accounts can pass through: under root, PostgreSQL runs as one of them, and pytest's
    own temporary folders are closed to it."""
    folder = new_folder("node", on_disk=on_disk)
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
