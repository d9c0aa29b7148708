"""What an order comes to: its lines at the products' prices, what a discount takes off them, and taxes. Pure.

All amounts are minor units of the order's currency. A share is rounded half up where it arises, and what was rounded
is what adds up: the shares of a discount are the discount, a net amount and its tax are the gross amount.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

WHOLE = 10_000
"""A rate of 100 %, in basis points."""


class Tax(NamedTuple):
    """Of all that is taxed at `rate`, in basis points: `net` is without the tax."""

    rate: int
    net: int
    amount: int


def share(amount: int, rate: int) -> int:
    """So many basis points of an amount, rounded half up."""
    return _rounded(amount * rate, WHOLE)


def spread(amount: int, over: Sequence[int]) -> Sequence[int]:
    """An amount that is no more than the sum of `over`, in parts in proportion to these; no part is larger than what it
    is for."""
    whole = sum(over)
    if whole == 0:
        return [0] * len(over)
    reached = [amount * so_far // whole for so_far in accumulate(over, initial=0)]
    return [after - before for before, after in pairwise(reached)]


def taxes(amounts: Sequence[tuple[int, int]], *, included: bool) -> Sequence[Tax]:
    """Of (rate, amount) pairs, one for each rate but zero, lowest first; is the tax `included` in the amounts?"""
    totals: dict[int, int] = {}
    for rate, amount in amounts:
        if rate:
            totals[rate] = totals.get(rate, 0) + amount
    return [_tax(rate, totals[rate], included=included) for rate in sorted(totals)]


def _tax(rate: int, amount: int, *, included: bool) -> Tax:
    if not included:
        return Tax(rate, amount, share(amount, rate))
    tax = _rounded(amount * rate, WHOLE + rate)
    return Tax(rate, amount - tax, tax)


def _rounded(dividend: int, divisor: int) -> int:
    return (2 * dividend + divisor) // (2 * divisor)
