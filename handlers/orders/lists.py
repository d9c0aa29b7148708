"""Which orders, in which order, and where the page before ended. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

from handlers.orders.model import Order, Status

Value: TypeAlias = datetime | int

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)
_LARGEST = 2**63 - 1
_NEGATED_AGAIN = re.compile(r'(?<![^\s"!&|()])-[^\w"]*-')  # from where a word may begin


class OrderSort(StrEnum):
    """By what, and with a minus from the largest down. Equal ones are in order of their numbers."""

    NEWEST = "-created"
    OLDEST = "created"
    CHANGED_LAST = "-updated"
    CHANGED_FIRST = "updated"
    DEAREST = "-total"
    CHEAPEST = "total"

    @property
    def is_descending(self) -> bool:
        return self.startswith("-")

    @property
    def begin(self) -> Mark:
        """Before all orders."""
        if self in {OrderSort.DEAREST, OrderSort.CHEAPEST}:
            return Mark(_LARGEST if self.is_descending else -1, _LARGEST if self.is_descending else 0)
        return Mark(_LATEST if self.is_descending else _EPOCH, _LARGEST if self.is_descending else 0)

    def value_of(self, order: Order) -> Value:
        match self:
            case OrderSort.NEWEST | OrderSort.OLDEST:
                return order.created_at
            case OrderSort.CHANGED_LAST | OrderSort.CHANGED_FIRST:
                return order.updated_at
            case OrderSort.DEAREST | OrderSort.CHEAPEST:
                return order.total


@dataclass(frozen=True, slots=True)
class Mark:
    """Of an order in a list: what it is sorted by, and its number."""

    value: Value
    number: int

    @classmethod
    def of(cls, order: Order, sort: OrderSort) -> Mark:
        return cls(sort.value_of(order), order.number)

    def encode(self, sort: OrderSort) -> str:
        """As a cursor says it. A moment is microseconds since 1970."""
        value = self.value if isinstance(self.value, int) else (self.value - _EPOCH) // _MICROSECOND
        return f"{sort}:{value}:{self.number}"

    @classmethod
    def parse(cls, text: str, sort: OrderSort) -> Mark | None:
        """None for what `encode` did not make of an order in this sort."""
        given, _, rest = text.partition(":")
        value, number = map(parse_natural, rest.partition(":")[::2])
        if given != sort or value is None or number is None:
            return None
        if isinstance(sort.begin.value, int):
            return cls(value, number)
        try:
            return cls(_EPOCH + value * _MICROSECOND, number)
        except OverflowError:
            return None


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """What all orders of a list have in common; None and nothing stand for any. From is included, before is not; totals
    are minor units of whatever currency. `text`: words that all are in the customer's name or e-mail address, in
    the products' names or SKUs or in the address; or the order's number.
    """

    customer_id: UUID | None = None
    statuses: Set[Status] = frozenset()
    created_from: datetime | None = None
    created_before: datetime | None = None
    total_from: int | None = None
    total_to: int | None = None
    text: str | None = None

    def begin(self, sort: OrderSort) -> Mark:
        """Before all of these orders. An index is read from here on, whatever else is asked for."""
        bounds: Mapping[OrderSort, tuple[Value | None, int]] = {
            OrderSort.NEWEST: (self.created_before, 0),
            OrderSort.OLDEST: (self.created_from, 0),
            OrderSort.DEAREST: (self.total_to, _LARGEST),
            OrderSort.CHEAPEST: (self.total_from, 0),
        }
        bound, number = bounds.get(sort, (None, 0))
        return sort.begin if bound is None else Mark(bound, number)

    @property
    def words(self) -> str | None:
        """Of `text`, and what is negated again is negated once: PostgreSQL fails at 32 in a row, as in a line of
        dashes."""
        return None if self.text is None else _NEGATED_AGAIN.sub(" -", self.text)

    @property
    def number(self) -> int | None:
        """That `text` may mean, with a # or without."""
        digits = (self.text or "").strip().removeprefix("#")
        return parse_natural(digits)


def parse_natural(text: str) -> int | None:
    """In decimal digits, and no more than PostgreSQL's largest; None for anything else."""
    is_short = text.isascii() and text.isdigit() and len(text) <= len(str(_LARGEST))
    return int(text) if is_short and int(text) <= _LARGEST else None
