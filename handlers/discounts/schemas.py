"""The JSON bodies of discounts. `DiscountBody` is also the `data` of the event `discount.changed`."""

from __future__ import annotations

from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, Field

from handlers.discounts.model import Discount
from handlers.pricing import WHOLE
from handlers.schemas import Body, ById, Instant, LiveListing, Moment

MOST_USES = 1_000_000_000

Code = Annotated[
    str,
    Field(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$", description="Of a discount; upper and lower case are the same"),
    AfterValidator(str.upper),
]
Rate = Annotated[int, Field(ge=1, le=WHOLE, description="What is taken off, in basis points: 1000 are 10 per cent")]
Uses = Annotated[int, Field(ge=1, le=MOST_USES, description="How many orders may have it; null is any number")]


class NewDiscount(Body):
    """A discount to make; it begins now unless another moment is given."""

    code: Code
    rate: Rate
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    max_uses: Uses | None = None


class EditDiscountRequest(Body):
    """What is given is as given from now on, null is no limit; what is not given stays (RFC 7396)."""

    ends_at: Instant | None = None
    max_uses: Uses | None = None


class EditDiscount(EditDiscountRequest, ById):
    """A discount to edit, of this version where one is given; REST has that in the header If-Match."""

    version: Annotated[int, Field(ge=1)] | None = None


class DiscountBody(Body):
    """A discount as staff see it. `version` grows by one with each change and each use: keep what has the highest."""

    id: UUID
    code: str
    rate: Rate
    starts_at: Moment
    ends_at: Moment | None
    max_uses: Uses | None
    uses: Annotated[int, Field(ge=0, description="Orders that have it; fewer when they are cancelled or expire")]
    version: Annotated[int, Field(ge=1)]
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, discount: Discount) -> Self:
        return cls(
            id=discount.id,
            code=discount.code,
            rate=discount.rate,
            starts_at=discount.starts_at,
            ends_at=discount.ends_at,
            max_uses=discount.max_uses,
            uses=discount.uses,
            version=discount.version,
            created_at=discount.created_at,
            updated_at=discount.updated_at,
        )


class LiveDiscountList(LiveListing[DiscountBody]):
    """A page of discounts, with the stream that tells how they change."""
