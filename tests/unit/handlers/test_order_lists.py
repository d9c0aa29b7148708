from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.orders.lists import Mark, OrderFilter, OrderSort
from handlers.orders.model import Line, Order, Status

NOW = datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC)
ORDER = Order(
    id=uuid4(),
    number=17,
    customer_id=uuid4(),
    status=Status.PLACED,
    version=1,
    currency="EUR",
    lines=(Line(uuid4(), "MUG", "Mug", 250, 3),),
    created_at=NOW,
    updated_at=NOW + timedelta(hours=1),
)


@pytest.mark.parametrize("sort", OrderSort)
def test_a_cursor_is_read_as_the_place_that_it_was_made_of(sort: OrderSort) -> None:
    mark = Mark.of(ORDER, sort)
    assert Mark.parse(mark.encode(sort), sort) == mark


@pytest.mark.parametrize("sort", OrderSort)
def test_a_cursor_of_another_sort_is_none(sort: OrderSort) -> None:
    mark = Mark.of(ORDER, sort)
    assert [other for other in OrderSort if Mark.parse(mark.encode(sort), other) is not None] == [sort]


@given(st.text(max_size=40), st.sampled_from(OrderSort))
def test_any_text_is_a_place_or_none(text: str, sort: OrderSort) -> None:
    for given_text in (text, f"{sort}:{text}", f"{sort}:{text}:1", f"{sort}:1:{text}"):
        mark = Mark.parse(given_text, sort)
        assert mark is None or mark.encode(sort).split(":")[0] == sort


@pytest.mark.parametrize("text", ["-created:1:99999999999999999999", "-created:99999999999999999999:1"])
def test_what_postgresql_could_not_hold_is_none(text: str) -> None:
    assert Mark.parse(text, OrderSort.NEWEST) is None


@pytest.mark.parametrize("sort", OrderSort)
@pytest.mark.parametrize("order", [ORDER, replace(ORDER, lines=(), number=1)])
def test_every_order_is_behind_the_begin(sort: OrderSort, order: Order) -> None:
    begin, mark = sort.begin, Mark.of(order, sort)
    behind = (begin.value, begin.number) > (mark.value, mark.number)
    assert behind is sort.is_descending


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("17", 17),
        (" #17 ", 17),
        ("mug 17", None),
        ("#", None),
        ("", None),
        (None, None),
        ("9" * 30, None),
        ("\u0661\u0667", None),  # digits, but not ours
    ],
)
def test_a_text_of_digits_may_be_a_number(text: str | None, number: int | None) -> None:
    assert OrderFilter(text=text).number == number


@pytest.mark.parametrize(
    ("which", "sort", "begin"),
    [
        (OrderFilter(created_before=NOW), OrderSort.NEWEST, Mark(NOW, 0)),
        (OrderFilter(created_from=NOW), OrderSort.OLDEST, Mark(NOW, 0)),
        (OrderFilter(total_to=750), OrderSort.DEAREST, Mark(750, 2**63 - 1)),
        (OrderFilter(total_from=750), OrderSort.CHEAPEST, Mark(750, 0)),
        (OrderFilter(created_from=NOW, total_from=750), OrderSort.NEWEST, OrderSort.NEWEST.begin),
        (OrderFilter(created_from=NOW, total_from=750), OrderSort.CHANGED_LAST, OrderSort.CHANGED_LAST.begin),
    ],
)
def test_a_list_begins_at_the_bound_that_it_is_sorted_by(which: OrderFilter, sort: OrderSort, begin: Mark) -> None:
    assert which.begin(sort) == begin
