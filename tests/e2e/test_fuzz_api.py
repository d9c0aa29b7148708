"""A minute of `make fuzz-api`: requests that nobody thought of, as all roles at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.fuzz.run import ENVIRONMENT, ROLES, fuzz
from tests.services.orderwire import Orderwire, orderwire

SECONDS = 15  # of each role


@pytest.fixture
def node() -> Iterator[Orderwire]:
    with orderwire(environment=ENVIRONMENT, arguments=["--demo"]) as running:
        yield running


@pytest.mark.timeout(120)
async def test_every_answer_is_one_that_the_document_tells_of(node: Orderwire) -> None:
    fuzzed = await asyncio.gather(*(fuzz(node.base_url, role, seconds=SECONDS, seed=len(role)) for role in ROLES))

    assert all(each.is_good for each in fuzzed), "\n".join(each.report for each in fuzzed if not each.is_good)
    assert '"request_failed"' not in node.log()
