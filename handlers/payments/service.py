"""The use cases of payments. What a provider has to be asked for is between two of them, in no transaction:
`handlers.payments.commands` and `handlers.payments.settling` do that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

from handlers.actor import Actor
from handlers.audience import order_channel
from handlers.errors import Fault, NotFound, NotPayable, NotRefundable
from handlers.events import Cause
from handlers.orders import service as orders
from handlers.orders.model import UNPAID, Action, By, Order
from handlers.payments import ledger
from handlers.payments.model import (
    BY_HAND,
    Payment,
    PaymentStatus,
    Refund,
    RefundReason,
    RefundStatus,
    Standing,
)
from handlers.ports.domain import Snapshot, UnitOfWork


async def get(uow: UnitOfWork, actor: Actor, order_id: UUID) -> tuple[Snapshot[Payment], bool]:
    """Of an order, with whether it is the actor's own. Raises NotFound, also while there is none."""
    channel = order_channel(order_id)
    found = await uow.orders.get_with(channel, order_id)
    order = orders.visible(found.state, actor)
    payment = await uow.payments.current(order_id)
    if payment is None:
        raise NotFound
    return Snapshot(payment, channel, found.position), order.customer_id == actor.account_id


async def begin(
    uow: UnitOfWork, actor: Actor, order_id: UUID, provider: str, method: str | None, key: str | None, cause: Cause
) -> Payment:
    """Make ready to collect an order's total; with a method it is about to be tried. What `key` has begun to try, it
    goes on with.

    Raises NotFound, and NotPayable for an order that is paid for or over, or while something is tried.
    """
    order = orders.visible(await uow.orders.lock(order_id), actor)
    current = await uow.payments.current(order.id)
    is_wanted = order.status in UNPAID
    is_same = current is not None and key is not None and current.attempt_key == key
    if current is not None and is_same and _goes_on(current, is_wanted=is_wanted):
        return current
    if not is_wanted:
        raise NotPayable(f"An order that is {order.status} is not to be paid for.")
    if order.total == 0:
        await orders.change(uow, order, Action.PAY, By.PROVIDER, cause)
        return await ledger.collect_by_hand(uow, order, cause, key)
    is_new = current is None or current.status is PaymentStatus.CANCELLED or current.provider != provider
    payment = ledger.new_payment(order, provider, cause) if current is None or is_new else current
    if payment.status is PaymentStatus.PROCESSING:
        raise NotPayable("A payment of this order is under way.")
    begun = replace(payment, ask_at=cause.now + ledger.SOON)
    if method is not None:
        begun = replace(begun, status=PaymentStatus.PROCESSING, attempts=payment.attempts + 1, attempt_key=key)
    if is_new:
        await ledger.add(uow, begun, cause)
        return begun
    begun = await ledger.save(uow, begun, payment, cause)
    await uow.payments.ask_soon(order.id, cause.now + ledger.SOON)
    return begun


async def note_opened(uow: UnitOfWork, known: Payment, standing: Standing, cause: Cause) -> Payment:
    """The provider knows of it, and has collected nothing. What is about to be tried is still about to be."""
    await uow.orders.lock(known.order_id)
    before = await uow.payments.get(known.id)
    if before is None or before.standing is not None:
        return before or known
    return await ledger.save(uow, replace(before, standing=standing), before, cause)


async def note_untried(uow: UnitOfWork, known: Payment, cause: Cause) -> None:
    """The provider could not be told of it, so there was nothing to try a method on: the next try need not wait."""
    await uow.orders.lock(known.order_id)
    before = await uow.payments.get(known.id)
    if before is not None and before.version == known.version:
        await ledger.save(uow, replace(before, status=PaymentStatus.REQUIRES_METHOD), before, cause)


async def note_refused(uow: UnitOfWork, payment_id: UUID, cause: Cause) -> None:
    """The provider will not even open it, so nothing was and nothing will be collected."""
    known = await uow.payments.get(payment_id)
    if known is None:
        return
    await uow.orders.lock(known.order_id)
    before = await uow.payments.get(payment_id)
    if before is not None and before.standing is None and not before.status.is_settled:
        await ledger.save(uow, replace(before, status=PaymentStatus.CANCELLED, ask_at=None), before, cause)


async def under_way(uow: UnitOfWork, payment_id: UUID) -> tuple[Payment, bool]:
    """With whether its order waits for it. Raises NotFound."""
    payment = await uow.payments.get(payment_id)
    if payment is None:
        raise NotFound
    return payment, await _is_wanted(uow, payment, await uow.orders.get(payment.order_id))


async def learn(
    uow: UnitOfWork,
    known: Payment,
    standing: Standing | None,
    refunds: Mapping[UUID, RefundStatus],
    cause: Cause,
) -> Payment | None:
    """What the provider has told, asked for a payment that was `known`; the order goes on with it. None where the
    payment has changed meanwhile: then who knows which is newer has to ask again.
    """
    order = await uow.orders.lock(known.order_id)
    before = await uow.payments.get(known.id)
    if order is None or before is None or before.version != known.version:
        return None
    is_wanted = await _is_wanted(uow, before, order)
    after = before.told(standing, refunds, cause.now)
    is_over = after.status.is_settled and not after.pending_refunds
    after = await ledger.save(uow, replace(after, ask_at=None if is_over else cause.now + ledger.SOON), before, cause)
    if is_over:
        await uow.payments.ask_no_more(after.id)
    if after.status is PaymentStatus.SUCCEEDED and before.status is not PaymentStatus.SUCCEEDED:
        if is_wanted:
            await orders.change(uow, order, Action.PAY, By.PROVIDER, cause)
        else:
            await ledger.give_back(uow, after, after.refundable, RefundReason.PAID_TOO_LATE, None, cause)
    elif is_wanted and _is_newly_declined(before, after):
        await orders.change(uow, order, Action.DECLINE, By.PROVIDER, cause)
    if done := _newly(before, after, RefundStatus.PENDING, RefundStatus.SUCCEEDED):
        order = await orders.note_refund(uow, order, done, By.PROVIDER, cause)
    if len(after.failed_refunds) > len(before.failed_refunds):
        lost = _newly(before, after, RefundStatus.SUCCEEDED, RefundStatus.FAILED)
        await orders.note_failed_refund(uow, order, lost, cause)
    return await uow.payments.get(known.id)


async def refund(
    uow: UnitOfWork, actor: Actor, order_id: UUID, amount: int | None, provider: str | None, cause: Cause
) -> Refund:
    """Give back what was paid for an order, or so much of it.

    Raises Forbidden for customers, NotFound, and NotRefundable for more than is left of what was paid, or what another
    provider than this has collected.
    """
    actor.require_staff()
    order = orders.visible(await uow.orders.lock(order_id), actor)
    payment = await uow.payments.current(order.id)
    left = 0 if payment is None else payment.refundable
    if payment is None or left == 0:
        raise NotRefundable("There is nothing left of it to give back.")
    if payment.provider not in {BY_HAND, provider}:
        raise NotRefundable(f"It was collected by {payment.provider}, who is not asked any more: give it back there.")
    if amount is not None and amount > left:
        detail = f"{left} is left to give back"
        raise NotRefundable(f"{detail}.", faults=[Fault("/amount", NotRefundable.code, detail)])
    asked = await ledger.give_back(
        uow, payment, left if amount is None else amount, RefundReason.REQUESTED, actor.account_id, cause
    )
    if asked.status is RefundStatus.SUCCEEDED:
        await orders.note_refund(uow, order, asked.amount, actor, cause)
    return asked


def _goes_on(payment: Payment, *, is_wanted: bool) -> bool:
    """Does the same request go on with it? With what is collected in any case, with what is under way while the order
    waits for it, and not with what will never be collected."""
    if payment.status.is_settled:
        return payment.status is PaymentStatus.SUCCEEDED
    return is_wanted


async def _is_wanted(uow: UnitOfWork, payment: Payment, order: Order | None) -> bool:
    """Does the order wait for this payment?"""
    if order is None or order.status not in UNPAID:
        return False
    current = await uow.payments.current(order.id)
    return current is not None and current.id == payment.id


def _is_newly_declined(before: Payment, after: Payment) -> bool:
    decline = None if after.standing is None else after.standing.decline
    known = None if before.standing is None else before.standing.decline
    return decline is not None and (known is None or known.attempt != decline.attempt)


def _newly(before: Payment, after: Payment, was: RefundStatus, now: RefundStatus) -> int:
    """How much of what the order was paid with is in refunds that were so and are so now."""
    some = {each.id for each in before.refunds if each.status is was and each.reason is not RefundReason.PAID_TOO_LATE}
    return sum(each.amount for each in after.refunds if each.id in some and each.status is now)
