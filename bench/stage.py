"""The production parts, one node, and listeners in a process of their own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import orjson

from bench.listeners import Findings
from storage.migrate import migrate
from tests.services.orderwire import Orderwire, reachable_folder
from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis
from tests.torture.load import Shop
from tests.torture.records import ORDERS_FEED
from tests.torture.stage import SECRET, furnish

API_KEY = "a key of the benchmark"
CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Stage:
    """`foreign_url` is RabbitMQ's for another application; `services`: the processes beside the node, which have
    further ones below them."""

    node: Orderwire
    shop: Shop
    database_url: str
    redis_url: str
    foreign_url: str
    services: Sequence[int]

    async def committed(self, order_ids: Iterable[str]) -> Mapping[str, float]:
        """When PostgreSQL committed each order, Unix time: its commit record, written before the disk has it."""
        connection = await asyncpg.connect(self.database_url)
        try:
            rows = await connection.fetch(
                "SELECT id::text, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at"
                " FROM orders WHERE id = ANY ($1::uuid[])",
                list(order_ids),
            )
        finally:
            await connection.close()
        return {row["id"]: row["at"] for row in rows}


@asynccontextmanager
async def open_stage(settings: str = "") -> AsyncIterator[Stage]:
    """The node has these settings (the text of a config.toml) beside those of the stage. Raises
    tests.services.server.Unavailable where a server cannot be had."""
    with ExitStack() as stack:
        postgres = stack.enter_context(Postgres())
        redis, rabbitmq = stack.enter_context(Redis()), stack.enter_context(RabbitMQ())
        await _remember_commits(postgres)
        await migrate(postgres.url)
        environment = {
            "ORDERWIRE_DATABASE__URL": postgres.url,
            "ORDERWIRE_REDIS__URL": redis.url,
            "ORDERWIRE_BROKER__URL": rabbitmq.url,
            "ORDERWIRE_AUTH__TOKEN_SECRET": SECRET,
            "ORDERWIRE_HTTP_API__KEY": API_KEY,
            "ORDERWIRE_LOG__LEVEL": "warning",
            "ORDERWIRE_SERVER__KEEPALIVE_TIMEOUT": "3600",  # a pool's connections may be unused for long
        }
        folder = stack.enter_context(reachable_folder())
        config = folder / "config.toml"
        await asyncio.to_thread(config.write_text, settings)
        node = Orderwire(folder, environment=environment, arguments=["--config", str(config)])
        stack.callback(node.stop)
        node.spawn()
        await node.ready()
        shop = await furnish(postgres.url, [node], seed=1)
        services = [server.pid for server in (postgres, redis, rabbitmq)]
        yield Stage(node, shop, postgres.url, redis.url, rabbitmq.foreign_url, services)


async def _remember_commits(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    finally:
        await connection.close()
    await asyncio.to_thread(postgres.restart)


class Listeners:
    """A process of `bench.listeners`. Used through `open_listeners`."""

    def __init__(self, process: asyncio.subprocess.Process, offset: int, file: Path) -> None:
        self.pid = process.pid
        self._offset = offset
        self._process = process
        self._file = file

    async def finish(self, published: int) -> Findings:
        """What was heard since the last call, once everybody has heard all of the `published` or patience ended."""
        assert self._process.stdin is not None
        self._offset += published
        self._process.stdin.write(f"finish {self._offset} {self._file}\n".encode())
        await line_of(self._process)
        found = orjson.loads(await asyncio.to_thread(self._file.read_bytes))
        return Findings(found["heard"], [(order, time, moment) for order, time, moment in found["samples"]])


@asynccontextmanager
async def open_listeners(stage: Stage, count: int, *, samples: int = 40) -> AsyncIterator[Listeners]:
    """`count` subscribers of the feed, all joined; `samples` of them take times."""
    arguments = (stage.node.base_url, stage.shop.staff_token, ORDERS_FEED, str(count), str(samples))
    async with spawned("bench.listeners", *arguments) as (process, ready):
        yield Listeners(process, int(ready.split()[1]), stage.node.folder / "findings.json")


@asynccontextmanager
async def spawned(module: str, *arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`python -m MODULE ARGUMENTS`, and the first line that it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=CHECKOUT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process, await line_of(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line_of(process: asyncio.subprocess.Process) -> str:
    """The next that it says. Raises RuntimeError when it has ended."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("a process of the benchmark ended")
    return line.decode()
