"""What whoever runs the shop decides of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Rules:
    """`unpaid_for`: how long an order may stay unpaid before it expires; None: for ever. `low_stock`: when no more than
    so many pieces are left of a product, staff are told.
    """

    unpaid_for: timedelta | None = timedelta(hours=24)
    low_stock: int = 5

    def expiry_of(self, placed_at: datetime) -> datetime | None:
        return None if self.unpaid_for is None else placed_at + self.unpaid_for
