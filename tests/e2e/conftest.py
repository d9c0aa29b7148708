from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.served_channels import API_KEY, SETTINGS, TOKEN_KEY
from tests.services.orderwire import Orderwire, orderwire


@pytest.fixture(scope="session")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orderwire]:
    """A node with channels of its own, and a server API."""
    settings = tmp_path_factory.mktemp("settings") / "config.toml"
    settings.write_text(SETTINGS)
    environment = {"ORDERWIRE_HTTP_API__KEY": API_KEY, "ORDERWIRE_CLIENT__TOKEN__HMAC_SECRET_KEY": TOKEN_KEY}
    with orderwire(environment=environment, arguments=["--demo", "--config", str(settings)]) as running:
        yield running
