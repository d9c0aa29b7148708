"""The JSON bodies of products."""

from __future__ import annotations

from typing import Self
from uuid import UUID

from handlers.products.model import Product
from handlers.schemas import Body


class ProductBody(Body):
    """`price` is in minor units of `currency` (ISO 4217); `stock` is what can still be ordered; `tax_rate` is in basis
    points: 1900 are 19 per cent."""

    id: UUID
    sku: str
    name: str
    price: int
    currency: str
    stock: int
    tax_rate: int

    @classmethod
    def of(cls, product: Product) -> Self:
        return cls(
            id=product.id,
            sku=product.sku,
            name=product.name,
            price=product.price,
            currency=product.currency,
            stock=product.stock,
            tax_rate=product.tax_rate,
        )
