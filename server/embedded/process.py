"""Child servers: spawned so that none survives us, watched, restarted in place when they die, stopped in order.

A child lives in its own session (Ctrl-C in the terminal reaches us alone) and inherits two descriptors: the lock of its
data, so that holding the lock proves that no old process of it lives, and the writing end of a pipe, the lifeline, that
reads as closed when the last process of it has ended.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import structlog

log = structlog.get_logger(__name__)

LAUNCHER = Path(__file__).with_name("launch.py")
START_TIMEOUT = 120.0  # replaying a gigabyte of WAL after a crash takes tens of seconds
KILL_TIMEOUT = 5.0
SETTLED = 1.0  # a child that lived this long was well: its end counts as the first failure again
MAX_FAILURES = 8  # about 15 seconds of trying
MAX_BACKOFF = 5.0
MAX_LOG_BYTES = 10 * 1024 * 1024  # of a child's log, looked at when it starts; one older file is kept


class EmbeddedError(Exception):
    """A part of the embedded default cannot run; str() is one line for whoever started it."""


class ChildDied(EmbeddedError):
    """A child server keeps dying, or does not start again."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user that child servers run as when we are root: PostgreSQL refuses root."""

    name: str
    uid: int
    gid: int


def child_account() -> Account | None:
    """None when we are an ordinary user: children are then what we are."""
    if os.geteuid() != 0:
        return None
    if not Path("/proc/self/fd").is_dir():
        raise EmbeddedError("the embedded default cannot run as root here: start as an ordinary user")
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError("as root, the embedded default needs a user postgres or nobody: start as an ordinary user")


@dataclass(frozen=True, slots=True)
class Command:
    """How to run a program as our child: `death_signal` ends it when we end, `fds` stay open in it."""

    argv: tuple[str, ...]
    log: Path
    fds: tuple[int, ...]
    account: Account | None
    death_signal: signal.Signals = signal.SIGTERM

    async def complaint(self) -> str:
        """The last line the program wrote, and where the others are."""
        lines = (await asyncio.to_thread(_end_of, self.log)).decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{last} (see {self.log})"


class Process:
    """One run of a command, all its descendants included."""

    def __init__(self, popen: subprocess.Popen[bytes], lifeline: int) -> None:
        self._popen = popen
        self._lifeline = lifeline
        self._gone = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(lifeline, self._release)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_gone(self) -> bool:
        return self._gone.is_set()

    def _release(self) -> None:
        if not self._gone.is_set():
            self._loop.remove_reader(self._lifeline)
            os.close(self._lifeline)
            self._gone.set()

    async def ended(self) -> int:
        """Wait for the end of the program and all its descendants; its exit code, negative for a signal."""
        await self._gone.wait()
        return await asyncio.to_thread(self._popen.wait)

    async def stop(self, steps: tuple[tuple[signal.Signals, float], ...] = ()) -> None:
        """Send each step's signal and wait that many seconds for the end; at last SIGKILL."""
        for number, patience in (*steps, (signal.SIGKILL, KILL_TIMEOUT)):
            self._popen.send_signal(number)
            try:
                async with asyncio.timeout(patience):
                    await self.ended()
                    return
            except TimeoutError:
                log.warning("child_does_not_end", pid=self.pid, signal=number.name, seconds=patience)
        self._release()


def spawn(command: Command, *, stdin: bytes = b"") -> Process:
    """Start `command`. Call it in the main thread: the kernel ties the death signal to the thread, not the process."""
    identity = (command.account.uid, command.account.gid) if command.account else (-1, -1)
    wrapper = [
        sys.executable,
        "-I",
        "-S",
        str(LAUNCHER),
        *map(str, (os.getpid(), int(command.death_signal), *identity)),
    ]
    lifeline, held = os.pipe()
    try:
        with open(command.log, "ab", opener=_open_private) as output:
            # Not asyncio's: uvloop's knows no pass_fds beside a new session.
            popen = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                [*wrapper, *command.argv],
                cwd="/",
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=(*command.fds, held),
                start_new_session=True,
                bufsize=0,
            )
    except BaseException:
        os.close(lifeline)
        raise
    finally:
        os.close(held)
    if popen.stdin:
        popen.stdin.write(stdin)  # less than a pipe holds: does not block
        popen.stdin.close()
    return Process(popen, lifeline)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _environment() -> dict[str, str]:
    """Nothing of ours but what finds libraries: our environment holds secrets, and PG* would mislead PostgreSQL."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


async def run_to_end(command: Command, *, stdin: bytes = b"") -> None:
    """Raises EmbeddedError when the program fails."""
    process = spawn(command, stdin=stdin)
    try:
        code = await process.ended()
    except BaseException:
        await process.stop()
        raise
    if code != 0:
        raise EmbeddedError(f"{Path(command.argv[0]).name} failed with exit code {code}: {await command.complaint()}")


@dataclass(frozen=True, slots=True)
class Plan:
    """How to keep one server running. `prepare` runs before each start, when no old process of it is left."""

    name: str
    command: Command
    prepare: Callable[[], None]
    is_ready: Callable[[], Awaitable[bool]]
    stop_steps: tuple[tuple[signal.Signals, float], ...]


class Server:
    """A child server at `url`. Whoever opened it runs `run` as a task."""

    def __init__(self, plan: Plan, url: str) -> None:
        self.url = url
        self._plan = plan
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """The running server's process, None between two of them."""
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Restart the server in place whenever it dies. Raises ChildDied when that fails repeatedly."""
        failures = 0
        while True:
            lived = await self._life()
            failures = 1 if lived >= SETTLED else failures + 1
            if failures > MAX_FAILURES:
                raise ChildDied(
                    f"{self._plan.name} died {failures} times in a row: {await self._plan.command.complaint()}"
                )
            await asyncio.sleep(min(MAX_BACKOFF, 0.05 * 2**failures) * random.uniform(0.5, 1.0))  # noqa: S311
            try:
                await self.start()
            except EmbeddedError as error:
                log.error("child_not_restarted", child=self._plan.name, failures=failures, reason=str(error))

    async def _life(self) -> float:
        """Wait for the end of the running server; how many seconds it was up, 0 when the last start failed."""
        if self._process is None:
            return 0.0
        began = monotonic()
        code = await self._process.ended()
        self._process = None
        log.error("child_died", child=self._plan.name, exit_code=code)
        return monotonic() - began

    async def start(self) -> None:
        """Start and wait until it answers. Raises EmbeddedError; then nothing is left running."""
        began = monotonic()
        await asyncio.to_thread(self._plan.prepare)
        await asyncio.to_thread(_rotate, self._plan.command.log)
        process = spawn(self._plan.command)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not await self._plan.is_ready():
                    if process.is_gone:
                        code = await process.ended()
                        raise EmbeddedError(
                            f"{self._plan.name} ended with exit code {code}: {await self._plan.command.complaint()}"
                        )
                    await asyncio.sleep(0.01)
        except TimeoutError:
            await process.stop(self._plan.stop_steps)
            raise EmbeddedError(
                f"{self._plan.name} was not ready after {START_TIMEOUT:g} s: {await self._plan.command.complaint()}"
            ) from None
        except BaseException:
            await process.stop()
            raise
        self._process = process
        log.info("child_started", child=self._plan.name, pid=process.pid, seconds=round(monotonic() - began, 3))

    async def stop(self) -> None:
        if self._process is not None:
            began = monotonic()
            await self._process.stop(self._plan.stop_steps)
            self._process = None
            log.info("child_stopped", child=self._plan.name, seconds=round(monotonic() - began, 3))


def _end_of(path: Path, size: int = 4096) -> bytes:
    with path.open("rb") as written:
        written.seek(max(0, path.stat().st_size - size))
        return written.read(size)


def _rotate(path: Path) -> None:
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
