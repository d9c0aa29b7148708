from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from handlers.actor import Actor, Role
from handlers.audience import order_channel, orders_feed, personal_channel
from handlers.discounts import service as discounts
from handlers.discounts.model import Discount
from handlers.discounts.schemas import NewDiscount
from handlers.errors import AppError, Forbidden, IllegalTransition, Invalid, NotFound, OutOfStock, VersionMismatch
from handlers.events import Cause, OwnType
from handlers.orders import service
from handlers.orders.lists import OrderFilter, OrderSort
from handlers.orders.model import Action, By, Change, Status
from handlers.orders.schemas import OrderBody
from handlers.payments.model import BY_HAND
from handlers.ports.domain import Position, Quantity
from handlers.rules import Rules
from tests.doubles import CAUSE, NOW, MemoryUnitOfWork, a_product, an_actor

CUSTOMER = an_actor()
STRANGER = an_actor()
STAFF = an_actor(Role.STAFF)
EVERYTHING = OrderFilter()
ADMIN = an_actor(Role.ADMIN)


@pytest.fixture
def uow() -> MemoryUnitOfWork:
    return MemoryUnitOfWork()


async def placed(
    uow: MemoryUnitOfWork, actor: Actor = CUSTOMER, *, quantity: int = 2, unpaid_for: timedelta | None = None
) -> OrderBody:
    product = a_product()
    await uow.products.add(product)
    return await service.place(uow, actor, [Quantity(product.id, quantity)], CAUSE, Rules(unpaid_for=unpaid_for))


async def test_placing_takes_price_and_pieces_of_now_and_tells_it(uow: MemoryUnitOfWork) -> None:
    mug, pot = a_product(price=250, stock=5), a_product(price=1200, stock=1)
    await uow.products.add(mug)
    await uow.products.add(pot)

    order = await service.place(uow, CUSTOMER, [Quantity(mug.id, 3), Quantity(pot.id, 1)], CAUSE, Rules())

    assert (order.status, order.version, order.number, order.total) == (Status.PLACED, 1, 1, 3 * 250 + 1200)
    assert [(line.sku, line.unit_price, line.quantity) for line in order.items] == [
        (mug.sku, 250, 3),
        (pot.sku, 1200, 1),
    ]
    assert (uow.products.rows[mug.id].stock, uow.products.rows[pot.id].stock) == (2, 0)
    assert {order_id: OrderBody.of(row) for order_id, row in uow.orders.rows.items()} == {order.id: order}
    (event,) = uow.outbox.events
    assert (event.type, event.subject, event.recipient) == (OwnType.ORDER_CREATED, str(order.id), CUSTOMER.account_id)
    assert (event.time, event.traceparent) == (NOW, CAUSE.traceparent)
    assert event.data == order


async def test_a_product_named_twice_is_refused_before_anything_is_taken(uow: MemoryUnitOfWork) -> None:
    product = a_product()
    await uow.products.add(product)

    with pytest.raises(Invalid) as refused:
        await service.place(uow, CUSTOMER, [Quantity(product.id, 1), Quantity(product.id, 2)], CAUSE, Rules())

    assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [
        ("/items/1/product_id", "repeated_product")
    ]
    assert uow.products.rows[product.id].stock == product.stock


async def test_an_unknown_product_is_a_fault_of_the_request(uow: MemoryUnitOfWork) -> None:
    with pytest.raises(Invalid) as refused:
        await service.place(uow, CUSTOMER, [Quantity(uuid4(), 1)], CAUSE, Rules())

    assert [fault.pointer for fault in refused.value.faults] == ["/items/0"]


async def test_products_of_two_currencies_are_refused(uow: MemoryUnitOfWork) -> None:
    euro, dollar = a_product(currency="EUR"), a_product(currency="USD")
    await uow.products.add(euro)
    await uow.products.add(dollar)

    with pytest.raises(Invalid) as refused:
        await service.place(uow, CUSTOMER, [Quantity(euro.id, 1), Quantity(dollar.id, 1)], CAUSE, Rules())

    assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [
        ("/items/1/product_id", "other_currency")
    ]


async def test_too_few_pieces_are_a_conflict(uow: MemoryUnitOfWork) -> None:
    product = a_product(stock=1)
    await uow.products.add(product)

    with pytest.raises(OutOfStock):
        await service.place(uow, CUSTOMER, [Quantity(product.id, 2)], CAUSE, Rules())


@pytest.mark.parametrize(
    ("actor", "action", "error"),
    [
        (STRANGER, Action.CANCEL, NotFound),
        (STRANGER, Action.PAY, NotFound),
        (CUSTOMER, Action.PAY, Forbidden),
        (CUSTOMER, Action.PACK, Forbidden),
        (CUSTOMER, Action.SHIP, Forbidden),
        (CUSTOMER, Action.DELIVER, Forbidden),
        (STAFF, Action.PACK, IllegalTransition),
        (STAFF, Action.SHIP, IllegalTransition),
    ],
)
async def test_who_may_not_advance_a_placed_order_changes_nothing(
    uow: MemoryUnitOfWork, actor: Actor, action: Action, error: type[AppError]
) -> None:
    order = await placed(uow)

    with pytest.raises(error):
        await service.advance(uow, actor, order.id, action, CAUSE)

    assert OrderBody.of(uow.orders.rows[order.id]) == order
    assert [event.type for event in uow.outbox.events] == [OwnType.ORDER_CREATED]


async def test_staff_take_an_order_to_its_end_with_an_event_for_each_step(uow: MemoryUnitOfWork) -> None:
    order = await placed(uow)

    for action in (Action.PAY, Action.PACK, Action.SHIP, Action.DELIVER):
        await service.advance(uow, STAFF, order.id, action, CAUSE)

    assert [(event.type, event.data.status, event.data.version) for event in uow.outbox.events] == [
        ("order.created", "placed", 1),
        ("payment.changed", "succeeded", 1),
        ("order.paid", "paid", 2),
        ("order.packed", "packed", 3),
        ("order.shipped", "shipped", 4),
        ("order.delivered", "delivered", 5),
    ]
    told = [event for event in uow.outbox.events if event.type != OwnType.PAYMENT_CHANGED]
    assert {event.recipient for event in told} == {CUSTOMER.account_id}
    assert len({event.id for event in uow.outbox.events}) == 6


async def test_what_a_provider_could_not_collect_staff_may_collect_themselves(uow: MemoryUnitOfWork) -> None:
    order = await placed(uow)
    await service.change(uow, uow.orders.rows[order.id], Action.DECLINE, By.PROVIDER, CAUSE)

    paid = await service.advance(uow, STAFF, order.id, Action.PAY, CAUSE)

    assert paid.status is Status.PAID
    (payment,) = uow.payments.rows.values()
    assert (payment.provider, payment.amount) == (BY_HAND, order.total)


async def test_what_is_given_back_in_part_keeps_its_pieces(uow: MemoryUnitOfWork) -> None:
    order = await placed(uow, quantity=4)
    await service.advance(uow, STAFF, order.id, Action.PAY, CAUSE)

    await service.note_refund(uow, uow.orders.rows[order.id], 1, STAFF, CAUSE)
    kept = [product.stock for product in uow.products.rows.values()]
    await service.note_refund(uow, uow.orders.rows[order.id], order.total - 1, STAFF, CAUSE)

    assert (kept, uow.orders.rows[order.id].status) == ([6], Status.REFUNDED)
    assert [product.stock for product in uow.products.rows.values()] == [10]


async def test_an_order_that_stayed_unpaid_expires_once_and_gives_its_pieces_back(uow: MemoryUnitOfWork) -> None:
    end = NOW + timedelta(hours=1)
    order = await placed(uow, quantity=4, unpaid_for=timedelta(hours=1))
    paid = await placed(uow, unpaid_for=timedelta(hours=1))
    await service.advance(uow, STAFF, paid.id, Action.PAY, CAUSE)

    too_early = await service.expire_next(uow, Cause(end - timedelta(seconds=1)), set())
    in_time = [await service.expire_next(uow, Cause(end), set()) for _ in range(2)]

    assert (too_early, in_time) == (False, [True, False])
    expired = uow.orders.rows[order.id]
    assert (expired.status, expired.version, expired.expires_at) == (Status.EXPIRED, 2, None)
    assert uow.orders.rows[paid.id].status is Status.PAID
    assert sorted(product.stock for product in uow.products.rows.values()) == [8, 10]
    assert [event.type for event in uow.outbox.events if event.subject == str(order.id)] == [
        OwnType.ORDER_CREATED,
        OwnType.ORDER_EXPIRED,
    ]


async def test_the_history_tells_who_did_what_and_customers_not_who_of_the_staff_it_was(uow: MemoryUnitOfWork) -> None:
    order = await placed(uow)
    await service.advance(uow, STAFF, order.id, Action.PAY, CAUSE)
    await service.advance(uow, ADMIN, order.id, Action.CANCEL, CAUSE)

    for_staff = (await service.history(uow, STAFF, order.id, after=0, limit=9)).changes
    for_customer = (await service.history(uow, CUSTOMER, order.id, after=0, limit=9)).changes

    assert list(for_staff) == [
        Change(1, Action.PLACE, Status.PLACED, NOW, By.CUSTOMER, CUSTOMER.account_id),
        Change(2, Action.PAY, Status.PAID, NOW, By.STAFF, STAFF.account_id),
        Change(3, Action.CANCEL, Status.CANCELLED, NOW, By.STAFF, ADMIN.account_id),
    ]
    assert [each.account_id for each in for_customer] == [CUSTOMER.account_id, None, None]
    assert [replace(each, account_id=None) for each in for_staff] == [
        replace(each, account_id=None) for each in for_customer
    ]
    with pytest.raises(NotFound):
        await service.history(uow, STRANGER, order.id, after=0, limit=9)


async def test_who_names_an_older_version_changes_nothing(uow: MemoryUnitOfWork) -> None:
    order = await placed(uow)
    await service.advance(uow, STAFF, order.id, Action.PAY, CAUSE, 1)

    with pytest.raises(VersionMismatch):
        await service.advance(uow, STAFF, order.id, Action.CANCEL, CAUSE, 1)

    assert uow.orders.rows[order.id].status is Status.PAID
    assert (await service.advance(uow, STAFF, order.id, Action.CANCEL, CAUSE, 2)).version == 3


@pytest.mark.parametrize("actor", [CUSTOMER, STAFF, ADMIN])
async def test_cancelling_a_placed_order_gives_the_pieces_back(uow: MemoryUnitOfWork, actor: Actor) -> None:
    order = await placed(uow, quantity=4)

    cancelled = await service.advance(uow, actor, order.id, Action.CANCEL, CAUSE)

    assert (cancelled.status, cancelled.version) == (Status.CANCELLED, 2)
    assert [product.stock for product in uow.products.rows.values()] == [10]


@pytest.mark.parametrize("done", [[Action.PAY], [Action.PAY, Action.PACK]])
async def test_a_paid_order_is_cancelled_by_staff_and_not_by_its_customer(
    uow: MemoryUnitOfWork, done: list[Action]
) -> None:
    order = await placed(uow)
    for action in done:
        await service.advance(uow, STAFF, order.id, action, CAUSE)

    with pytest.raises(IllegalTransition):
        await service.advance(uow, CUSTOMER, order.id, Action.CANCEL, CAUSE)

    assert (await service.advance(uow, STAFF, order.id, Action.CANCEL, CAUSE)).status is Status.CANCELLED


async def test_an_order_comes_with_the_position_of_its_stream(uow: MemoryUnitOfWork) -> None:
    order = await placed(uow)

    snapshot = await service.get(uow, CUSTOMER, order.id)

    assert (OrderBody.of(snapshot.state), snapshot.channel, snapshot.position) == (
        order,
        order_channel(order.id),
        Position(7, "epoch-01.1"),
    )


async def test_an_order_of_others_is_as_unknown_as_none(uow: MemoryUnitOfWork) -> None:
    order = await placed(uow)

    with pytest.raises(NotFound) as of_others:
        await service.get(uow, STRANGER, order.id)
    with pytest.raises(NotFound) as none:
        await service.get(uow, STAFF, uuid4())

    assert of_others.value.args == none.value.args


async def test_customers_page_through_their_own_orders_and_staff_through_all(uow: MemoryUnitOfWork) -> None:
    mine = [(await placed(uow)).id for _ in range(3)]
    other = (await placed(uow, STRANGER)).id

    first = await service.page(uow, CUSTOMER, EVERYTHING, OrderSort.NEWEST, after=None, limit=2)
    second = await service.page(uow, CUSTOMER, EVERYTHING, OrderSort.NEWEST, after=first.state.next, limit=2)
    everything = await service.page(uow, STAFF, EVERYTHING, OrderSort.NEWEST, after=None, limit=4)

    found = [order.id for page in (first, second) for order in page.state.orders]
    assert (found, second.state.next) == (mine[::-1], None)
    assert [order.id for order in everything.state.orders] == [other, *mine[::-1]]
    assert everything.state.next is None
    assert (first.channel, everything.channel) == (personal_channel(CUSTOMER.account_id), orders_feed())


@pytest.mark.parametrize("asked", [CUSTOMER, STRANGER])
async def test_a_customer_who_asks_for_orders_of_somebody_has_their_own(uow: MemoryUnitOfWork, asked: Actor) -> None:
    mine = await placed(uow)
    await placed(uow, STRANGER)
    which = OrderFilter(customer_id=asked.account_id)

    found = await service.page(uow, CUSTOMER, which, OrderSort.NEWEST, after=None, limit=9)
    of_staff = await service.page(uow, STAFF, which, OrderSort.NEWEST, after=None, limit=9)

    assert [order.id for order in found.state.orders] == ([mine.id] if asked == CUSTOMER else [])
    assert [order.customer_id for order in of_staff.state.orders] == [asked.account_id]


@pytest.mark.parametrize(("stock", "taken", "is_told"), [(9, 3, False), (9, 4, True), (9, 9, True), (5, 1, False)])
async def test_staff_are_told_once_that_no_more_than_a_few_are_left(
    uow: MemoryUnitOfWork, stock: int, taken: int, is_told: bool
) -> None:
    product = a_product(stock=stock)
    await uow.products.add(product)

    await service.place(uow, CUSTOMER, [Quantity(product.id, taken)], CAUSE, Rules(low_stock=5))

    told = [event for event in uow.outbox.events if event.type == OwnType.STOCK_LOW]
    assert len(told) == is_told
    for event in told:
        assert (event.subject, event.data.stock, event.recipient) == (str(product.id), stock - taken, None)


async def drafted(uow: MemoryUnitOfWork, *, stock: int = 10, code: str | None = None) -> OrderBody:
    product = a_product(stock=stock)
    await uow.products.add(product)
    items = [Quantity(product.id, 3)]
    return await service.place(uow, CUSTOMER, items, CAUSE, Rules(), discount_code=code, as_draft=True)


async def discounted(uow: MemoryUnitOfWork, code: str, rate: int) -> Discount:
    return await discounts.create(uow, STAFF, NewDiscount(code=code, rate=rate), CAUSE)


async def test_a_draft_takes_nothing_and_says_what_it_would_come_to(uow: MemoryUnitOfWork) -> None:
    spring = await discounted(uow, "SPRING", 1000)
    order = await drafted(uow, stock=1, code="SPRING")

    assert (order.status, order.version, order.expires_at) == (Status.DRAFT, 1, NOW + timedelta(days=30))
    assert (order.subtotal, order.discount, order.total) == (750, 75, 675)
    assert [row.stock for row in uow.products.rows.values()] == [1]
    assert uow.discounts.rows[spring.id] == spring
    event = uow.outbox.events[-1]
    assert (event.type, event.recipient, event.data.status) == ("order.drafted", CUSTOMER.account_id, "draft")
    assert [change.action for change in uow.orders.history[order.id]] == [Action.DRAFT]


async def test_a_draft_is_placed_at_what_holds_then(uow: MemoryUnitOfWork) -> None:
    spring = await discounted(uow, "SPRING", 1000)
    draft = await drafted(uow, code="SPRING")
    (product,) = uow.products.rows.values()
    uow.products.rows[product.id] = replace(product, price=1000, tax_rate=1900)
    later = Cause(NOW + timedelta(days=2))

    order = await service.place_draft(uow, CUSTOMER, draft.id, later, Rules(prices_include_tax=False), 1)

    assert (order.status, order.version, order.number) == (Status.PLACED, 2, draft.number)
    assert (order.created_at, order.expires_at) == (NOW, later.now + timedelta(hours=24))
    assert (order.subtotal, order.discount, order.total) == (3000, 300, 2700 + 513)
    assert uow.products.rows[product.id].stock == 7
    assert uow.discounts.rows[spring.id].uses == 1
    event = uow.outbox.events[-1]
    assert (event.type, event.data) == ("order.created", order)


@pytest.mark.parametrize("who", [STAFF, CUSTOMER])
async def test_staff_place_a_draft_for_its_customer_and_strangers_do_not_see_it(
    uow: MemoryUnitOfWork, who: Actor
) -> None:
    draft = await drafted(uow)

    with pytest.raises(NotFound):
        await service.place_draft(uow, STRANGER, draft.id, CAUSE, Rules())
    order = await service.place_draft(uow, who, draft.id, CAUSE, Rules())

    assert order.customer_id == CUSTOMER.account_id
    with pytest.raises(IllegalTransition):
        await service.place_draft(uow, who, draft.id, CAUSE, Rules())


async def test_a_draft_of_more_than_there_is_stays_one(uow: MemoryUnitOfWork) -> None:
    draft = await drafted(uow, stock=2)

    with pytest.raises(OutOfStock):
        await service.place_draft(uow, CUSTOMER, draft.id, CAUSE, Rules())

    assert OrderBody.of(uow.orders.rows[draft.id]) == draft


async def test_all_of_a_draft_can_be_changed_and_of_an_order_only_where_it_goes(uow: MemoryUnitOfWork) -> None:
    await discounted(uow, "SPRING", 5000)
    draft = await drafted(uow, code="SPRING")
    other = a_product(price=40)
    await uow.products.add(other)
    later = Cause(NOW + timedelta(days=1))

    changes = {"items": [Quantity(other.id, 1)], "discount_code": None, "note": "ring twice"}
    edited = await service.edit(uow, CUSTOMER, draft.id, changes, later, Rules(prices_include_tax=False))
    same = await service.edit(uow, CUSTOMER, draft.id, changes, later, Rules(prices_include_tax=False))

    assert (edited.total, edited.note, edited.version, edited.discount_code) == (40, "ring twice", 2, None)
    assert (draft.tax_included, edited.tax_included) == (True, False)
    assert edited.expires_at == later.now + timedelta(days=30)
    assert same == edited
    assert uow.outbox.events[-1].type == "order.edited"
    await service.place_draft(uow, CUSTOMER, draft.id, later, Rules())
    with pytest.raises(IllegalTransition):
        await service.edit(uow, CUSTOMER, draft.id, changes, later, Rules())
    assert (await service.edit(uow, CUSTOMER, draft.id, {"note": None}, later, Rules())).note is None


async def test_an_order_that_gives_its_pieces_back_gives_its_discount_back(uow: MemoryUnitOfWork) -> None:
    spring = await discounted(uow, "SPRING", 1000)
    product = a_product()
    await uow.products.add(product)
    items = [Quantity(product.id, 1)]

    order = await service.place(uow, CUSTOMER, items, CAUSE, Rules(), discount_code="SPRING")
    assert uow.discounts.rows[spring.id].uses == 1
    await service.advance(uow, CUSTOMER, order.id, Action.CANCEL, CAUSE)

    assert uow.discounts.rows[spring.id].uses == 0


async def test_a_draft_that_is_cancelled_has_nothing_to_give_back(uow: MemoryUnitOfWork) -> None:
    spring = await discounted(uow, "SPRING", 1000)
    draft = await drafted(uow, code="SPRING")

    cancelled = await service.advance(uow, CUSTOMER, draft.id, Action.CANCEL, CAUSE)

    assert (cancelled.status, cancelled.expires_at) == (Status.CANCELLED, None)
    assert [row.stock for row in uow.products.rows.values()] == [10]
    assert uow.discounts.rows[spring.id] == spring
