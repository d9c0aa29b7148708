"""All connections of this node: their number, their timers, their tasks, and their end."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import structlog

from handlers.clock import utc_now
from realtime.commands import Commands
from realtime.connection import ClientEncoding, Connection, Surroundings
from realtime.flusher import Flusher
from realtime.identities import Identities
from realtime.life_cycle import LifeCycle
from realtime.metrics import RealtimeMetrics
from realtime.operations import Operations
from realtime.protocol.codes import Disconnect
from realtime.protocol.messages import Codec, Route
from realtime.rate_limits import UNLIMITED, Meters, RateLimits
from realtime.session import Session
from realtime.session_effects import ClientOptions
from realtime.wire import Wire

log = structlog.get_logger(__name__)

_BUCKET_SECONDS: Final = 0.25
_WAVE_SECONDS: Final = 0.05
_SMALLEST_WAVE: Final = 50  # a node of few clients is gone at once: Ctrl-C is no rolling deploy


@dataclass(frozen=True, slots=True)
class Link:
    """How a transport's clients talk. `is_routed`: their commands come by another way than the wire. `is_one_way`: they
    say nothing but hello."""

    transport: str
    is_routed: bool = False
    is_one_way: bool = False


class Opened:
    """A connection while it is open. Small, unlike a generator: there is one for each client."""

    __slots__ = ("_connection", "_connections")

    def __init__(self, connections: Connections, connection: Connection) -> None:
        self._connections = connections
        self._connection = connection

    def __enter__(self) -> Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connections.forget(self._connection)


@contextmanager
def _its_own_misfortune(connection: Connection) -> Iterator[None]:
    """What fails for one client does so in the turn of all of them, and is not to end it."""
    try:
        yield
    except Exception:
        log.exception("connection_failed", client=connection.client)


class Connections:
    """`version` is what clients are told the server is; never empty, SDKs hand it on to the application.

    `node` is this node's name in a `Route`.
    """

    def __init__(
        self,
        flusher: Flusher,
        operations: Operations,
        identities: Identities,
        metrics: RealtimeMetrics,
        options: ClientOptions,
        *,
        version: str,
        node: str,
        limits: RateLimits = UNLIMITED,
        commands: Commands | None = None,
        life_cycle: LifeCycle | None = None,
    ) -> None:
        self._shared = Surroundings(
            flusher=flusher,
            operations=operations,
            commands=commands,
            identities=identities,
            metrics=metrics,
            life_cycle=life_cycle,
            options=options,
            clock=time.monotonic,
            utc_now=utc_now,
            spawn=self._spawn,
            rescheduled=self._schedule,
        )
        self._version = version
        self._node = node
        self._meters = Meters(limits)
        self._open: dict[Connection, None] = {}
        self._by_session: dict[str, Connection] = {}
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._tasks: asyncio.TaskGroup | None = None
        self._is_draining = False
        # One timer for all: connections by the quarter of a second in which they have something to do.
        self._wheel: dict[int, set[Connection]] = {}
        self._turned_to = self._bucket(time.monotonic())

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open))

    @property
    def options(self) -> ClientOptions:
        return self._shared.options

    @property
    def can_take_more(self) -> bool:
        is_running = self._tasks is not None and not self._is_draining
        return is_running and len(self._open) < self.options.connection_limit

    def find(self, session: str) -> Connection | None:
        return self._by_session.get(session)

    def open(self, wire: Wire, encoding: ClientEncoding, codec: Codec, link: Link) -> Opened:
        """`with` it: a connection for as long as the block lasts."""
        session = Session(
            str(uuid4()),
            self._version,
            codec,
            self.options,
            now=time.monotonic(),
            random=random.random,
            meters=self._meters,
            route=Route(str(uuid4()), self._node) if link.is_routed else None,
            is_one_way=link.is_one_way,
        )
        connection = Connection(session, wire, encoding, self._shared, link.transport)
        self._open[connection] = None
        if link.is_routed:
            self._by_session[connection.session] = connection
        self._none_left.clear()
        self._shared.metrics.connections.inc()
        self._schedule(connection)
        return Opened(self, connection)

    def forget(self, connection: Connection) -> None:
        """Nothing of it is left."""
        connection.gone()
        self._unschedule(connection)
        del self._open[connection]
        self._by_session.pop(connection.session, None)
        self._shared.metrics.connections.dec()
        if not self._open:
            self._none_left.set()

    async def run(self) -> None:
        """Turn the wheel and own the tasks of all connections, until cancelled. None is taken before it runs."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                while True:
                    await asyncio.sleep(_BUCKET_SECONDS)
                    self._turn(time.monotonic())
            finally:
                self._tasks = None

    async def drain(self, seconds: float) -> None:
        """Take no new ones and close all with 3001: in waves, so that not all come back to another node at once.

        Returns when they are gone, at the latest after `seconds`.
        """
        self._is_draining = True
        leaving = list(self._open)
        waves = max(1, int(seconds / 2 / _WAVE_SECONDS))
        size = max(_SMALLEST_WAVE, math.ceil(len(leaving) / waves))
        try:
            async with asyncio.timeout(seconds):
                for start in range(0, len(leaving), size):
                    for connection in leaving[start : start + size]:
                        if connection in self._open:  # else it has gone by itself, waves ago
                            with _its_own_misfortune(connection):
                                connection.close(Disconnect.SHUTDOWN)
                    await asyncio.sleep(_WAVE_SECONDS)
                await self._none_left.wait()
        except TimeoutError:
            return

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None] | None:
        if self._tasks is None:
            work.close()
            return None
        return self._tasks.create_task(work)

    @staticmethod
    def _bucket(moment: float) -> int:
        return math.ceil(moment / _BUCKET_SECONDS)

    def _schedule(self, connection: Connection) -> None:
        due = connection.due
        bucket = None if due == math.inf else max(self._bucket(due), self._turned_to + 1)
        if bucket == connection.bucket or connection not in self._open:
            return
        self._unschedule(connection)
        connection.bucket = bucket
        if bucket is not None:
            self._wheel.setdefault(bucket, set()).add(connection)

    def _unschedule(self, connection: Connection) -> None:
        if connection.bucket is not None:
            bucket = self._wheel[connection.bucket]
            bucket.discard(connection)
            if not bucket:
                del self._wheel[connection.bucket]
            connection.bucket = None

    def _turn(self, now: float) -> None:
        turn_to = int(now / _BUCKET_SECONDS)
        for bucket in range(self._turned_to + 1, turn_to + 1):
            self._turned_to = bucket
            due = self._wheel.pop(bucket, set())
            for connection in due:
                connection.bucket = None
            for connection in due:
                with _its_own_misfortune(connection):
                    connection.tick()
                    self._schedule(connection)
