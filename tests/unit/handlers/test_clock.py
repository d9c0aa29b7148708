from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.clock import rfc3339

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31), timezones=ZONES)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 31, 9, 30, tzinfo=UTC), "2026-01-31T09:30:00.000000Z"),
        (datetime(2026, 1, 31, 9, 30, 5, 70, tzinfo=UTC), "2026-01-31T09:30:05.000070Z"),
        (datetime(2026, 1, 31, 9, 30, tzinfo=timezone(timedelta(hours=-5))), "2026-01-31T14:30:00.000000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_it_is_in_utc_with_six_digits(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text


@given(MOMENTS)
def test_it_is_as_long_for_every_moment_and_reads_as_that_moment(moment: datetime) -> None:
    text = rfc3339(moment)

    assert len(text) == len("2026-01-31T09:30:00.000000Z")
    assert datetime.fromisoformat(text) == moment


@given(MOMENTS, MOMENTS)
def test_as_text_it_sorts_like_the_time(one: datetime, other: datetime) -> None:
    assert (rfc3339(one) < rfc3339(other)) == (one < other)
