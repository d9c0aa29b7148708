"""The command as people start, stop and misuse it. Real processes, the embedded default."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg
import pytest

from storage.migrate import migrate
from tests.services.orderwire import CHECKOUT, Orderwire, orderwire, reachable_folder

TERMINAL_PATIENCE = 5.0  # seconds from Ctrl-C to the prompt


@pytest.fixture(scope="module")
def node() -> Iterator[Orderwire]:
    with orderwire() as started:
        yield started


@pytest.fixture
def empty_database_url(postgres_url: str) -> str:
    async def empty() -> None:
        connection = await asyncpg.connect(postgres_url)
        try:
            await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        finally:
            await connection.close()

    asyncio.run(empty())
    return postgres_url


def run(*arguments: str, environment: Mapping[str, str], timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def descendants(pid: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            child, _, rest = stat.read_text().partition(" (")
        except OSError:
            continue
        children.setdefault(int(rest.rpartition(") ")[2].split()[1]), []).append(int(child))
    found, waiting = set[int](), [pid]
    while waiting:
        for child_pid in children.get(waiting.pop(), []):
            found.add(child_pid)
            waiting.append(child_pid)
    return found


def alive(pids: set[int]) -> set[int]:
    """Those of the processes that still run; a zombie does not."""
    running = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        except OSError:
            continue
        if state != "Z":
            running.add(pid)
    return running


def test_ctrl_c_ends_it_within_five_seconds_and_leaves_no_process() -> None:
    with orderwire() as node:
        family = descendants(node.pid)
        assert len(family) >= 2
        assert node.interrupt(TERMINAL_PATIENCE) == 0
        assert alive(family) == set()


def test_a_killed_server_leaves_no_child_and_the_next_start_recovers() -> None:
    with orderwire() as node:
        family = descendants(node.pid)
        node.kill()
        deadline = time.monotonic() + 5
        while alive(family) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert alive(family) == set()
        node.start()


def test_after_a_restore_clients_can_be_made_to_reload() -> None:
    with orderwire() as node:
        node.kill()
        told = run("streams", "new-epoch", environment={"ORDERWIRE_DATA_DIR": str(node.folder / "data")})
        assert (told.returncode, told.stdout.splitlines()[-1]) == (0, "generation 2")
        node.start()


async def test_a_body_that_cannot_be_unpacked_is_refused_and_no_error_of_the_server(node: Orderwire) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with aiohttp.ClientSession() as session:
        for path in ("/api/v1/auth/login", "/api/v1/orders"):
            async with session.post(f"{node.base_url}{path}", data=b"no gzip", headers=headers) as answer:
                assert answer.status in {401, 415}
    assert "Unhandled exception" not in node.log()


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + bytes(9), b"\x16\x03\x01\x02"])
def test_who_speaks_no_http_is_not_told_which_versions_run(node: Orderwire, said: bytes) -> None:
    place = urlsplit(node.base_url)
    with socket.create_connection((place.hostname, place.port), timeout=5) as client, client.makefile("rb") as heard:
        client.sendall(said)
        answer = heard.read()
    assert b" 400 Bad Request\r\n" in answer
    assert b"Python" not in answer
    assert b"aiohttp" not in answer


async def test_a_websocket_address_that_is_opened_plainly_says_what_is_missing(node: Orderwire) -> None:
    """As behind a proxy that does not pass Upgrade on."""
    url = f"{node.base_url}/connection/websocket"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 426
        assert (await answer.json(content_type="application/problem+json"))["code"] == "upgrade_required"


def test_of_two_starts_on_one_data_folder_the_second_says_so_and_exits(node: Orderwire) -> None:
    second = run("serve", "--port", "0", environment={"ORDERWIRE_DATA_DIR": str(node.folder / "data")})
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 1
    assert "serves this folder" in second.stderr


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_disk_that_is_full_is_one_clear_line(blocks: int) -> None:
    """No file can become longer than so many blocks."""
    with reachable_folder() as folder:
        ended = subprocess.run(
            ["sh", "-c", f'ulimit -f {blocks} && exec "$@"', "sh", sys.executable, "-m", "server", "serve"],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(CHECKOUT),
                "PYTHONDONTWRITEBYTECODE": "1",  # it would be cut off, and break every later start
                "ORDERWIRE_DATA_DIR": str(folder / "data"),
            },
            capture_output=True,
            text=True,
            timeout=20.0,
            check=False,
        )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("orderwire: ")


def test_a_port_that_is_taken_is_one_clear_line(node: Orderwire) -> None:
    with reachable_folder() as folder:
        second = run("serve", "--port", str(node.port), environment={"ORDERWIRE_DATA_DIR": str(folder / "data")})
    assert second.returncode == 1
    assert f"orderwire: 127.0.0.1:{node.port}: " in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        (
            {"ORDERWIRE_SERVER__PROT": "9000"},
            "orderwire: ORDERWIRE_SERVER__PROT: no such setting; did you mean ORDERWIRE_SERVER__PORT?\n",
        ),
        (
            {"ORDERWIRE_SERVER__PORT": "many"},
            'orderwire: ORDERWIRE_SERVER__PORT: expected a port from 0 to 65535, not "many"\n',
        ),
    ],
)
def test_bad_settings_stop_the_start_with_one_line(environment: Mapping[str, str], line: str) -> None:
    ended = run("serve", environment=environment)
    assert (ended.returncode, ended.stderr) == (2, line)


def test_production_without_a_token_secret_is_refused() -> None:
    ended = run("serve", environment={"ORDERWIRE_DATABASE__URL": "postgresql://nobody@127.0.0.1:1/none"})
    assert ended.returncode == 2
    assert "ORDERWIRE_AUTH__TOKEN_SECRET" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_demo_accounts_are_refused_outside_the_embedded_default() -> None:
    ended = run(
        "serve",
        "--demo",
        environment={
            "ORDERWIRE_DATABASE__URL": "postgresql://nobody@127.0.0.1:1/none",
            "ORDERWIRE_AUTH__TOKEN_SECRET": "s" * 32,
        },
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("orderwire: --demo: ")
    assert len(ended.stderr.splitlines()) == 1


def test_the_embedded_default_refuses_a_public_address() -> None:
    ended = run("serve", "--host", "0.0.0.0", environment={})
    assert ended.returncode == 2
    assert "--host" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_migrate_says_what_it_did_and_serve_refuses_a_schema_that_was_not_migrated(empty_database_url: str) -> None:
    production = {"ORDERWIRE_DATABASE__URL": empty_database_url, "ORDERWIRE_AUTH__TOKEN_SECRET": "s" * 32}
    with reachable_folder() as folder:
        refused = run("serve", "--port", "0", environment={**production, "ORDERWIRE_DATA_DIR": str(folder / "data")})
    assert refused.returncode == 1
    assert "orderwire migrate" in refused.stderr
    first, second = (run("migrate", environment=production) for _ in range(2))
    assert (first.returncode, first.stdout[:8]) == (0, "applied:")
    assert (second.returncode, second.stdout) == (0, "nothing to do\n")


@pytest.mark.parametrize("command", ["migrate", "streams new-epoch"])
def test_a_command_with_the_database_away_says_why_on_one_line(command: str) -> None:
    with socket.socket() as unused, reachable_folder() as folder:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql://nobody@127.0.0.1:{unused.getsockname()[1]}/none"
        environment = {
            "ORDERWIRE_DATABASE__URL": url,
            "ORDERWIRE_REDIS__URL": "redis://127.0.0.1:1",
            "ORDERWIRE_AUTH__TOKEN_SECRET": "s" * 32,
            "ORDERWIRE_DATA_DIR": str(folder / "data"),
        }
        ended = run(*command.split(), environment=environment)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("orderwire: A part of the service is away")
    assert "Connect call failed" in ended.stderr.splitlines()[-1]


def test_a_password_that_is_wrong_is_told_from_a_database_that_is_away(postgres_url: str) -> None:
    user, _, place = urlsplit(postgres_url).netloc.rpartition("@")
    url = urlunsplit(urlsplit(postgres_url)._replace(netloc=f"{user.partition(':')[0]}_else:wrong@{place}"))
    ended = run("migrate", environment={"ORDERWIRE_DATABASE__URL": url, "ORDERWIRE_AUTH__TOKEN_SECRET": "s" * 32})
    assert ended.returncode == 1
    assert "authentication failed" in ended.stderr or "does not exist" in ended.stderr
    assert "wrong" not in ended.stderr


def test_a_node_waits_for_a_schema_that_comes_after_it(postgres_url: str, redis_url: str) -> None:
    """Of a database that was not there at its start, as when all of a deployment starts at once."""
    name = f"late_{secrets.token_hex(4)}"
    url = urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}"))

    async def execute(statement: str) -> None:
        connection = await asyncpg.connect(postgres_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    environment = {
        "ORDERWIRE_DATABASE__URL": url,
        "ORDERWIRE_REDIS__URL": redis_url,
        "ORDERWIRE_AUTH__TOKEN_SECRET": "x" * 32,
    }
    with reachable_folder() as folder:
        node = Orderwire(folder, environment=environment)
        node.spawn()
        wait_for(node, "relay_lost_outbox")
        asyncio.run(execute(f"CREATE DATABASE {name}"))
        try:
            wait_for(node, "relay_lost_outbox", node.log().count("relay_lost_outbox") + 2)
            asyncio.run(migrate(url))
            node.wait_ready(20)
        finally:
            node.stop()
            asyncio.run(execute(f"DROP DATABASE {name} WITH (FORCE)"))


def wait_for(node: Orderwire, said: str, times: int = 1) -> None:
    deadline = time.monotonic() + 20
    while node.log().count(said) < times:
        assert node.is_running, node.log()[-3000:]
        assert time.monotonic() < deadline, node.log()[-3000:]
        time.sleep(0.05)
