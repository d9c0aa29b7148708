from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.served_channels import API_KEY, SETTINGS, TOKEN_KEY
from tests.e2e.talking import JavaScript, Talk, javascript_talker, python_talker
from tests.services.orderwire import Orderwire, orderwire
from tests.services.person import Person


@pytest.fixture(scope="session")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orderwire]:
    """A node with channels of its own, and a server API."""
    settings = tmp_path_factory.mktemp("settings") / "config.toml"
    settings.write_text(SETTINGS)
    environment = {"ORDERWIRE_HTTP_API__KEY": API_KEY, "ORDERWIRE_CLIENT__TOKEN__HMAC_SECRET_KEY": TOKEN_KEY}
    with orderwire(environment=environment, arguments=["--demo", "--config", str(settings)]) as running:
        yield running


@pytest.fixture(scope="session")
def javascript(node: Path, node_modules: Path) -> Iterator[JavaScript]:
    with JavaScript(node) as running:
        yield running


@pytest.fixture(
    params=[
        "javascript json",
        "javascript protobuf",
        "javascript json sse",
        "javascript json http_stream",
        "javascript protobuf http_stream",
        "python json",
        "python protobuf",
    ]
)
def talk(request: pytest.FixtureRequest) -> Talk:
    language, form, *transport = request.param.split()
    if language == "python":
        return partial(python_talker, form)
    return partial(javascript_talker, request.getfixturevalue("javascript"), form, *transport or [""])


@pytest.fixture
async def customer_there(session: aiohttp.ClientSession, channels: Orderwire) -> Person:
    return await Person.sign_in(session, channels.base_url, "customer")


@pytest.fixture
async def staff_there(session: aiohttp.ClientSession, channels: Orderwire) -> Person:
    return await Person.sign_in(session, channels.base_url, "staff")
