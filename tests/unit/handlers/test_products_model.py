from __future__ import annotations

from dataclasses import replace

import pytest

from handlers.errors import Invalid
from handlers.events import MAX_EVENT_BYTES
from handlers.orders import service
from handlers.orders.schemas import MAX_LINES, MAX_QUANTITY
from handlers.ports.domain import Quantity
from handlers.products.model import MAX_NAME_LENGTH, MAX_SKU_LENGTH, Product
from handlers.rules import Rules
from tests.doubles import CAUSE, MemoryUnitOfWork, a_product, an_actor


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"sku": ""}, ["/sku"]),
        ({"sku": "S" * (MAX_SKU_LENGTH + 1)}, ["/sku"]),
        ({"name": "", "sku": ""}, ["/sku", "/name"]),
        ({"name": "N" * (MAX_NAME_LENGTH + 1)}, ["/name"]),
    ],
)
def test_a_product_whose_texts_are_empty_or_too_long_cannot_be(changes: dict[str, str], pointers: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        replace(a_product(), **changes)  # type: ignore[arg-type]  # only texts

    assert [fault.pointer for fault in refused.value.faults] == pointers


async def test_the_event_of_the_largest_order_can_be_delivered() -> None:
    uow = MemoryUnitOfWork()
    for number in range(MAX_LINES):
        worst = "\x01" * (MAX_NAME_LENGTH - 1)  # six bytes each in JSON
        product = a_product(stock=MAX_QUANTITY, sku="\x01" * (MAX_SKU_LENGTH - 2) + f"{number:02}", price=2**40)
        await uow.products.add(replace(product, name=f"{worst}!"))
    items = [Quantity(product_id, MAX_QUANTITY) for product_id in uow.products.rows]

    await service.place(uow, an_actor(), items, CAUSE, Rules())

    assert len(uow.outbox.events[0].encode()) < MAX_EVENT_BYTES // 2


def test_the_longest_texts_are_allowed() -> None:
    longest: Product = replace(a_product(), sku="S" * MAX_SKU_LENGTH, name="\N{GRINNING FACE}" * MAX_NAME_LENGTH)

    assert len(longest.name) == MAX_NAME_LENGTH
