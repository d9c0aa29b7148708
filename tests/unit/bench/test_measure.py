"""What the benchmark counts with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure import latency, percentile, spread


def test_latency_runs_from_the_commit_and_from_the_events_time() -> None:
    samples = [
        ("order-1", "1970-01-01T00:00:10.000000Z", 10.010),
        ("order-2", "1970-01-01T00:00:11.000000Z", 11.030),
    ]

    found = latency(samples, {"order-1": 10.004, "order-2": 11.020})

    assert found.commit.longest == pytest.approx(10.0)
    assert found.request.p50 == pytest.approx(30.0)
    assert (found.first_third, found.last_third) == pytest.approx((6.0, 10.0))


def test_a_delay_that_grows_is_told_from_one_that_varies() -> None:
    at = [f"1970-01-01T00:00:{second:02}Z" for second in range(30)]
    committed = {str(second): float(second) for second in range(30)}

    growing = latency([(str(s), at[s], s + 0.01 * (s + 1)) for s in range(30)], committed)
    steady = latency([(str(s), at[s], s + 0.01 + 0.001 * (s % 2)) for s in range(30)], committed)

    assert growing.grows
    assert not steady.grows


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_a_percentile_is_one_of_the_values_and_between_the_extremes(values: list[float], percent: float) -> None:
    found = percentile(values, percent)

    assert found in values
    assert spread(values).p50 <= spread(values).p99 <= spread(values).longest


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
