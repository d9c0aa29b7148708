"""The use cases of products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from handlers.errors import NotFound
from handlers.ports.domain import UnitOfWork
from handlers.products.model import Product


@dataclass(frozen=True, slots=True)
class ProductPage:
    """In order of SKU; `next` is the SKU to continue after, None at the end."""

    products: Sequence[Product]
    next: str | None


async def page(uow: UnitOfWork, *, after_sku: str, limit: int) -> ProductPage:
    found = await uow.products.page(after_sku=after_sku, limit=limit + 1)
    shown = found[:limit]
    return ProductPage(shown, shown[-1].sku if len(found) > limit else None)


async def get(uow: UnitOfWork, product_id: UUID) -> Product:
    product = await uow.products.get(product_id)
    if product is None:
        raise NotFound
    return product
