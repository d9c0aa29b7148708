from __future__ import annotations

from datetime import UTC, datetime

import pytest

from handlers.orders.model import Status
from handlers.stats.model import EARNING, Count, Span, Tally, Window, tallies

NOW = datetime(2026, 3, 1, 9, 30, 59, 999999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("span", "begin"),
    [
        (Span.MINUTE, datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        (Span.HOUR, datetime(2026, 3, 1, 9, tzinfo=UTC)),
        (Span.DAY, datetime(2026, 3, 1, tzinfo=UTC)),
    ],
)
def test_a_span_begins_where_its_unit_does(span: Span, begin: datetime) -> None:
    assert span.begin(NOW) == begin
    assert span.begin(begin) == begin
    assert begin <= NOW < begin + span.length


def test_a_dashboard_shows_an_hour_a_day_and_thirty_days_the_present_spans_included() -> None:
    shown = Window.shown(NOW)
    assert shown == Window(
        datetime(2026, 3, 1, 8, 31, tzinfo=UTC),
        datetime(2026, 2, 28, 10, tzinfo=UTC),
        datetime(2026, 1, 31, tzinfo=UTC),
    )
    assert [(Span(span).begin(NOW) - shown.since(span)) / span.length + 1 for span in list(Span)[:3]] == [60, 24, 30]


def test_no_window_looks_further_back_than_sums_are_kept() -> None:
    assert all(Window.kept(NOW).since(span) < Window.shown(NOW).since(span) for span in list(Span)[:3])


def test_what_is_paid_for_earns() -> None:
    counts = [Count(Span.EVER, NOW, "EUR", status, 2, 100) for status in Status]
    (tally,) = tallies(counts)
    assert (tally.orders, tally.revenue) == (2 * len(Status), 100 * len(EARNING))
    unpaid = {Status.DRAFT, Status.PLACED, Status.PAYMENT_FAILED, Status.CANCELLED, Status.EXPIRED, Status.REFUNDED}
    assert set(Status) - EARNING == unpaid


def test_what_was_given_back_of_it_does_not_earn() -> None:
    (tally,) = tallies([Count(Span.EVER, NOW, "EUR", Status.SHIPPED, 1, 100, refunded=30)])
    assert tally.revenue == 70


def test_counts_are_tallied_by_span_and_currency() -> None:
    later = NOW.replace(hour=10)
    counts = [
        Count(Span.DAY, NOW, "EUR", Status.PAID, 1, 10),
        Count(Span.DAY, NOW, "EUR", Status.PLACED, 2, 20),
        Count(Span.DAY, NOW, "USD", Status.PAID, 3, 30),
        Count(Span.HOUR, NOW, "USD", Status.PAID, 4, 40),
        Count(Span.HOUR, later, "USD", Status.PAID, 5, 50),
    ]
    assert tallies(counts) == [
        Tally(Span.DAY, NOW, "EUR", (counts[0], counts[1])),
        Tally(Span.DAY, NOW, "USD", (counts[2],)),
        Tally(Span.HOUR, NOW, "USD", (counts[3],)),
        Tally(Span.HOUR, later, "USD", (counts[4],)),
    ]
