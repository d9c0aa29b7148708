"""How many orders there are and what they come to, by when they were placed and by status. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby

from handlers.orders.model import Status

EARNING = frozenset({Status.PAID, Status.PACKED, Status.SHIPPED, Status.DELIVERED, Status.RETURNED})
"""Orders of these statuses are paid for, and not all of that was given back."""


class Span(StrEnum):
    """Of time, in UTC; orders that were placed in one are counted together."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    EVER = "ever"

    @property
    def length(self) -> timedelta:
        """Raises KeyError for EVER."""
        return _LENGTHS[self]

    def begin(self, moment: datetime) -> datetime:
        """Of the span with this moment (UTC) in it."""
        match self:
            case Span.MINUTE:
                return moment.replace(second=0, microsecond=0)
            case Span.HOUR:
                return moment.replace(minute=0, second=0, microsecond=0)
            case _:
                return moment.replace(hour=0, minute=0, second=0, microsecond=0)


_LENGTHS = {Span.MINUTE: timedelta(minutes=1), Span.HOUR: timedelta(hours=1), Span.DAY: timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class Window:
    """Where the minutes, hours and days begin that are looked at."""

    minutes: datetime
    hours: datetime
    days: datetime

    @classmethod
    def shown(cls, now: datetime) -> Window:
        """On a dashboard: the last hour by the minute, the last day by the hour, the last thirty days."""
        return cls(
            Span.MINUTE.begin(now - timedelta(minutes=59)),
            Span.HOUR.begin(now - timedelta(hours=23)),
            Span.DAY.begin(now - timedelta(days=29)),
        )

    @classmethod
    def kept(cls, now: datetime) -> Window:
        """Minutes for a week, hours for a year; days always."""
        return cls(
            Span.MINUTE.begin(now - timedelta(days=7)),
            Span.HOUR.begin(now - timedelta(days=366)),
            datetime.min.replace(tzinfo=now.tzinfo),
        )

    def since(self, span: Span) -> datetime:
        return {Span.MINUTE: self.minutes, Span.HOUR: self.hours}.get(span, self.days)


@dataclass(frozen=True, slots=True)
class Count:
    """Of the orders of one currency that were placed in one span and are of one status now; drafts are no
    orders yet. `total`, and what of it was `refunded`, are minor units."""

    span: Span
    begins_at: datetime
    currency: str
    status: Status
    orders: int
    total: int
    refunded: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """Of the orders of one currency that were placed in one span, whatever has become of them."""

    span: Span
    begins_at: datetime
    currency: str
    by_status: Sequence[Count]

    @property
    def orders(self) -> int:
        return sum(count.orders for count in self.by_status)

    @property
    def revenue(self) -> int:
        """What is paid for and was not given back, in minor units."""
        return sum(count.total - count.refunded for count in self.by_status if count.status in EARNING)


def tallies(counts: Iterable[Count]) -> Sequence[Tally]:
    """By span, begin and currency, in which order the counts have to be."""
    grouped = groupby(counts, key=lambda count: (count.span, count.begins_at, count.currency))
    return [Tally(*place, tuple(some)) for place, some in grouped]
