from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.pricing import WHOLE, Tax, share, spread, taxes

amounts = st.integers(0, 10**12)
rates = st.integers(0, WHOLE)


@pytest.mark.parametrize(
    ("amount", "rate", "expected"), [(250, 1000, 25), (5, 1000, 1), (4, 1000, 0), (999, WHOLE, 999), (0, 500, 0)]
)
def test_a_share_is_rounded_half_up(amount: int, rate: int, expected: int) -> None:
    assert share(amount, rate) == expected


@given(over=st.lists(amounts, min_size=1, max_size=50), rate=rates)
def test_what_is_spread_adds_up_and_no_part_is_more_than_what_it_is_of(over: list[int], rate: int) -> None:
    amount = share(sum(over), rate)

    parts = spread(amount, over)

    assert sum(parts) == amount
    assert all(0 <= part <= most for part, most in zip(parts, over, strict=True))
    for part, most in zip(parts, over, strict=True):
        assert abs(part - amount * most / max(1, sum(over))) <= 1 + most * 1e-9


@pytest.mark.parametrize(
    ("included", "expected"),
    [(True, [Tax(700, 100, 7), Tax(1900, 100, 19)]), (False, [Tax(700, 107, 7), Tax(1900, 119, 23)])],
)
def test_taxes_are_in_an_amount_or_on_top_of_it(included: bool, expected: list[Tax]) -> None:
    assert taxes([(1900, 100), (0, 55), (700, 107), (1900, 19)], included=included) == expected


@given(parts=st.lists(st.tuples(st.integers(1, WHOLE), amounts), max_size=20))
def test_a_net_amount_and_its_tax_are_the_gross_amount_and_the_tax_is_right_to_the_half_unit(
    parts: list[tuple[int, int]],
) -> None:
    found = taxes(parts, included=True)

    assert sum(tax.net + tax.amount for tax in found) == sum(amount for _, amount in parts)
    for tax in found:
        gross = tax.net + tax.amount
        assert abs(2 * (tax.amount * (WHOLE + tax.rate) - gross * tax.rate)) <= WHOLE + tax.rate
