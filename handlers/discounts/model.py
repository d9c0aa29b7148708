"""A discount: a code that takes a part off an order. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from handlers.pricing import share


@dataclass(frozen=True, slots=True)
class Discount:
    """`rate` is the part in basis points. It can be used from `starts_at` on, before `ends_at` and `max_uses` times,
    where these are not None. Orders that give their pieces back give back their use as well."""

    id: UUID
    code: str
    rate: int
    starts_at: datetime
    ends_at: datetime | None
    max_uses: int | None
    uses: int
    version: int
    created_at: datetime
    updated_at: datetime

    def off(self, subtotal: int) -> int:
        """What it takes off."""
        return share(subtotal, self.rate)

    def refusal(self, now: datetime) -> str | None:
        """Why it cannot be used; None when it can."""
        if now < self.starts_at:
            return f"The discount {self.code} cannot be used yet."
        if self.ends_at is not None and now >= self.ends_at:
            return f"The discount {self.code} is over."
        if self.max_uses is not None and self.uses >= self.max_uses:
            return f"The discount {self.code} is used up."
        return None
