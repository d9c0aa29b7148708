"""Several processes on one port, each a node like any other: a machine's cores, used by one command.

The supervisor holds what the node of a single process would hold once (the data folder, the child servers, the schema),
starts the workers, starts again the one that dies, and ends with them. It takes part in nothing else: the kernel hands
each new connection to one of the workers.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Final

import structlog

from server import runtime
from server.config import ConfigError
from server.crew import Berth
from server.embedded.folder import MAX_SOCKET_PATH
from server.lifespan import Places, open_places
from server.listening import Address, PortTaken, opened, url_of
from server.serve import Started, endless, seeded, serve_node
from server.settings import Settings
from server.telemetry import configure_logging

log = structlog.get_logger(__name__)

_SPAWN: Final = multiprocessing.get_context("spawn")  # a fork would take the event loop along
_SETTLED: Final = 1.0  # a worker that served this long was well: its end counts as the first failure again
_MOST_FAILURES: Final = 8
_LONGEST_PAUSE: Final = 5.0
_KILL_AFTER: Final = 15.0  # seconds beyond the grace that a worker has to drain


class WorkerDied(Exception):
    """A worker ended before it served, or keeps dying."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is told."""

    berth: Berth
    settings: Settings
    places: Places


async def supervise(
    settings: Settings,
    environ: Mapping[str, str],
    stop: asyncio.Event,
    *,
    with_demo: bool,
    announce: Callable[[Started], None],
) -> None:
    """Serve with `server.workers` processes until `stop` is set. Raises what keeps them from starting."""
    async with open_places(settings, environ) as places, asyncio.TaskGroup() as group:
        demo = await seeded(settings, places) if with_demo else None
        port = await asyncio.to_thread(_free_port, settings.server.host, settings.server.port)
        settings = settings.model_copy(update={"server": settings.server.model_copy(update={"port": port})})
        servers = {f"child {number}": child.run for number, child in enumerate(places.children)}
        async with endless(group, servers), _crew(settings, replace(places, children=())) as crew:
            async with endless(group, {f"worker {each.number}": each.run for each in crew}):
                announce(Started(url_of(settings.server.host, port), demo))
                await stop.wait()
            log.info("draining_workers", workers=len(crew))


@asynccontextmanager
async def _crew(settings: Settings, places: Places) -> AsyncIterator[Sequence[_Worker]]:
    """The workers, all serving; afterwards all drained."""
    count = settings.server.workers
    with _folder(count) as folder:
        crew = [_Worker(Assignment(Berth(number, count, folder), settings, places)) for number in range(1, count + 1)]
        try:
            async with asyncio.TaskGroup() as starting:
                for worker in crew:
                    starting.create_task(worker.start())
            yield crew
        finally:
            patience = settings.server.shutdown_pause + settings.server.shutdown_grace + _KILL_AFTER
            await asyncio.gather(*(worker.stop(patience) for worker in crew))


class _Worker:
    """The supervisor's end of one."""

    def __init__(self, assignment: Assignment) -> None:
        self.number = assignment.berth.number
        self._assignment = assignment
        self._process: multiprocessing.process.BaseProcess | None = None

    async def start(self) -> None:
        """Return when it serves. Raises WorkerDied."""
        ready, told = _SPAWN.Pipe(duplex=False)
        with closing(ready):
            process = _SPAWN.Process(target=work, args=(self._assignment, told), name=f"orderwire-{self.number}")
            with _without_ctrl_c():
                process.start()
            self._process = process
            told.close()
            await _until_readable(ready.fileno())
            try:
                ready.recv_bytes()
            except EOFError:
                raise WorkerDied(f"worker {self.number} ended before it served; the log says why") from None
        log.info("worker_started", worker=self.number, pid=process.pid)

    async def run(self) -> None:
        """Start it again whenever it dies. Raises WorkerDied when that fails repeatedly."""
        failures = 0
        while True:
            began = monotonic()
            await self._ended()
            failures = 1 if monotonic() - began >= _SETTLED else failures + 1
            if failures > _MOST_FAILURES:
                raise WorkerDied(f"worker {self.number} died {failures} times in a row")
            await asyncio.sleep(min(_LONGEST_PAUSE, 0.05 * 2**failures) * random.uniform(0.5, 1.0))  # noqa: S311
            with suppress(WorkerDied):
                await self.start()

    async def stop(self, patience: float) -> None:
        """Let it drain; after so many seconds it is killed."""
        process = self._process
        if process is None or not process.is_alive():
            return
        process.terminate()
        try:
            async with asyncio.timeout(patience):
                await _until_readable(process.sentinel)
        except TimeoutError:
            log.warning("worker_killed", worker=self.number)
            process.kill()
        process.join()

    async def _ended(self) -> None:
        if self._process is not None:
            await _until_readable(self._process.sentinel)
            self._process.join()
            log.error("worker_died", worker=self.number, exit_code=self._process.exitcode)


@contextmanager
def _folder(count: int) -> Iterator[Path]:
    """Where so many workers find each other. Raises ConfigError."""
    try:
        made = tempfile.TemporaryDirectory(prefix="orderwire-workers-")
    except OSError as error:
        raise ConfigError(f"TMPDIR: expected a folder that can be written to: {error.strerror}") from None
    with made as name:
        folder = Path(name)
        excess = len(os.fsencode(Berth(count, count, folder).socket_of(count))) - MAX_SOCKET_PATH
        if excess > 0:
            raise ConfigError(
                f"TMPDIR: expected a path that is {excess} bytes shorter than {folder.parent}, because workers have"
                f" sockets there, and a socket's path has at most {MAX_SOCKET_PATH} bytes"
            )
        yield folder


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """A process that is started meanwhile is never interrupted by its terminal: it ends when the supervisor says so."""
    resource_tracker.ensure_running()  # the first start would do it, and lift what is blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _until_readable(number: int) -> None:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(number, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(number)


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises PortTaken: workers share their port, and would share a stranger's."""
    try:
        probes = opened(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), _probe)
    except OSError as error:
        raise PortTaken(f"{host}:{port}: {error.strerror}") from error
    free = int(probes[0].getsockname()[1])
    for probe in probes:
        probe.close()
    return free


def _probe(family: int, address: Address) -> socket.socket:
    probe = socket.socket(family)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # as a listener: or :: would be taken where 0.0.0.0 is
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(address)
    except OSError:
        probe.close()
        raise
    return probe


def work(assignment: Assignment, told: Connection) -> None:
    """A worker's process, from its first line to its last."""
    settings = assignment.settings
    configure_logging(settings.log.level, settings.log.format)
    structlog.contextvars.bind_contextvars(worker=assignment.berth.number)

    def announce(_url: str) -> None:
        runtime.settle_garbage()
        told.send_bytes(b"ready")
        told.close()

    async def main(stop: asyncio.Event) -> None:
        if (supervisor := multiprocessing.parent_process()) is not None:
            # Gone with the supervisor: whoever starts it anew must find the port and the data free.
            asyncio.get_running_loop().add_reader(supervisor.sentinel, os._exit, 1)
        await serve_node(settings, assignment.places, stop, announce, assignment.berth)

    runtime.run(main)
