from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from server.config import load
from server.settings import Settings
from storage.retention import RetentionOptions
from tests.settings.deployment import API_KEY, AUTH_SECRET, NOTHING, TOKEN_KEY, Deploy, Deployment, deployed


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


@pytest.fixture
def retention_runs_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once a minute."""
    monkeypatch.setattr("server.app.RetentionOptions", partial(RetentionOptions, interval=0.1))


@pytest.fixture(autouse=True)
def garbage_collection_as_it_was() -> Iterator[None]:
    """A node that serves changes it for its process."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
