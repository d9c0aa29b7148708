"""`orderwire serve`: one node from its first child process to its last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog
from aiohttp import web

from server.app import Node, open_node
from server.crew import Berth
from server.demo import DemoAccounts, seed
from server.http_protocol import HttpProtocol
from server.lifespan import Places, open_places
from server.listening import Protocols, listening, url_of
from server.options import postgres_options
from server.passwords import Argon2Passwords
from server.settings import Settings
from server.version import VERSION
from storage.postgres import open_postgres

log = structlog.get_logger(__name__)

_LAST_REPLIES = 2.0  # seconds for requests that are still running once the sockets are gone; aiohttp waits twice
_CANCEL_AGAIN = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Started:
    """What the person who started the node wants to know."""

    url: str
    demo: DemoAccounts | None


async def serve(
    settings: Settings,
    environ: Mapping[str, str],
    stop: asyncio.Event,
    *,
    with_demo: bool,
    announce: Callable[[Started], None],
) -> None:
    """Serve until `stop` is set, then drain. Raises what keeps the node from starting, or the bug that ended a part."""
    async with open_places(settings, environ) as places:
        demo = await seeded(settings, places) if with_demo else None
        await serve_node(settings, places, stop, lambda url: announce(Started(url, demo)))


async def serve_node(
    settings: Settings,
    places: Places,
    stop: asyncio.Event,
    announce: Callable[[str], None],
    berth: Berth | None = None,
) -> None:
    """Until `stop` is set, then drain; as one of several workers with a `berth`. `announce` is told the URL."""
    async with (
        open_node(settings, places, berth) as node,
        asyncio.TaskGroup() as group,
        endless(group, node.endless),
    ):
        await _listen(settings, node, stop, announce, is_shared=berth is not None)


async def seeded(settings: Settings, places: Places) -> DemoAccounts:
    """Demo accounts and products, in the database."""
    async with open_postgres(postgres_options(settings, places)) as database, Argon2Passwords() as passwords:
        return await seed(database, passwords)


@asynccontextmanager
async def endless(group: asyncio.TaskGroup, parts: Mapping[str, Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
    """Parts that run, in `group`, for as long as the block lasts."""
    tasks = [group.create_task(_endless(name, run), name=name) for name, run in parts.items()]
    try:
        yield
    finally:
        await _end(tasks)


async def _endless(name: str, run: Callable[[], Awaitable[None]]) -> None:
    await run()
    raise RuntimeError(f"{name} came to an end, which it never does by itself")


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel until they have ended. Once is not enough on Python 3.11: `asyncio.wait_for`, used by redis-py and aiormq,
    loses a cancellation that comes in the moment in which what it waits for is done."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_CANCEL_AGAIN)


async def _listen(
    settings: Settings, node: Node, stop: asyncio.Event, announce: Callable[[str], None], *, is_shared: bool
) -> None:
    runner = web.AppRunner(
        node.app,
        handler_cancellation=True,
        shutdown_timeout=_LAST_REPLIES,
    )
    await runner.setup()
    try:
        host, port = settings.server.host, settings.server.port
        async with listening(_protocols(runner, settings), host, port, is_shared=is_shared) as place:
            url = url_of(*place)
            log.info("serving", url=url, version=VERSION)
            announce(url)
            await stop.wait()
            log.info("draining", seconds=settings.server.shutdown_grace)
            node.health.start_draining()
            if not settings.is_embedded:
                await asyncio.sleep(settings.server.shutdown_pause)
        await node.connections.drain(settings.server.shutdown_grace)
    finally:
        await runner.cleanup()
        log.info("stopped_serving")


def _protocols(runner: web.AppRunner, settings: Settings) -> Protocols:
    if runner.server is None:
        raise RuntimeError("the runner is not set up")
    return partial(
        HttpProtocol,
        runner.server,
        keepalive_timeout=settings.server.keepalive_timeout,
        message_size_limit=settings.client.message_size_limit,
    )
