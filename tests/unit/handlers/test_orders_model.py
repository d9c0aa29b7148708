from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from handlers.errors import IllegalTransition
from handlers.events import OwnType
from handlers.orders.model import REQUESTED, TRANSITIONS, UNPAID, Action, Line, Order, Status
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
    (Status.DRAFT, Action.PLACE): Status.PLACED,
    (Status.DRAFT, Action.CANCEL): Status.CANCELLED,
    (Status.DRAFT, Action.EXPIRE): Status.EXPIRED,
    (Status.PLACED, Action.PAY): Status.PAID,
    (Status.PLACED, Action.DECLINE): Status.PAYMENT_FAILED,
    (Status.PAYMENT_FAILED, Action.PAY): Status.PAID,
    (Status.PAYMENT_FAILED, Action.DECLINE): Status.PAYMENT_FAILED,
    (Status.PAYMENT_FAILED, Action.CANCEL): Status.CANCELLED,
    (Status.PAYMENT_FAILED, Action.EXPIRE): Status.EXPIRED,
    (Status.PLACED, Action.CANCEL): Status.CANCELLED,
    (Status.PLACED, Action.EXPIRE): Status.EXPIRED,
    (Status.PAID, Action.PACK): Status.PACKED,
    (Status.PAID, Action.CANCEL): Status.CANCELLED,
    (Status.PACKED, Action.SHIP): Status.SHIPPED,
    (Status.PACKED, Action.CANCEL): Status.CANCELLED,
    (Status.SHIPPED, Action.DELIVER): Status.DELIVERED,
    (Status.SHIPPED, Action.RETURN): Status.RETURNED,
    (Status.DELIVERED, Action.RETURN): Status.RETURNED,
    **{
        (status, Action.REFUND): Status.REFUNDED
        for status in (Status.PAID, Status.PACKED, Status.SHIPPED, Status.DELIVERED, Status.RETURNED)
    },
}


@pytest.mark.parametrize(("status", "action"), LEGAL)
def test_a_legal_action_changes_status_version_and_times_and_nothing_else(status: Status, action: Action) -> None:
    later = NOW + timedelta(seconds=1)
    before = replace(ORDER, status=status, version=4, expires_at=later)

    after = before.after(action, later)

    status = LEGAL[status, action]
    expires_at = later if status in UNPAID else None
    assert after == replace(before, status=status, version=5, updated_at=later, expires_at=expires_at)


@pytest.mark.parametrize(
    ("status", "action"), [(status, action) for status in Status for action in Action if (status, action) not in LEGAL]
)
def test_every_other_action_is_refused(status: Status, action: Action) -> None:
    with pytest.raises(IllegalTransition):
        replace(ORDER, status=status).after(action, NOW)


def test_pieces_return_from_what_was_not_sent_yet_and_with_what_is_sent_back() -> None:
    returning = {(status, action) for action, transition in TRANSITIONS.items() for status in transition.gives_back}

    assert returning == {
        (Status.PLACED, Action.CANCEL),
        (Status.PLACED, Action.EXPIRE),
        (Status.PAYMENT_FAILED, Action.CANCEL),
        (Status.PAYMENT_FAILED, Action.EXPIRE),
        (Status.PAID, Action.CANCEL),
        (Status.PAID, Action.REFUND),
        (Status.PACKED, Action.CANCEL),
        (Status.PACKED, Action.REFUND),
        (Status.SHIPPED, Action.RETURN),
        (Status.DELIVERED, Action.RETURN),
    }


def test_each_action_that_changes_the_status_is_a_transition_with_an_event_of_its_own() -> None:
    assert set(TRANSITIONS) == set(Action) - {Action.DRAFT, Action.EDIT, Action.REFUND_FAILED}
    events = {kind for kind in OwnType if kind.startswith("order.")}
    assert {transition.event for transition in TRANSITIONS.values()} == events - {
        OwnType.ORDER_DRAFTED,
        OwnType.ORDER_EDITED,
        OwnType.ORDER_REFUND_FAILED,
    }


def test_people_ask_for_every_action_that_is_not_left_to_time_or_the_provider_and_needs_no_more() -> None:
    assert set(Action) - set(REQUESTED) == {
        Action.DRAFT,
        Action.PLACE,
        Action.EDIT,
        Action.EXPIRE,
        Action.DECLINE,
        Action.REFUND,
        Action.REFUND_FAILED,
    }


@pytest.mark.parametrize("status", [Status.PAID, Status.RETURNED, Status.CANCELLED])
def test_an_order_is_refunded_once_all_of_it_is_given_back_unless_it_was_over(status: Status) -> None:
    paid = replace(ORDER, status=status, version=2)

    part = paid.given_back(100, NOW)
    whole = part.given_back(ORDER.total - 100, NOW)

    assert (part.status, part.refunded, part.version) == (status, 100, 3)
    end = Status.CANCELLED if status is Status.CANCELLED else Status.REFUNDED
    assert (whole.status, whole.refunded, whole.version) == (end, ORDER.total, 4)


def test_a_refunded_order_stays_so_when_a_part_of_the_money_comes_back_and_again_when_it_is_given_back_anew() -> None:
    whole = replace(ORDER, status=Status.PAID, version=2).given_back(ORDER.total, NOW)

    part = whole.not_given_back(100, NOW)
    again = part.given_back(100, NOW)

    assert (part.status, part.refunded, part.version) == (Status.REFUNDED, ORDER.total - 100, 4)
    assert (again.status, again.refunded, again.version) == (Status.REFUNDED, ORDER.total, 5)


def test_the_total_is_the_sum_over_the_lines() -> None:
    assert ORDER.total == ORDER.subtotal == 3 * 250 + 99


@pytest.mark.parametrize(
    ("included", "taxes", "total"), [(True, [(700, 187, 13)], 249), (False, [(700, 200, 14)], 263)]
)
def test_discount_and_taxes_are_in_the_total(included: bool, taxes: list[tuple[int, int, int]], total: int) -> None:
    lines = (
        Line(uuid4(), "A", "a", 100, 3, tax_rate=700, discount=100),
        Line(uuid4(), "B", "b", 49, 1),
    )
    order = replace(ORDER, lines=lines, discount_code="SPRING", tax_included=included)

    assert (order.subtotal, order.discount, order.total) == (349, 100, total)
    assert [(tax.rate, tax.net, tax.amount) for tax in order.taxes] == taxes


def test_only_what_is_in_a_draft_can_be_changed() -> None:
    replace(ORDER, status=Status.DRAFT).refuse_unless_draft()
    for status in set(Status) - {Status.DRAFT}:
        with pytest.raises(IllegalTransition):
            replace(ORDER, status=status).refuse_unless_draft()
