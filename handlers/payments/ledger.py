"""What becomes of an order's payments as the order goes on. All of it under the order's lock."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from handlers.events import Cause, Event, OwnType
from handlers.ids import new_id
from handlers.orders.model import Order
from handlers.payments.model import BY_HAND, Payment, PaymentStatus, Refund, RefundReason, RefundStatus
from handlers.payments.schemas import PaymentBody
from handlers.ports.domain import UnitOfWork

SOON = timedelta(seconds=5)
"""After which the provider is asked what became of something, where it has not told."""


def new_payment(order: Order, provider: str, cause: Cause) -> Payment:
    return Payment(
        id=new_id(cause.now),
        order_id=order.id,
        provider=provider,
        amount=order.total,
        currency=order.currency,
        status=PaymentStatus.SUCCEEDED if provider == BY_HAND else PaymentStatus.REQUIRES_METHOD,
        version=1,
        created_at=cause.now,
        updated_at=cause.now,
    )


async def collect_by_hand(uow: UnitOfWork, order: Order, cause: Cause, key: str | None = None) -> Payment:
    """Note that staff have collected the total, or that there was nothing to collect, as a request with `key` found."""
    payment = replace(new_payment(order, BY_HAND, cause), attempt_key=key)
    await add(uow, payment, cause)
    return payment


async def let_go(uow: UnitOfWork, order: Order, cause: Cause) -> None:
    """The order waits for no payment any more: what is under way is stopped, or given back where it is too late."""
    await uow.payments.ask_soon(order.id, cause.now)


async def give_back_rest(uow: UnitOfWork, order: Order, cause: Cause) -> int:
    """Of an order that is paid for and is cancelled. Returns how much is given back at once."""
    payment = await uow.payments.current(order.id)
    if payment is None or not payment.refundable:
        return 0
    refund = await give_back(uow, payment, payment.refundable, RefundReason.ORDER_CANCELLED, None, cause)
    return refund.amount if refund.status is RefundStatus.SUCCEEDED else 0


async def give_back(
    uow: UnitOfWork, payment: Payment, amount: int, reason: RefundReason, requested_by: UUID | None, cause: Cause
) -> Refund:
    """By hand it is given back with that; else the provider is asked to."""
    status = RefundStatus.SUCCEEDED if payment.provider == BY_HAND else RefundStatus.PENDING
    refund = Refund(new_id(cause.now), amount, reason, status, requested_by, cause.now)
    ask_at = cause.now if status is RefundStatus.PENDING else None
    await save(uow, replace(payment, refunds=(*payment.refunds, refund), ask_at=ask_at), payment, cause)
    return refund


async def add(uow: UnitOfWork, payment: Payment, cause: Cause) -> None:
    await uow.payments.add(payment)
    await uow.outbox.add(_event(payment, cause))


async def save(uow: UnitOfWork, after: Payment, before: Payment, cause: Cause) -> Payment:
    """`after`, as its next version; nothing is written where it is as before."""
    changed = after.changed_from(before, cause.now)
    if changed.version != before.version:
        await uow.payments.save(changed)
        await uow.outbox.add(_event(changed, cause))
    return changed


def _event(payment: Payment, cause: Cause) -> Event:
    return Event.own(OwnType.PAYMENT_CHANGED, str(payment.order_id), PaymentBody.of(payment), cause)
