from __future__ import annotations

from uuid import uuid4

import pytest

from handlers.errors import NotFound
from handlers.products import service
from tests.doubles import MemoryUnitOfWork, a_product


async def test_products_come_in_pages_in_order_of_sku() -> None:
    uow = MemoryUnitOfWork()
    for sku in "CAB":
        await uow.products.add(a_product(sku=sku))

    first = await service.page(uow, after_sku="", limit=2)
    second = await service.page(uow, after_sku=first.next or "", limit=2)

    assert ([product.sku for product in first.products], first.next) == (["A", "B"], "B")
    assert ([product.sku for product in second.products], second.next) == (["C"], None)


async def test_a_product_is_found_by_its_id_or_not_at_all() -> None:
    uow, product = MemoryUnitOfWork(), a_product()
    await uow.products.add(product)

    assert await service.get(uow, product.id) == product
    with pytest.raises(NotFound):
        await service.get(uow, uuid4())
