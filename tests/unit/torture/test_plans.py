"""The schedule of kills."""

from __future__ import annotations

import random
from collections import Counter

from tests.torture.faults import plans, threshold
from tests.torture.victims import Aim

TARGETS = {"node": (Aim.UNPUBLISHED, Aim.UNANSWERED), "database": (Aim.UNACKNOWLEDGED, Aim.BLIND), "bus": (Aim.BLIND,)}


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert list(plans(20, TARGETS, random.Random(7))) == list(plans(20, TARGETS, random.Random(7)))


def test_victims_fall_in_turn_and_their_aims_take_turns() -> None:
    schedule = list(plans(12, TARGETS, random.Random(1)))

    assert Counter(plan.victim for plan in schedule) == {"node": 4, "database": 4, "bus": 4}
    assert Counter(plan.aim for plan in schedule if plan.victim == "node") == {Aim.UNPUBLISHED: 2, Aim.UNANSWERED: 2}


def test_a_full_run_needs_three_kills_at_each_of_the_moments_that_matter() -> None:
    assert threshold(20) == 3
    assert threshold(5) == 0
