from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from uuid import UUID

import pytest

from handlers.actor import Role
from handlers.errors import NotPayable, NotRefundable
from handlers.events import OwnType
from handlers.orders import service as orders
from handlers.orders.model import Action, Status
from handlers.orders.schemas import OrderBody
from handlers.payments import service
from handlers.payments.model import BY_HAND, Decline, Payment, PaymentStatus, RefundReason, RefundStatus, Standing
from handlers.ports.domain import Quantity
from handlers.rules import Rules
from tests.doubles import CAUSE, NOW, MemoryUnitOfWork, a_product, an_actor

CUSTOMER = an_actor()
STAFF = an_actor(Role.STAFF)
SUCCEEDED = Standing("r-1", PaymentStatus.SUCCEEDED)


@pytest.fixture
def uow() -> MemoryUnitOfWork:
    return MemoryUnitOfWork()


@pytest.fixture
async def order(uow: MemoryUnitOfWork) -> OrderBody:
    product = a_product()
    await uow.products.add(product)
    return await orders.place(uow, CUSTOMER, [Quantity(product.id, 2)], CAUSE, Rules())


async def begun(
    uow: MemoryUnitOfWork, order: OrderBody, method: str | None = "card", *, at: str = "bank", key: str | None = None
) -> Payment:
    return await service.begin(uow, CUSTOMER, order.id, at, method, key, CAUSE)


async def learnt(
    uow: MemoryUnitOfWork,
    payment: Payment,
    standing: Standing | None,
    refunds: dict[UUID, RefundStatus] | None = None,
) -> Payment:
    found = await service.learn(uow, uow.payments.rows[payment.id], standing, refunds or {}, CAUSE)
    assert found is not None
    return found


async def test_what_the_provider_would_not_open_is_begun_anew(uow: MemoryUnitOfWork, order: OrderBody) -> None:
    refused = await begun(uow, order)
    await service.note_refused(uow, refused.id, CAUSE)

    again = await begun(uow, order)

    assert again.id != refused.id
    assert (again.status, again.attempts) == (PaymentStatus.PROCESSING, 1)
    assert (uow.payments.rows[refused.id].status, uow.payments.rows[refused.id].ask_at) == (
        PaymentStatus.CANCELLED,
        None,
    )


async def test_what_another_provider_was_to_collect_is_begun_anew(uow: MemoryUnitOfWork, order: OrderBody) -> None:
    earlier = await begun(uow, order, at="another bank", method=None)

    now = await begun(uow, order, at="bank")

    assert now.id != earlier.id
    assert (now.provider, uow.payments.rows[earlier.id].provider) == ("bank", "another bank")


async def test_what_is_made_ready_is_gone_on_with_and_nothing_is_tried_twice_at_once(
    uow: MemoryUnitOfWork, order: OrderBody
) -> None:
    ready = await begun(uow, order, method=None)
    tried = await begun(uow, order)

    assert (tried.id, tried.status, tried.attempts) == (ready.id, PaymentStatus.PROCESSING, 1)
    with pytest.raises(NotPayable):
        await begun(uow, order)


async def test_only_what_the_same_key_has_begun_is_gone_on_with(uow: MemoryUnitOfWork, order: OrderBody) -> None:
    first = await begun(uow, order, key="k")

    assert await begun(uow, order, key="k") == first
    with pytest.raises(NotPayable):
        await begun(uow, order, key="another")


async def test_what_was_collected_pays_the_order_once(uow: MemoryUnitOfWork, order: OrderBody) -> None:
    payment = await learnt(uow, await begun(uow, order), SUCCEEDED)
    same = await learnt(uow, payment, None)

    assert same == payment
    assert uow.orders.rows[order.id].status is Status.PAID
    told = [event.type for event in uow.outbox.events]
    assert told.count(OwnType.ORDER_PAID) == 1


async def test_what_is_known_of_an_older_version_has_to_be_asked_again(uow: MemoryUnitOfWork, order: OrderBody) -> None:
    older = await begun(uow, order)
    await learnt(uow, older, Standing("r-1", PaymentStatus.REQUIRES_ACTION))

    assert await service.learn(uow, older, SUCCEEDED, {}, CAUSE) is None
    assert uow.orders.rows[order.id].status is Status.PLACED


async def test_a_decline_is_told_once_however_often_the_provider_tells_it(
    uow: MemoryUnitOfWork, order: OrderBody
) -> None:
    declined = Standing("r-1", PaymentStatus.REQUIRES_METHOD, decline=Decline("1", "card_declined", "No."))
    payment = await learnt(uow, await begun(uow, order), declined)
    payment = await learnt(uow, payment, replace(declined, client_secret="s"))

    assert [event.type for event in uow.outbox.events].count(OwnType.ORDER_PAYMENT_FAILED) == 1
    await learnt(uow, payment, replace(declined, decline=Decline("2", "card_declined", "No.")))
    assert [event.type for event in uow.outbox.events].count(OwnType.ORDER_PAYMENT_FAILED) == 2


async def test_what_comes_from_where_it_is_waited_for_no_more_goes_back(
    uow: MemoryUnitOfWork, order: OrderBody
) -> None:
    earlier = await begun(uow, order, at="another bank", method=None)
    await begun(uow, order, at="bank")

    earlier = await learnt(uow, earlier, SUCCEEDED)

    assert [refund.reason for refund in earlier.refunds] == [RefundReason.PAID_TOO_LATE]
    assert uow.orders.rows[order.id].status is Status.PLACED


async def test_what_comes_for_an_order_that_is_paid_by_hand_goes_back_and_is_no_refund_of_the_order(
    uow: MemoryUnitOfWork, order: OrderBody
) -> None:
    late = await begun(uow, order)
    await orders.advance(uow, STAFF, order.id, Action.PAY, CAUSE)

    late = await learnt(uow, late, SUCCEEDED)

    (refund,) = late.refunds
    assert (refund.amount, refund.reason, refund.status) == (
        order.total,
        RefundReason.PAID_TOO_LATE,
        RefundStatus.PENDING,
    )
    late = await learnt(uow, late, None, {refund.id: RefundStatus.PENDING})
    assert late.ask_at is not None
    done = await learnt(uow, late, None, {refund.id: RefundStatus.SUCCEEDED})
    assert (done.refundable, done.ask_at) == (0, None)
    paid = uow.orders.rows[order.id]
    assert (paid.status, paid.refunded) == (Status.PAID, 0)


async def test_a_decline_is_nothing_to_an_order_that_is_over(uow: MemoryUnitOfWork, order: OrderBody) -> None:
    payment = await begun(uow, order)
    await orders.advance(uow, CUSTOMER, order.id, Action.CANCEL, CAUSE)
    assert uow.payments.rows[payment.id].ask_at == NOW  # the provider has to know at once
    declined = Standing("r-1", PaymentStatus.CANCELLED, decline=Decline("1", "card_declined", "No."))

    payment = await learnt(uow, payment, declined)

    assert (payment.status, payment.ask_at) == (PaymentStatus.CANCELLED, None)
    assert uow.orders.rows[order.id].status is Status.CANCELLED


@pytest.mark.parametrize("provider", [None, "another bank"])
async def test_only_who_has_collected_is_asked_to_give_back(
    uow: MemoryUnitOfWork, order: OrderBody, provider: str | None
) -> None:
    payment = await learnt(uow, await begun(uow, order), SUCCEEDED)

    with pytest.raises(NotRefundable):
        await service.refund(uow, STAFF, order.id, 1, provider, CAUSE)

    assert uow.payments.rows[payment.id].refunds == ()


async def test_an_order_that_is_cancelled_gives_all_back_once(uow: MemoryUnitOfWork, order: OrderBody) -> None:
    await orders.advance(uow, STAFF, order.id, Action.PAY, CAUSE)
    await service.refund(uow, STAFF, order.id, 100, "bank", CAUSE)

    cancelled = await orders.advance(uow, STAFF, order.id, Action.CANCEL, CAUSE)

    (payment,) = uow.payments.rows.values()
    assert [refund.amount for refund in payment.refunds] == [100, order.total - 100]
    assert (payment.provider, payment.refundable, cancelled.refunded) == (BY_HAND, 0, order.total)


async def test_a_refund_that_failed_can_be_asked_for_again(uow: MemoryUnitOfWork, order: OrderBody) -> None:
    payment = await learnt(uow, await begun(uow, order), SUCCEEDED)
    failed = await service.refund(uow, STAFF, order.id, None, "bank", CAUSE)
    payment = await learnt(uow, payment, None, {failed.id: RefundStatus.FAILED})
    assert (payment.refundable, uow.orders.rows[order.id].refunded) == (order.total, 0)

    again = await service.refund(uow, STAFF, order.id, None, "bank", CAUSE)
    await learnt(uow, payment, None, {again.id: RefundStatus.SUCCEEDED})

    assert (uow.orders.rows[order.id].status, uow.orders.rows[order.id].refunded) == (Status.REFUNDED, order.total)


async def test_what_was_learnt_meanwhile_is_not_forgotten_when_it_is_noted_as_opened(
    uow: MemoryUnitOfWork, order: OrderBody
) -> None:
    known = await begun(uow, order)
    paid = await learnt(uow, known, SUCCEEDED)

    noted = await service.note_opened(uow, known, Standing("r-1", PaymentStatus.REQUIRES_METHOD), CAUSE)

    assert noted == paid == uow.payments.rows[known.id]


async def test_what_the_provider_knows_of_is_not_given_up_when_it_refuses_something(
    uow: MemoryUnitOfWork, order: OrderBody
) -> None:
    known = await learnt(uow, await begun(uow, order), Standing("r-1", PaymentStatus.REQUIRES_ACTION))

    await service.note_refused(uow, known.id, CAUSE)

    assert uow.payments.rows[known.id] == known


async def test_a_payment_is_changed_under_the_lock_of_its_order(uow: MemoryUnitOfWork, order: OrderBody) -> None:
    changes: list[str] = []

    class Recorder:
        def __init__(self, of: object) -> None:
            self._of = of

        def __getattr__(self, method: str) -> object:
            if method in {"lock", "save"}:
                changes.append(method)
            return getattr(self._of, method)

    async def changed(change: Awaitable[object]) -> list[str]:
        changes.clear()
        await change
        return changes[: changes.index("save")]

    first, second = await begun(uow, order, method=None), await begun(uow, order, at="another bank", method=None)
    orders_alone, uow.orders = uow.orders, Recorder(uow.orders)  # type: ignore[assignment]
    uow.payments = Recorder(uow.payments)  # type: ignore[assignment]

    assert await changed(service.note_refused(uow, first.id, CAUSE)) == ["lock"]
    assert await changed(service.note_opened(uow, second, Standing("r-1", PaymentStatus.PROCESSING), CAUSE)) == ["lock"]
    assert await changed(begun(uow, order, at="another bank")) == ["lock"]
    assert await changed(learnt(uow, second, SUCCEEDED)) == ["lock"]
    assert orders_alone.rows[order.id].status is Status.PAID
    assert await changed(service.refund(uow, STAFF, order.id, 1, "another bank", CAUSE)) == ["lock"]
