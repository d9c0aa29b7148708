"""A real server as a child of the test process: started, killed, frozen, restarted on its own port and data.

Nothing survives the process that started it: the kernel kills a child when its parent dies. May be used from any
thread; from a coroutine with `asyncio.to_thread`, because starting waits.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.services.folders import new_folder

SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)
_START_SECONDS = 90.0  # RabbitMQ needs 6 s alone and several times that on a busy machine
_STOP_SECONDS = 20.0


class Unavailable(Exception):
    """This machine has no such server, and none can be fetched; the text says why and what to set instead."""


class StartFailed(Exception):
    """The server was there but did not come up; the text ends with the end of its log."""


@dataclass(frozen=True)
class Account:
    """The user that a server runs as, where it must not be the one who runs the tests."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Launch:
    """How to start a server's process."""

    command: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = None


class Server(ABC):
    """One server process with its descendants, listening on loopback, its data in a folder of its own.

    Use as a context manager: leaving it kills the server and removes the folder.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = new_folder(self.name)
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []
        self._thaw: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """For clients of this server; the same after a restart."""

    @abstractmethod
    def _prepare(self) -> Launch:
        """Make the data folder if it is not there and say what to run. Raises Unavailable."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Would a client be served now? Called while the process lives; errors of a connection count as no."""

    @property
    def pid(self) -> int:
        """Of the running server's first process."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start and wait until clients are served. Raises Unavailable or StartFailed."""
        launch = self._prepare()
        self.log_file.touch()
        self._boot_log_start = self.log_file.stat().st_size
        self._process = spawn(launch, self.folder, self.log_file)
        deadline = time.monotonic() + _START_SECONDS
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise StartFailed(f"{self.name} did not start:\n{self.log_file.read_text(errors='replace')[-3000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End in good order, as an administrator would; killed if that takes too long."""
        self.resume()
        if self._process is None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL to the process and all its descendants at once, as a power cut would; data stay as they are."""
        if self._process is None:
            return
        family = list(_freeze(self._process.pid))
        for pid in family:
            _signal(pid, signal.SIGKILL)
        self._process.wait()
        _wait_ended(family)
        self._process = None
        self._forget_frozen()

    def restart(self) -> None:
        """Stop if running, then start on the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP to all its processes: connections stay open and nothing answers, like a host that hangs."""
        if self._process is None or self._frozen:
            return
        self._frozen = list(_freeze(self._process.pid))
        # A stopped process cannot notice that its parent died: should we be killed, this pipe closes and wakes them.
        wake = f"read _; kill -CONT {' '.join(map(str, self._frozen))} 2>/dev/null"
        self._thaw = subprocess.Popen(["/bin/sh", "-c", wake], stdin=subprocess.PIPE, process_group=0)

    def resume(self) -> None:
        """Undo `pause`; nothing to do for a server that runs."""
        for pid in self._frozen:
            _signal(pid, signal.SIGCONT)
        self._forget_frozen()

    def revive(self) -> None:
        """Have it running, whatever was done to it before."""
        self.resume()
        if not self.is_running:
            self._process = None
            self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def log_file(self) -> Path:
        return self.folder / "log"

    def _log_of_this_start(self) -> bytes:
        with self.log_file.open("rb") as log:
            log.seek(self._boot_log_start)
            return log.read()

    def _accepts(self) -> bool:
        try:
            return self._is_ready()
        except OSError:
            return False

    def _forget_frozen(self) -> None:
        self._frozen = []
        if self._thaw is not None:
            self._thaw.communicate()
            self._thaw = None


def spawn(launch: Launch, folder: Path, log_file: Path) -> subprocess.Popen[bytes]:
    """Start a process in its own group, deaf to our Ctrl-C, that the kernel kills when this process ends."""

    def start() -> subprocess.Popen[bytes]:
        with log_file.open("ab") as log:
            return subprocess.Popen(
                launch.command,
                env={"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC", **launch.environment},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=die_with_parent(os.getpid()),  # runs after the change of user, which would undo it
                user=launch.account.uid if launch.account else None,
                group=launch.account.gid if launch.account else None,
                extra_groups=[] if launch.account else None,
            )

    return spawner().submit(start).result()


@cache
def spawner() -> ThreadPoolExecutor:
    """The thread that starts processes."""
    # To the kernel the parent is the thread that forked: this one lives as long as the process, a test's may not.
    return ThreadPoolExecutor(1, thread_name_prefix="spawner")


def free_port() -> int:
    """A loopback port that nobody listens on, below the range that outgoing connections are given theirs from.

    From within that range a client that reconnects to a stopped server could take the server's port for its own
    end, and the restart would find it in use.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def die_with_parent(parent: int) -> Callable[[], None] | None:
    """For a child to do before it becomes what it is to be."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: the child may only do what is safe there

    def arrange() -> None:
        prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def _freeze(pid: int) -> Iterator[int]:
    """Stop a process, then its children and theirs; stopped first, so that none is born meanwhile. Yields them all."""
    _signal(pid, signal.SIGSTOP)
    yield pid
    for thread in _threads(pid):
        try:
            listed = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
        except OSError:  # that thread has just ended
            continue
        for child in listed:
            yield from _freeze(int(child))


def _threads(pid: int) -> list[str]:
    try:
        return [thread.name for thread in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # the process has just ended, or there is no /proc
        return []


def _wait_ended(pids: Iterable[int]) -> None:
    """A killed process still has its memory, files and ports for a moment; the next start must not find them."""
    deadline = time.monotonic() + _STOP_SECONDS
    for pid in pids:
        while _is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.002)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


def _signal(pid: int, which: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, which)
