"""A product that can be ordered. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from handlers.errors import Fault, Invalid, OutOfStock

MAX_SKU_LENGTH = 64
MAX_NAME_LENGTH = 200  # so that the event of an order of 50 lines fits into what the broker carries
MAX_STOCK = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Product:
    """`price` is in minor units of `currency` (ISO 4217); `stock` is what can still be ordered, while it is `for_sale`;
    `tax_rate` is in basis points. `version` grows with each change, and whenever orders take or give back pieces.

    Raises Invalid for a SKU or a name that is empty or too long.
    """

    id: UUID
    sku: str
    name: str
    price: int
    currency: str
    stock: int
    tax_rate: int = 0
    for_sale: bool = True
    version: int = 1

    def __post_init__(self) -> None:
        if 0 < len(self.sku) <= MAX_SKU_LENGTH and 0 < len(self.name) <= MAX_NAME_LENGTH:
            return
        limits = (("/sku", self.sku, MAX_SKU_LENGTH), ("/name", self.name, MAX_NAME_LENGTH))
        faults = [
            Fault(pointer, "wrong_length", f"1 to {limit} characters")
            for pointer, text, limit in limits
            if not 0 < len(text) <= limit
        ]
        raise Invalid("There can be no such product.", faults=faults)

    def changed(self, **values: Any) -> Product:
        """As the next version; itself, if that changes nothing."""
        after = replace(self, **values)
        return self if after == self else replace(after, version=self.version + 1)

    def without(self, pieces: int) -> Product:
        """As orders leave it that take so many, at least one."""
        return replace(self, stock=self.stock - pieces, version=self.version + 1)

    def with_pieces(self, pieces: int) -> Product:
        """So many pieces more, or fewer. Raises OutOfStock when there are not so many, Invalid for more that come to
        more than MAX_STOCK."""
        stock = self.stock + pieces
        if stock < 0:
            raise OutOfStock(faults=[Fault("/pieces", OutOfStock.code, f"{self.stock} are left.")])
        if stock > MAX_STOCK and pieces > 0:  # orders that give back may have made it more
            raise Invalid(
                "There can be no such stock.", faults=[Fault("/pieces", "out_of_range", f"At most {MAX_STOCK} in all")]
            )
        return self.changed(stock=stock)
