"""The torture run, small: one kill of each victim. `make torture` is the long one."""

from __future__ import annotations

import pytest

from tests.services.server import Unavailable
from tests.torture.plant import selfcheck
from tests.torture.report import describe
from tests.torture.run import Outcome, Settings, torture

pytestmark = pytest.mark.timeout(240)


async def run(settings: Settings) -> Outcome:
    try:
        return await torture(settings)
    except Unavailable as missing:
        pytest.skip(f"left out: {missing}")


async def test_nothing_is_lost_doubled_or_disordered_when_each_part_is_killed_once() -> None:
    outcome = await run(Settings(kills=6, seed=6, rate=25, clients=25))

    assert outcome.is_good, describe(outcome)
    missed = [plant.name for plant, found in selfcheck(outcome.records) if not found]
    assert missed == [], "faults planted into these records were not found"


async def test_nothing_is_lost_doubled_or_disordered_when_the_embedded_default_is_killed() -> None:
    outcome = await run(Settings(kills=3, seed=3, rate=25, clients=15, embedded=True))

    assert outcome.is_good, describe(outcome)
