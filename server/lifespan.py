"""Where a node's parts are: at the URLs that were given, or children of our own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog
from pydantic import SecretStr

from handlers.errors import Unavailable
from server.embedded import Server, claimed, data_dir, embedded_postgres, embedded_valkey, explained, secret
from server.settings import Settings
from storage.migrate import check, migrate

log = structlog.get_logger(__name__)


_Start = Callable[[Path], AbstractAsyncContextManager[Server]]


@dataclass(frozen=True, slots=True)
class Places:
    """`children` are the servers that we run ourselves; each has a `run` that needs a task."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    token_secret: bytes = field(repr=False)
    children: tuple[Server, ...]


@asynccontextmanager
async def open_places(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[Places]:
    """Start what no URL was given for, with the schema that this code needs. Raises EmbeddedError, SchemaError."""
    async with AsyncExitStack() as stack:
        folder = data_dir(environ)
        urls = (settings.database.url, settings.redis.url)
        if None in urls:
            with explained(folder):
                await stack.enter_async_context(claimed(folder))
        postgres: _Start = partial(embedded_postgres, connections=_connections(settings))
        starts: tuple[_Start, _Start] = (postgres, embedded_valkey)
        children: list[Server] = []
        resolved: list[str] = []
        for given, start in zip(urls, starts, strict=True):
            if given is None:
                with explained(folder):  # a disk that is full fails at any file
                    children.append(await stack.enter_async_context(start(folder)))
                resolved.append(children[-1].url)
            else:
                resolved.append(given.get_secret_value())
        await _prepare_schema(resolved[0], is_ours=settings.database.url is None)
        token_secret = await _token_secret(settings.auth.token_secret, folder)
        yield Places(resolved[0], resolved[1], token_secret, tuple(children))


def _connections(settings: Settings) -> int:
    """To PostgreSQL, of all workers when they use all they may, and some for whoever looks into it by hand."""
    database, others = settings.database, 10 + settings.broker.fanout_partitions
    return 100 + settings.server.workers * (database.pool_size + 2 * database.read_pool_size + others)


async def _prepare_schema(url: str, *, is_ours: bool) -> None:
    """Our own database we migrate; another is only looked at, and when it is away readiness looks again."""
    if is_ours:
        await migrate(url)
        return
    try:
        await check(url)
    except Unavailable as away:
        log.warning("schema_not_checked", reason="PostgreSQL is away", cause=str(away.__cause__))


async def _token_secret(given: SecretStr | None, folder: Path) -> bytes:
    text = await secret(folder / "token-secret") if given is None else given.get_secret_value()
    return text.encode()
