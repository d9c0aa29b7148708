"""A short run of `make fuzz-api`: requests that nobody thought of, as each role."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.run import ENVIRONMENT, ROLES, fuzz
from tests.services.orderwire import Orderwire, orderwire

SECONDS = 3


@pytest.fixture(scope="module")
def node() -> Iterator[Orderwire]:
    with orderwire(environment=ENVIRONMENT, arguments=["--demo"]) as running:
        yield running


@pytest.mark.parametrize("role", ROLES)
async def test_every_answer_is_one_that_the_document_tells_of(node: Orderwire, role: str) -> None:
    fuzzed = await fuzz(node.base_url, role, seconds=SECONDS, seed=len(role))

    assert fuzzed.is_good, fuzzed.report
    assert '"request_failed"' not in node.log()
