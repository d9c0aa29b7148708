from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from handlers.errors import IllegalTransition
from handlers.events import OwnType
from handlers.orders.model import REQUESTED, TRANSITIONS, Action, Line, Order, Status
from tests.doubles import NOW

ORDER = Order(
    uuid4(),
    1,
    uuid4(),
    Status.PLACED,
    1,
    "EUR",
    (Line(uuid4(), "A", "a", 250, 3), Line(uuid4(), "B", "b", 99, 1)),
    NOW,
    NOW,
)

LEGAL = {
    (Status.PLACED, Action.PAY): Status.PAID,
    (Status.PLACED, Action.CANCEL): Status.CANCELLED,
    (Status.PLACED, Action.EXPIRE): Status.EXPIRED,
    (Status.PAID, Action.PACK): Status.PACKED,
    (Status.PAID, Action.CANCEL): Status.CANCELLED,
    (Status.PACKED, Action.SHIP): Status.SHIPPED,
    (Status.PACKED, Action.CANCEL): Status.CANCELLED,
    (Status.SHIPPED, Action.DELIVER): Status.DELIVERED,
}


@pytest.mark.parametrize(("status", "action"), LEGAL)
def test_a_legal_action_changes_status_version_and_times_and_nothing_else(status: Status, action: Action) -> None:
    later = NOW + timedelta(seconds=1)
    before = replace(ORDER, status=status, version=4, expires_at=later)

    after = before.after(action, later)

    assert after == replace(before, status=LEGAL[status, action], version=5, updated_at=later, expires_at=None)


@pytest.mark.parametrize(
    ("status", "action"), [(status, action) for status in Status for action in Action if (status, action) not in LEGAL]
)
def test_every_other_action_is_refused(status: Status, action: Action) -> None:
    with pytest.raises(IllegalTransition):
        replace(ORDER, status=status).after(action, NOW)


def test_each_action_but_placing_is_a_transition_with_an_event_of_its_own() -> None:
    assert set(TRANSITIONS) == set(Action) - {Action.PLACE}
    events = {kind for kind in OwnType if kind.startswith("order.")}
    assert {transition.event for transition in TRANSITIONS.values()} == events - {OwnType.ORDER_CREATED}


def test_people_ask_for_every_action_that_is_not_left_to_time() -> None:
    assert set(Action) - set(REQUESTED) == {Action.PLACE, Action.EXPIRE}


def test_the_total_is_the_sum_over_the_lines() -> None:
    assert ORDER.total == 3 * 250 + 99
