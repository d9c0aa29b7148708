from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from storage.streams import PostgresStreams, StreamsOptions, open_streams


@pytest.fixture
async def streams(postgres_url: str) -> AsyncIterator[PostgresStreams]:
    async with open_streams(StreamsOptions(postgres_url)) as opened:
        yield opened
