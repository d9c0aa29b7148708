"""Processes of the server, forked from one that has imported it already: to import it takes most of a second, and a
test run starts more than a hundred. Each is a process like any other: with its own group, environment, folder and log,
killed by the kernel with its parent.

`python -m tests.services.nursery` is that parent: it reads what to start from its standard input, a socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

from tests.services.leftovers import keeping
from tests.services.server import SET_PARENT_DEATH_SIGNAL, die_with_parent, spawner

_MOST_BYTES = 128 * 1024
_CHECKOUT = Path(__file__).parents[2]
_START_SECONDS = 30.0


class Forked:
    """As subprocess.Popen, as far as it is used."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self.pid = pid

    def poll(self) -> int | None:
        return self._nursery.code_of(self.pid, 0.0)

    def wait(self, timeout: float) -> int:
        """Raises subprocess.TimeoutExpired."""
        code = self._nursery.code_of(self.pid, timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return code

    def send_signal(self, which: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, which)


class Nursery:
    """This end of it; may be used from any thread."""

    def __init__(self) -> None:
        with keeping():
            self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            with other:
                self._process = spawner().submit(_open, other).result()
        self._lock = Lock()
        self._codes: dict[int, int] = {}
        self._hear(_START_SECONDS)

    def fork(
        self, program: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
    ) -> Forked:
        """A process that runs the module `program`."""
        wanted = {
            "program": program,
            "arguments": list(arguments),
            "environment": dict(environment),
            "folder": str(folder),
            "log": str(log),
        }
        with self._lock:
            self._socket.send(json.dumps(wanted).encode())
            while True:
                said = self._hear(_START_SECONDS)
                if said is not None and "started" in said:
                    return Forked(self, said["started"])

    def code_of(self, pid: int, timeout: float) -> int | None:
        """With which a process ended, as Popen has it; None if it has not within so many seconds."""
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                # Nobody is kept waiting for the lock by who waits for an end.
                while self._hear(0.0) is not None:
                    pass
                if pid in self._codes or time.monotonic() >= deadline:
                    return self._codes.get(pid)
            select.select([self._socket], [], [], min(0.1, max(0.0, deadline - time.monotonic())))

    def _hear(self, timeout: float) -> dict[str, Any] | None:
        readable, _, _ = select.select([self._socket], [], [], timeout)
        if not readable:
            return None
        said: dict[str, Any] = json.loads(self._socket.recv(_MOST_BYTES))
        if "ended" in said:
            self._codes[said["ended"]] = said["code"]
        return said


@cache
def nursery() -> Nursery:
    """Of this process, opened by the first who needs it."""
    return Nursery()


def _open(other: socket.socket) -> subprocess.Popen[bytes]:
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONPATH": str(_CHECKOUT)}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.services.nursery"],
        env=environment,
        stdin=other.fileno(),
        process_group=0,
        preexec_fn=die_with_parent(os.getpid()),
    )


def main() -> None:
    """Answer until the parent dies; in a child that was asked for, return as the program that it is to be."""
    gc.disable()
    importlib.import_module("server.cli")
    gc.freeze()
    channel = socket.socket(fileno=os.dup(0))
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    channel.send(b'{"ready": true}')
    while True:
        readable, _, _ = select.select([channel.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            _reap(channel)
        if channel.fileno() in readable:
            wanted = json.loads(channel.recv(_MOST_BYTES))
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                channel.close()
                os.close(woken)
                os.close(wake)
                _become(wanted, parent)
            channel.send(json.dumps({"started": pid}).encode())


def _reap(channel: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            channel.send(json.dumps({"ended": pid, "code": code}).encode())


def _become(wanted: Mapping[str, Any], parent: int) -> NoReturn:
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(wanted["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    sys.argv = [wanted["program"], *wanted["arguments"]]
    runpy.run_module(wanted["program"], run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
