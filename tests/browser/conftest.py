from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.services.chromium import Chromium
from tests.services.orderwire import Orderwire, orderwire
from tests.services.person import Person
from tests.services.proxy import Proxy, open_proxy

# Chromium's own traffic to its maker's servers only costs time, or fails.
_QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # One Chromium for all tests of the page, each in a browser context of its own: starting it takes longer than most
    # of them. It lives on one event loop, and so do the tests.
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def served() -> Iterator[Orderwire]:
    with orderwire(arguments=["--demo"]) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(served: Orderwire) -> AsyncIterator[Proxy]:
    async with open_proxy(served.port) as opened:
        yield opened


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: Chromium) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=chromium.executable_path, env=dict(chromium.env), args=[*chromium.args, *_QUIET]
        )
        async with launched:
            yield launched


@pytest_asyncio.fixture(loop_scope="session")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def customer(session: aiohttp.ClientSession, served: Orderwire) -> Person:
    return await Person.sign_in(session, served.base_url, "customer")


@pytest_asyncio.fixture(loop_scope="session")
async def staff(session: aiohttp.ClientSession, served: Orderwire) -> Person:
    return await Person.sign_in(session, served.base_url, "staff")
