from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from handlers.actor import Role
from handlers.audience import products
from handlers.errors import Conflict, Forbidden, Invalid, NotFound, OutOfStock, VersionMismatch
from handlers.events import MAX_EVENT_BYTES, PRODUCTS, OwnType
from handlers.orders import service as orders
from handlers.orders.model import Action
from handlers.ports.domain import Quantity
from handlers.pricing import WHOLE
from handlers.products import service
from handlers.products.model import MAX_NAME_LENGTH, MAX_SKU_LENGTH, MAX_STOCK, Product
from handlers.products.schemas import MAX_PRICE, NewProductRequest, ProductBody, ProductsBody
from handlers.rules import Rules
from tests.doubles import CAUSE, MemoryUnitOfWork, a_product, an_actor

STAFF = an_actor(Role.STAFF)
CUSTOMER = an_actor()


@pytest.fixture
def uow() -> MemoryUnitOfWork:
    return MemoryUnitOfWork()


async def stocked(uow: MemoryUnitOfWork, stock: int = 10, sku: str = "") -> Product:
    product = a_product(stock=stock, sku=sku)
    await uow.products.add(product)
    return product


async def tell_stock(uow: MemoryUnitOfWork) -> None:
    for product_ids in await service.claim_untold(uow, timedelta(seconds=1)):
        await service.tell_stock(uow, product_ids, CAUSE)


def told(uow: MemoryUnitOfWork) -> list[tuple[str, str, object]]:
    return [(event.type, event.subject, event.data) for event in uow.outbox.events]


async def test_products_come_in_pages_in_order_of_sku(uow: MemoryUnitOfWork) -> None:
    for sku in "CAB":
        await stocked(uow, sku=sku)

    first = await service.page(uow, after_sku="", limit=2)
    second = await service.page(uow, after_sku=first.state.next or "", limit=2)

    assert first.channel == products()
    assert ([product.sku for product in first.state.products], first.state.next) == (["A", "B"], "B")
    assert ([product.sku for product in second.state.products], second.state.next) == (["C"], None)


async def test_a_page_has_those_that_are_for_sale_or_are_not(uow: MemoryUnitOfWork) -> None:
    shown, hidden = await stocked(uow, sku="A"), await stocked(uow, sku="B")
    hidden = await service.edit(uow, STAFF, hidden.id, {"for_sale": False}, CAUSE)

    for asked, expected in ((None, [shown, hidden]), (True, [shown]), (False, [hidden])):
        assert (await service.page(uow, after_sku="", limit=2, for_sale=asked)).state.products == expected


async def test_a_product_is_found_by_its_id_or_not_at_all(uow: MemoryUnitOfWork) -> None:
    product = await stocked(uow)

    assert await service.get(uow, product.id) == product
    with pytest.raises(NotFound):
        await service.get(uow, uuid4())


async def test_it_is_added_as_it_was_asked_for_and_told(uow: MemoryUnitOfWork) -> None:
    wanted = NewProductRequest(sku="CUP", name="Cup", price=900, currency="EUR", stock=3, tax_rate=1900, for_sale=False)

    made = await service.create(uow, STAFF, wanted, CAUSE)

    assert made == Product(made.id, "CUP", "Cup", 900, "EUR", 3, 1900, for_sale=False, version=1)
    assert told(uow) == [(OwnType.PRODUCT_CHANGED, str(made.id), ProductBody.of(made))]
    with pytest.raises(Conflict):
        await service.create(uow, STAFF, wanted, CAUSE)


async def test_a_change_makes_a_version_that_is_told_and_nothing_none(uow: MemoryUnitOfWork) -> None:
    product = await stocked(uow)

    after = await service.edit(uow, STAFF, product.id, {"price": 300, "name": "Another"}, CAUSE, version=1)
    same = await service.edit(uow, STAFF, product.id, {"price": 300}, CAUSE)

    assert (after.price, after.name, after.version) == (300, "Another", 2)
    assert same == after == await service.get(uow, product.id)
    assert told(uow) == [(OwnType.PRODUCT_CHANGED, str(product.id), ProductBody.of(after))]
    with pytest.raises(VersionMismatch):
        await service.edit(uow, STAFF, product.id, {"price": 1}, CAUSE, version=1)
    with pytest.raises(NotFound):
        await service.edit(uow, STAFF, uuid4(), {}, CAUSE)


async def test_stock_comes_and_goes_and_staff_are_told_when_little_is_left(uow: MemoryUnitOfWork) -> None:
    product = await stocked(uow, stock=4)

    async def adjust(pieces: int) -> Product:
        return await service.adjust_stock(uow, STAFF, product.id, pieces, 5, CAUSE)

    more = await adjust(20)
    fewer = await adjust(-19)
    none = await adjust(-5)

    assert [(each.stock, each.version) for each in (more, fewer, none)] == [(24, 2), (5, 3), (0, 4)]
    kinds = [kind for kind, _, _ in told(uow)]
    assert kinds == [OwnType.PRODUCT_CHANGED, OwnType.PRODUCT_CHANGED, OwnType.STOCK_LOW, OwnType.PRODUCT_CHANGED]
    assert await adjust(0) == none
    with pytest.raises(OutOfStock):
        await adjust(-1)
    with pytest.raises(Invalid):
        await adjust(MAX_STOCK + 1)
    with pytest.raises(VersionMismatch):
        await service.adjust_stock(uow, STAFF, product.id, 1, 5, CAUSE, version=1)


async def test_of_more_than_there_may_be_pieces_can_be_gone(uow: MemoryUnitOfWork) -> None:
    product = await stocked(uow, stock=MAX_STOCK)
    await uow.products.give_back([Quantity(product.id, 2)])

    assert (await service.adjust_stock(uow, STAFF, product.id, -1, 5, CAUSE)).stock == MAX_STOCK + 1
    assert (await service.adjust_stock(uow, STAFF, product.id, 0, 5, CAUSE)).stock == MAX_STOCK + 1
    with pytest.raises(Invalid):
        await service.adjust_stock(uow, STAFF, product.id, 1, 5, CAUSE)


async def test_there_can_be_as_many_pieces_as_there_may_be(uow: MemoryUnitOfWork) -> None:
    product = await stocked(uow, stock=1)

    assert (await service.adjust_stock(uow, STAFF, product.id, MAX_STOCK - 1, 5, CAUSE)).stock == MAX_STOCK


async def test_customers_change_no_product(uow: MemoryUnitOfWork) -> None:
    product = await stocked(uow)

    with pytest.raises(Forbidden):
        await service.create(uow, CUSTOMER, NewProductRequest(sku="A", name="A", price=1, currency="EUR"), CAUSE)
    with pytest.raises(Forbidden):
        await service.edit(uow, CUSTOMER, product.id, {"price": 1}, CAUSE)
    with pytest.raises(Forbidden):
        await service.adjust_stock(uow, CUSTOMER, uuid4(), 1, 0, CAUSE)
    assert uow.outbox.events == []


async def test_what_is_not_for_sale_is_neither_ordered_nor_drafted(uow: MemoryUnitOfWork) -> None:
    shown, hidden = await stocked(uow), await stocked(uow)
    items = [Quantity(shown.id, 1), Quantity(hidden.id, 1)]
    draft = await orders.place(uow, CUSTOMER, items, CAUSE, Rules(), as_draft=True)
    await service.edit(uow, STAFF, hidden.id, {"for_sale": False}, CAUSE)

    for as_draft in (False, True):
        with pytest.raises(Invalid) as refused:
            await orders.place(uow, CUSTOMER, items, CAUSE, Rules(), as_draft=as_draft)
        assert [(each.pointer, each.code) for each in refused.value.faults] == [("/items/1/product_id", "not_for_sale")]
    with pytest.raises(Invalid):
        await orders.place_draft(uow, CUSTOMER, draft.id, CAUSE, Rules())


async def test_what_orders_leave_of_the_stock_is_told_once(uow: MemoryUnitOfWork) -> None:
    mug, pot, pan = await stocked(uow), await stocked(uow), await stocked(uow)
    await orders.place(uow, CUSTOMER, [Quantity(mug.id, 2), Quantity(pot.id, 1)], CAUSE, Rules())
    placed = await orders.place(uow, CUSTOMER, [Quantity(pot.id, 3)], CAUSE, Rules())
    await tell_stock(uow)
    await orders.advance(uow, CUSTOMER, placed.id, Action.CANCEL, CAUSE)
    await tell_stock(uow)
    await tell_stock(uow)

    def stocks(data: ProductsBody) -> dict[UUID, tuple[int, int]]:
        return {each.id: (each.stock, each.version) for each in data.items}

    news = [event for event in uow.outbox.events if event.type == OwnType.STOCK_CHANGED]
    assert [event.subject for event in news] == [PRODUCTS, PRODUCTS]
    assert [stocks(event.data) for event in news] == [{mug.id: (8, 2), pot.id: (6, 3)}, {pot.id: (9, 4)}]
    assert await service.get(uow, pan.id) == pan


async def test_stock_that_somebody_has_told_meanwhile_is_not_told_again(uow: MemoryUnitOfWork) -> None:
    mug, pot = await stocked(uow), await stocked(uow)
    await uow.products.take([Quantity(mug.id, 1), Quantity(pot.id, 1)])
    [both] = await service.claim_untold(uow, timedelta(seconds=1))

    await service.tell_stock(uow, [mug.id], CAUSE)
    await service.tell_stock(uow, both, CAUSE)
    await service.tell_stock(uow, both, CAUSE)

    assert [[each.id for each in event.data.items] for event in uow.outbox.events] == [[mug.id], [pot.id]]


async def test_of_most_that_is_told_at_once_no_event_is_too_long(uow: MemoryUnitOfWork) -> None:
    for number in range(service.MOST_TOLD + 1):
        sku, name = "\x01" * (MAX_SKU_LENGTH - 4) + f"{number:04}", "\x01" * MAX_NAME_LENGTH  # six bytes each in JSON
        product = replace(a_product(sku=sku, stock=MAX_STOCK), name=name, price=MAX_PRICE, tax_rate=WHOLE)
        await uow.products.add(replace(product, for_sale=False, version=2**31 - 2))
    await uow.products.take([Quantity(each, 1) for each in uow.products.rows])

    await tell_stock(uow)

    assert [len(event.data.items) for event in uow.outbox.events] == [service.MOST_TOLD, 1]
    assert max(len(event.encode()) for event in uow.outbox.events) <= MAX_EVENT_BYTES
    assert sorted(each.id for event in uow.outbox.events for each in event.data.items) == sorted(uow.products.rows)
