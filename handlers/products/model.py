"""A product that can be ordered. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Product:
    """`price` is in minor units of `currency` (ISO 4217); `stock` is what can still be ordered."""

    id: UUID
    sku: str
    name: str
    price: int
    currency: str
    stock: int
