"""From receipts to numbers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

Sample = tuple[str, str, float]
"""An order's id, the time that its event tells (RFC 3339), and when a client received it (Unix time)."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds."""

    p50: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class Latency:
    """To a client's receipt. `commit`: from PostgreSQL's commit, by its own record; `request`: from the event's time,
    taken when the request's handler begins, so the transaction is included; `first_third`, `last_third`: medians of
    `commit` at the start and at the end of the run."""

    commit: Spread
    request: Spread
    first_third: float
    last_third: float

    @property
    def grows(self) -> bool:
        """Does the delay grow while the load stays the same? Two milliseconds are noise."""
        return self.last_third > max(1.5 * self.first_third, self.first_third + 2.0)


def latency(samples: Sequence[Sample], committed: Mapping[str, float]) -> Latency:
    """`committed`: Unix time of each order's commit. Raises ValueError without samples."""
    ordered = sorted((moment, datetime.fromisoformat(time).timestamp(), order) for order, time, moment in samples)
    commit = [1000 * (moment - committed[order]) for moment, _, order in ordered]
    request = [1000 * (moment - at) for moment, at, _ in ordered]
    third = max(1, len(commit) // 3)
    return Latency(spread(commit), spread(request), percentile(commit[:third], 50), percentile(commit[-third:], 50))


def spread(values: Sequence[float]) -> Spread:
    return Spread(percentile(values, 50), percentile(values, 99), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all are not above. Raises ValueError for none."""
    if not values:
        raise ValueError("no values")
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]
