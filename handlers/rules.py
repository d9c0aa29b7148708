"""What whoever runs the shop decides of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Rules:
    """`unpaid_for`, `draft_for`: how long an order may stay unpaid or a draft before it expires; None: for ever.
    `low_stock`: when no more than so many pieces are left of a product, staff are told. `prices_include_tax`: or it
    comes on top.
    """

    unpaid_for: timedelta | None = timedelta(hours=24)
    draft_for: timedelta | None = timedelta(days=30)
    low_stock: int = 5
    prices_include_tax: bool = True

    def expiry_of(self, placed_at: datetime) -> datetime | None:
        return None if self.unpaid_for is None else placed_at + self.unpaid_for

    def expiry_of_draft(self, changed_at: datetime) -> datetime | None:
        return None if self.draft_for is None else changed_at + self.draft_for
