from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
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


@pytest.fixture(scope="session")
def served() -> Iterator[Orderwire]:
    with orderwire(arguments=["--demo"]) as running:
        yield running


@pytest.fixture
async def proxy(served: Orderwire) -> AsyncIterator[Proxy]:
    async with open_proxy(served.port) as opened:
        yield opened


@pytest.fixture
async def browser(chromium: Chromium) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=chromium.executable_path, env=dict(chromium.env), args=[*chromium.args, *_QUIET]
        )
        async with launched:
            yield launched


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
