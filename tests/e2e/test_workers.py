"""`orderwire serve --workers 2`: two processes on one port, as people start, use, kill and stop them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.test_serve import TERMINAL_PATIENCE, alive, descendants, run
from tests.services.feed import subscribed
from tests.services.orderwire import CHECKOUT, Orderwire, orderwire, reachable_folder
from tests.services.person import Person

FEED = "orders:feed"
CLIENTS = 16  # that one of two workers gets none of them happens once in 32,768 times
AGAIN = 20.0  # seconds until a killed worker serves again, on a busy machine


@contextmanager
def two_workers() -> Iterator[Orderwire]:
    with orderwire(arguments=["--demo", "--workers", "2"]) as node:
        while len(workers(node)) < 2:  # it is ready once one of them serves
            time.sleep(0.05)
        yield node


@pytest.fixture(scope="module")
def node() -> Iterator[Orderwire]:
    with two_workers() as started:
        yield started


def workers(node: Orderwire) -> dict[int, int]:
    """The processes by their numbers, of those that were started last."""
    started = re.findall(r'"worker": ?(\d+), ?"pid": ?(\d+)', node.log())
    return {int(number): int(pid) for number, pid in started}


async def by_worker(session: aiohttp.ClientSession, node: Orderwire, name: str) -> dict[int, float]:
    """A metric's value in each that tells it."""
    async with session.get(f"{node.base_url}/metrics") as response:
        page = await response.text()
    found = re.findall(rf'^{name}{{worker="(\d+)"}} (\S+)$', page, re.MULTILINE)
    return {int(number): float(value) for number, value in found}


def command_lines(family: set[int]) -> str:
    lines = []
    for pid in alive(family):
        with suppress(FileNotFoundError, ProcessLookupError):  # it may end meanwhile
            lines.append(Path(f"/proc/{pid}/cmdline").read_text())
    return " ".join(lines)


def left_of(family: set[int]) -> set[int]:
    """Those that still run a second later: multiprocessing's own helper ends once it notices that the others have."""
    deadline = time.monotonic() + 1.0
    while (left := alive(family)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


async def until_both_serve(session: aiohttp.ClientSession, node: Orderwire, *, instead_of: int) -> None:
    while workers(node)[1] == instead_of or len(await by_worker(session, node, "orderwire_connections")) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def test_clients_of_both_hear_an_order_that_was_posted_to_one(
    node: Orderwire, session: aiohttp.ClientSession
) -> None:
    customer, staff = [await Person.sign_in(session, node.base_url, role) for role in ("customer", "staff")]
    async with AsyncExitStack() as stack:
        feeds = [await stack.enter_async_context(subscribed(session, node, staff.token, FEED)) for _ in range(CLIENTS)]
        there = await by_worker(session, node, "orderwire_connections")
        assert sorted(there) == [1, 2]
        assert min(there.values()) > 0
        assert sum(there.values()) == CLIENTS

        [order] = await customer.place_some(1)
        async with asyncio.timeout(10):
            await asyncio.gather(*(feed.until(order["id"]) for feed in feeds))
        assert {len(feed.heard) for feed in feeds} == {1}


async def test_one_that_is_killed_takes_its_own_clients_with_it_and_comes_back(
    node: Orderwire, session: aiohttp.ClientSession
) -> None:
    customer, staff = [await Person.sign_in(session, node.base_url, role) for role in ("customer", "staff")]
    async with AsyncExitStack() as stack:
        feeds = [await stack.enter_async_context(subscribed(session, node, staff.token, FEED)) for _ in range(CLIENTS)]
        killed = workers(node)[1]

        os.kill(killed, signal.SIGKILL)

        async with asyncio.timeout(AGAIN):
            await until_both_serve(session, node, instead_of=killed)
        here = [feed for feed in feeds if feed.is_open]
        assert 0 < len(here) < CLIENTS
        [order] = await customer.place_some(1)
        async with asyncio.timeout(AGAIN):  # the other may have to take over the relay and the fan-out first
            await asyncio.gather(*(feed.until(order["id"]) for feed in here))


def test_ctrl_c_ends_all_of_them() -> None:
    with two_workers() as node:
        family = descendants(node.pid)
        assert set(workers(node).values()) <= family
        assert node.interrupt(TERMINAL_PATIENCE) == 0
        assert left_of(family) == set()


def test_a_killed_supervisor_leaves_nobody_and_the_next_start_serves() -> None:
    with two_workers() as node:
        family = descendants(node.pid)
        node.kill()
        node.start()
        assert left_of(family) == set()


def test_the_port_of_somebody_else_is_not_shared(node: Orderwire) -> None:
    with reachable_folder() as folder:
        environment = {"ORDERWIRE_DATA_DIR": str(folder / "data")}
        second = run("serve", "--workers", "2", "--port", str(node.port), environment=environment, timeout=60)
    assert second.returncode == 1
    assert f"orderwire: 127.0.0.1:{node.port}: Address already in use" in second.stderr
    assert "Traceback" not in second.stderr


def test_nobody_serves_with_no_workers() -> None:
    refused = run("serve", "--workers", "0", environment={})
    assert refused.returncode == 2
    assert refused.stderr == "orderwire: --workers: expected a whole number from 1 to 256, not 0\n"


def test_a_temporary_folder_in_which_the_workers_can_have_no_sockets_is_explained(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    environment = {
        "TMPDIR": str(folder),
        "ORDERWIRE_AUTH__TOKEN_SECRET": "s" * 32,
        "ORDERWIRE_DATABASE__URL": "postgresql://orderwire@127.0.0.1:1/orderwire",
        "ORDERWIRE_REDIS__URL": "redis://127.0.0.1:1/0",
    }
    refused = run("serve", "--workers", "2", "--port", "0", environment=environment)
    assert refused.returncode == 2
    assert re.search(r"^orderwire: TMPDIR: expected a path that is \d+ bytes shorter", refused.stderr, re.MULTILINE)
    assert "Traceback" not in refused.stderr
    assert list(folder.iterdir()) == []


def test_ctrl_c_while_the_workers_start_is_no_error() -> None:
    with reachable_folder() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve", "--port", "0", "--workers", "2"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "ORDERWIRE_DATA_DIR": str(folder / "data")},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        while "spawn_main" not in command_lines(descendants(process.pid)):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in said
