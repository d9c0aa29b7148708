"""The workbench: real servers for every test that asks for one, and a look at what each test leaves behind.

Servers start when a test first needs them and live until the end of the run. URLs in ORDERWIRE_TEST_POSTGRES_URL,
ORDERWIRE_TEST_REDIS_URL and ORDERWIRE_TEST_RABBITMQ_URL (with ORDERWIRE_TEST_RABBITMQ_FOREIGN_URL) take their place;
tests that kill or freeze a server always get one of ours.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiohttp
import hypothesis
import pytest
import redis
import uvloop
from blockbuster import BlockBuster
from xdist.remote import Producer
from xdist.scheduler import Scheduling

from server.config import load
from server.settings import Settings
from tests.deployment import API_KEY, AUTH_SECRET, NOTHING, TOKEN_KEY, Deploy, Deployment, deployed
from tests.peers import PEERS, Peer
from tests.schedule import SharedServers
from tests.services import chromium as chromium_service
from tests.services import folders, leftovers
from tests.services import node as node_service
from tests.services.chromium import Chromium
from tests.services.databases import Databases
from tests.services.loop import new_loop
from tests.services.orderwire import Orderwire, orderwire
from tests.services.person import Person
from tests.services.postgres import Postgres
from tests.services.proxy import Proxy, open_proxy
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis, RedisCluster
from tests.services.server import Server, Unavailable

_LEFT_OUT = "left out: "
S = TypeVar("S", bound=Server)
T = TypeVar("T")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.register_profile("developer", deadline=None)
    hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
    hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "developer")
    folders.prefer_memory()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # ends in order, folders removed
    uvloop.new_event_loop().close()  # libuv opens a pipe for the process with its first loop and keeps it


def pytest_collection_finish() -> None:
    """What was loaded stays to the end: the garbage collector need not look through all of it each time."""
    gc.collect()
    gc.freeze()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": partial(new_loop, _timeout(item))}


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return SharedServers(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item) -> bool | None:
    """The alarm of pytest-timeout is for plain functions; coroutines have their event loop's."""
    return True if _is_coroutine(item) else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", [])]
    reasons = [longrepr[2].partition(_LEFT_OUT)[2] for longrepr in skipped if isinstance(longrepr, tuple)]
    for reason, count in Counter(filter(None, reasons)).items():
        terminalreporter.write_line(f"LEFT OUT, {count} tests: {reason}", red=True, bold=True)


@pytest.fixture(scope="session", autouse=True)
def blocking_calls_fail() -> Iterator[None]:
    """A call of our code that would block the event loop raises instead."""
    guard = BlockBuster(scanned_modules=["handlers", "realtime", "server", "storage"])
    # As asyncio's own subprocesses: waits until the child has begun, about a millisecond, and needs the main thread.
    guard.functions["os.read"].can_block_in("server/embedded/process.py", "spawn")
    for function in guard.functions.values():  # asyncpg looks for certificates in ~/.postgresql when it connects
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_dsn_and_args")
    guard.activate()
    yield
    guard.deactivate()


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    before = set(leftovers.descriptors().values())
    yield
    left = {number: target for number, target in leftovers.descriptors().items() if target not in before}
    assert not left, f"descriptors left open: {left}, of which connections: {_of_connections(left.values())}"


@pytest.fixture(autouse=True)
def coroutines_leave_no_task(request: pytest.FixtureRequest, no_descriptor_left: None) -> None:
    if _is_coroutine(request.node):  # a plain test needs no event loop
        request.getfixturevalue("no_task_left")


@pytest.fixture
async def no_task_left(no_descriptor_left: None) -> AsyncIterator[None]:
    yield
    left = await leftovers.tasks()
    assert not left, f"tasks left running: {left}"


@pytest.fixture
def unique_name() -> str:
    """For what tests on one server must not share: exchanges, queues, channels."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """Shared by all tests of the run: leave it alive."""
    with _launched(Postgres) as server:
        yield server


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest) -> Iterator[Databases]:
    made = Databases(os.environ.get("ORDERWIRE_TEST_POSTGRES_URL") or _server(request, Postgres, "postgres_server").url)
    with ExitStack() as stack:
        with leftovers.keeping():
            stack.enter_context(made.connected())
        yield made
        made.drop_template()


@pytest.fixture
def postgres_url(databases: Databases) -> Iterator[str]:
    """Of a fresh, migrated database, dropped after the test."""
    with databases.temporary() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """Shared by all tests of the run: leave it alive."""
    with _launched(Redis) as server:
        yield server


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """Of an empty Redis. Its channels are heard by every test's clients at the same time: use `unique_name`."""
    url = os.environ.get("ORDERWIRE_TEST_REDIS_URL") or _server(request, Redis, "redis_server").url
    return _emptied(url)


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    """Shared by all tests of the run: leave it alive."""
    with _launched(RabbitMQ) as server:
        yield server


@pytest.fixture
def rabbitmq_url(request: pytest.FixtureRequest) -> str:
    """Of the user that the relay is. Exchanges and queues stay: use `unique_name`."""
    return os.environ.get("ORDERWIRE_TEST_RABBITMQ_URL") or _server(request, RabbitMQ, "rabbitmq_server").url


@pytest.fixture
def rabbitmq_foreign_url(request: pytest.FixtureRequest) -> str:
    """Of another application's user on the same virtual host."""
    if "ORDERWIRE_TEST_RABBITMQ_URL" not in os.environ:
        return _server(request, RabbitMQ, "rabbitmq_server").foreign_url
    if url := os.environ.get("ORDERWIRE_TEST_RABBITMQ_FOREIGN_URL"):
        return url
    pytest.skip(f"{_LEFT_OUT}ORDERWIRE_TEST_RABBITMQ_URL is set, but ORDERWIRE_TEST_RABBITMQ_FOREIGN_URL is not")


@pytest.fixture(scope="session")
def mortal_postgres() -> Iterator[Postgres]:
    with _launched(Postgres) as server:
        yield server


@pytest.fixture
def own_postgres(mortal_postgres: Postgres) -> Postgres:
    """A running PostgreSQL that this test alone uses: kill, stop, restart or freeze it."""
    mortal_postgres.revive()
    return mortal_postgres


@pytest.fixture(scope="session")
def mortal_databases(mortal_postgres: Postgres) -> Databases:
    return Databases(mortal_postgres.url)


@pytest.fixture
def own_postgres_url(own_postgres: Postgres, mortal_databases: Databases) -> str:
    """Of a fresh, migrated database on `own_postgres`."""
    with mortal_databases.connected():
        return mortal_databases.create()


@pytest.fixture(scope="session")
def mortal_redis() -> Iterator[Redis]:
    with _launched(Redis) as server:
        yield server


@pytest.fixture
def own_redis(mortal_redis: Redis) -> Redis:
    """A running, empty Redis that this test alone uses: kill, stop, restart or freeze it."""
    mortal_redis.revive()
    _emptied(mortal_redis.url)
    return mortal_redis


@pytest.fixture(scope="session")
def mortal_redis_cluster() -> Iterator[RedisCluster]:
    try:
        with RedisCluster() as cluster:
            yield cluster
    except Unavailable as missing:
        pytest.skip(f"{_LEFT_OUT}{missing}")


@pytest.fixture
def own_redis_cluster(mortal_redis_cluster: RedisCluster) -> RedisCluster:
    """A running cluster of Redis that this test alone uses: kill or freeze its servers. Use `unique_name` on it."""
    mortal_redis_cluster.revive()
    return mortal_redis_cluster


@pytest.fixture(scope="session")
def mortal_rabbitmq() -> Iterator[RabbitMQ]:
    with _launched(RabbitMQ) as server:
        yield server


@pytest.fixture
def own_rabbitmq(mortal_rabbitmq: RabbitMQ) -> RabbitMQ:
    """A running RabbitMQ that this test alone uses: kill, stop, restart or freeze it. Use `unique_name` on it."""
    mortal_rabbitmq.revive()
    return mortal_rabbitmq


@pytest.fixture(scope="session")
def node() -> Path:
    """Node.js, 20 or newer."""
    return _or_left_out(node_service.executable)


@pytest.fixture(scope="session")
def node_modules(node: Path) -> Path:
    """The folder of the packages in tests/package.json; scripts beside it import them by name."""
    return _or_left_out(lambda: node_service.modules(node))


@pytest.fixture(scope="session")
def chromium() -> Chromium:
    """For playwright: `launch(executable_path=..., env=..., args=...)` takes its three fields."""
    return _or_left_out(chromium_service.find)


def _of_connections(targets: Iterable[str]) -> Mapping[str, str]:
    told = leftovers.connections()
    return {target: told[target] for target in targets if target in told}


def _is_coroutine(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj)


def _timeout(item: pytest.Item) -> float:
    """Seconds for each step of a test: setting up, the test, cleaning up."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker else item.config.getini("timeout"))


@pytest.fixture(scope="session")
def served() -> Iterator[Orderwire]:
    with orderwire(arguments=["--demo"]) as running:
        yield running


@pytest.fixture
async def proxy(served: Orderwire) -> AsyncIterator[Proxy]:
    async with open_proxy(served.port) as opened:
        yield opened


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def customer(session: aiohttp.ClientSession, served: Orderwire) -> Person:
    return await Person.sign_in(session, served.base_url, "customer")


@pytest.fixture
async def staff(session: aiohttp.ClientSession, served: Orderwire) -> Person:
    return await Person.sign_in(session, served.base_url, "staff")


@contextmanager
def _launched(kind: type[S]) -> Iterator[S]:
    server = kind()
    try:
        _or_left_out(server.start)
        yield server
    finally:
        server.close()


def _server(request: pytest.FixtureRequest, kind: type[S], fixture: str) -> S:
    server = request.getfixturevalue(fixture)
    assert isinstance(server, kind)
    return server


def _or_left_out(make: Callable[[], T]) -> T:
    try:
        return make()
    except Unavailable as missing:
        pytest.skip(f"{_LEFT_OUT}{missing}")


def _emptied(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(params=PEERS, ids=["json", "protobuf"])
def peer(request: pytest.FixtureRequest) -> Peer:
    """A client of each form of the protocol."""
    made: Peer = request.param
    return made


@pytest.fixture
def deploy(postgres_url: str, redis_url: str, unique_name: str, tmp_path: Path) -> Deploy:
    """Everything that a deployment must be told, unless a test tells it otherwise."""
    needed = {
        "DATABASE__URL": postgres_url,
        "REDIS__URL": redis_url,
        "REDIS__BUS_CHANNEL": unique_name,
        "AUTH__TOKEN_SECRET": AUTH_SECRET,
        "CLIENT__TOKEN__HMAC_SECRET_KEY": TOKEN_KEY,
        "HTTP_API__KEY": API_KEY,
        "SERVER__PORT": "0",
        "SERVER__SHUTDOWN_PAUSE": "0",
    }

    def read(text: str, environment: Mapping[str, str]) -> Settings:
        file = tmp_path / "config.toml"
        file.write_text(text)
        return load(file, {f"ORDERWIRE_{name}": value for name, value in {**needed, **environment}.items()})

    @asynccontextmanager
    async def deploy(
        text: str = "", environment: Mapping[str, str] = NOTHING, *, with_redis: bool = True
    ) -> AsyncIterator[Deployment]:
        settings = await asyncio.to_thread(read, text, environment)
        async with deployed(settings, tmp_path, with_redis=with_redis) as deployment:
            yield deployment

    return deploy
