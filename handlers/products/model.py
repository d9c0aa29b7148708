"""A product that can be ordered. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from handlers.errors import Fault, Invalid

MAX_SKU_LENGTH = 64
MAX_NAME_LENGTH = 200  # so that the event of an order of 50 lines fits into what the broker carries


@dataclass(frozen=True, slots=True)
class Product:
    """`price` is in minor units of `currency` (ISO 4217); `stock` is what can still be ordered; `tax_rate` is in basis
    points.

    Raises Invalid for a SKU or a name that is empty or too long.
    """

    id: UUID
    sku: str
    name: str
    price: int
    currency: str
    stock: int
    tax_rate: int = 0

    def __post_init__(self) -> None:
        if 0 < len(self.sku) <= MAX_SKU_LENGTH and 0 < len(self.name) <= MAX_NAME_LENGTH:
            return
        limits = (("/sku", self.sku, MAX_SKU_LENGTH), ("/name", self.name, MAX_NAME_LENGTH))
        faults = [
            Fault(pointer, "wrong_length", f"1 to {limit} characters")
            for pointer, text, limit in limits
            if not 0 < len(text) <= limit
        ]
        if faults:
            raise Invalid("There can be no such product.", faults=faults)
