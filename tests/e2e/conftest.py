from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.services.orderwire import Orderwire, orderwire
from tests.services.person import Person
from tests.services.proxy import Proxy, open_proxy


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
