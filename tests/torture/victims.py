"""What a torture run kills, and how it comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import aiohttp
from redis.asyncio import Redis as RedisClient

from tests.services.orderwire import READY_TIMEOUT, NotReady, Orderwire
from tests.services.server import Server


class Aim(StrEnum):
    """What is to be on its way at the moment of a kill."""

    BLIND = "any moment"
    UNPUBLISHED = "unpublished outbox rows"
    UNACKNOWLEDGED = "unacknowledged deliveries"
    UNANSWERED = "commits without a reply"


AIMED = (Aim.UNPUBLISHED, Aim.UNACKNOWLEDGED, Aim.UNANSWERED)


class Group(StrEnum):
    NODES = "nodes"
    DATABASE = "database"
    BROKER = "broker"
    BUS = "bus"


class Victim(Protocol):
    """`urls` are the nodes that fall with it, `interrupts` what its death cuts off, `waits_for` the groups that have
    to be up before it may fall: outages overlap, but a node cannot start without its database."""

    @property
    def group(self) -> Group: ...
    @property
    def waits_for(self) -> Collection[Group]: ...
    @property
    def interrupts(self) -> Collection[Aim]: ...
    @property
    def urls(self) -> Collection[str]: ...

    async def choose(self) -> None:
        """Decide who exactly falls; called shortly before `kill`."""
        ...

    async def kill(self) -> None: ...

    async def start(self) -> None:
        """Returns when it serves again."""
        ...


class Nodes:
    """Some of the nodes: the one that relays, one that does not, or all at once."""

    group = Group.NODES
    waits_for = (Group.NODES, Group.DATABASE)

    def __init__(self, nodes: Sequence[Orderwire], session: aiohttp.ClientSession, interrupts: Collection[Aim]) -> None:
        self.interrupts = interrupts
        self._nodes = nodes
        self._session = session
        self._chosen = nodes

    @property
    def urls(self) -> Collection[str]:
        return [node.base_url for node in self._chosen]

    async def choose(self) -> None:
        if Aim.UNACKNOWLEDGED in self.interrupts:
            return  # whichever consumes, all fall
        leads = await relaying(self._nodes, self._session)
        if Aim.UNPUBLISHED in self.interrupts:
            self._chosen = [leads]
        else:
            self._chosen = [node for node in self._nodes if node is not leads]

    async def kill(self) -> None:
        for node in self._chosen:
            node.kill()

    async def start(self) -> None:
        for node in self._chosen:
            node.spawn()
        await asyncio.gather(*(node.ready() for node in self._chosen))


class Part:
    """PostgreSQL, RabbitMQ or Redis of the production parts."""

    urls: Collection[str] = ()

    def __init__(self, server: Server, group: Group, interrupts: Collection[Aim]) -> None:
        self.group = group
        self.waits_for = (group, Group.DATABASE, *([Group.NODES] if group is Group.DATABASE else []))
        self.interrupts = interrupts
        self._server = server
        # A thread of its own that stays: the kernel kills a server when the thread that started it ends.
        self._thread = ThreadPoolExecutor(1)

    def close(self) -> None:
        self._thread.shutdown()

    async def choose(self) -> None:
        return

    async def kill(self) -> None:
        await self._in_thread(self._server.kill)

    async def start(self) -> None:
        await self._in_thread(self._server.start)

    async def _in_thread(self, action: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, action)


class ForgetfulRedis(Part):
    """Comes back empty, as after FLUSHALL."""

    async def start(self) -> None:
        await super().start()
        async with RedisClient.from_url(self._server.url) as client:
            await client.flushall()


class Child:
    """A server that the embedded default runs as its own child, and has to start again by itself."""

    urls: Collection[str] = ()
    waits_for = (Group.NODES, Group.DATABASE, Group.BUS)

    def __init__(self, node: Orderwire, program: str, group: Group, interrupts: Collection[Aim]) -> None:
        self.group = group
        self.interrupts = interrupts
        self._node = node
        self._program = program

    async def choose(self) -> None:
        return

    async def kill(self) -> None:
        for pid in tuple(_descendants(self._node.pid)):
            with suppress(ProcessLookupError):  # it ended by itself meanwhile
                if _program_of(pid).startswith(self._program):
                    os.kill(pid, signal.SIGKILL)

    async def start(self) -> None:
        await fine(self._node)


def _descendants(pid: int) -> Iterator[int]:
    """Children first named, then theirs: a postmaster is killed before its workers, and starts no new ones."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            yield child
            yield from _descendants(child)


def _program_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


async def relaying(nodes: Sequence[Orderwire], session: aiohttp.ClientSession) -> Orderwire:
    """The node that relays now; the last one when none says so."""
    for node in nodes[:-1]:
        try:
            async with session.get(f"{node.base_url}/metrics", timeout=aiohttp.ClientTimeout(total=2)) as response:
                if "orderwire_relay_leads 1.0" in await response.text():
                    return node
        except (aiohttp.ClientError, OSError, TimeoutError):
            continue
    return nodes[-1]


async def fine(node: Orderwire, timeout: float = READY_TIMEOUT) -> None:
    """Wait until nothing that the node depends on is away. Raises NotReady."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    states = ""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while not states.startswith("fine"):
            if loop.time() > deadline:
                raise NotReady(f"not fine: {states}\n{node.log()[-4000:]}")
            await asyncio.sleep(0.05)
            try:
                async with session.get(f"{node.base_url}/health/ready") as response:
                    states = await response.text()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                states = type(error).__name__
