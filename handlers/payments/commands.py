"""The commands of payments: parameters -> service, and the provider in between -> result."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import structlog

from handlers.commands import Caller, command
from handlers.errors import Fault, Invalid, KeyReused, NotPayable, Unavailable
from handlers.idempotency import Claim, Reply, answer_once, answered
from handlers.payments import service
from handlers.payments.model import Payment
from handlers.payments.schemas import (
    LivePaymentBody,
    OwnPaymentBody,
    PayOrder,
    PayOrderRequest,
    RefundBody,
    RefundOrder,
    RefundOrderRequest,
)
from handlers.payments.settling import settle
from handlers.ports.domain import UnitOfWork
from handlers.ports.payments import PaymentProvider, ProviderAway, Refused
from handlers.schemas import Body, ById

log = structlog.get_logger(__name__)


async def pay(caller: Caller, order: PayOrder) -> Reply:
    if caller.provider is None:
        raise NotPayable("There is no payment provider here.")
    body = PayOrderRequest(method=order.method, return_url=order.return_url)
    claim = _claim(caller, order.idempotency_key, order.id, "payment", body)
    return await caller.work.finish(_Collecting(caller, caller.provider, order, claim).run)


async def get(caller: Caller, which: ById) -> LivePaymentBody:
    snapshot, is_owner = await caller.look_up(lambda uow: service.get(uow, caller.actor, which.id))
    return LivePaymentBody.at(snapshot, is_owner=is_owner)


async def refund(caller: Caller, order: RefundOrder) -> Reply:
    body = RefundOrderRequest(amount=order.amount)
    claim = _claim(caller, order.idempotency_key, order.id, "refunds", body)

    async def ask_for_it(uow: UnitOfWork) -> Reply:
        provider = None if caller.provider is None else caller.provider.name
        asked = await service.refund(uow, caller.actor, order.id, order.amount, provider, caller.cause)
        return Reply(201, RefundBody.of(asked).encode())

    return await caller.work.write(lambda uow: answer_once(uow, claim, ask_for_it))


COMMANDS = (
    command("payments.pay", PayOrder, pay),
    command("payments.get", ById, get),
    command("payments.refund", RefundOrder, refund),
)


@dataclass(frozen=True, slots=True)
class _Collecting:
    """Of an order's total, in several transactions with the provider in between. Whoever dies in it leaves a payment
    that says where it was, and is asked about later."""

    caller: Caller
    provider: PaymentProvider
    order: PayOrder
    claim: Claim | None

    async def run(self) -> Reply:
        """Raises what `service.begin` does, KeyReused, KeyInFlight, Invalid for a method that the provider does not
        know, Unavailable."""
        begun = await self.caller.work.write(self._begin)
        if isinstance(begun, Reply):
            return begun
        payment = await self._opened(begun)
        if self.order.method is not None and not payment.status.is_settled:
            await self._try(payment, self.order.method)
        return await self.caller.work.write(lambda uow: self._tell(uow, payment))

    async def _begin(self, uow: UnitOfWork) -> Reply | Payment:
        if (known := await answered(uow, self.claim)) is not None:
            return known
        attempt = None if self.claim is None else self.claim.text
        return await service.begin(
            uow, self.caller.actor, self.order.id, self.provider.name, self.order.method, attempt, self.caller.cause
        )

    async def _opened(self, payment: Payment) -> Payment:
        """Kept before anything is tried, so that there is something to ask about."""
        if payment.standing is not None or payment.status.is_settled:
            return payment
        try:
            standing = await self.provider.open(payment)
        except ProviderAway as away:
            await self.caller.work.write(lambda uow: service.note_untried(uow, payment, self.caller.cause))
            raise Unavailable("The payment provider is away; nothing was collected.") from away
        except Refused as refused:
            await self.caller.work.write(lambda uow: service.note_refused(uow, payment.id, self.caller.cause))
            raise NotPayable(str(refused)) from None
        return await self.caller.work.write(lambda uow: service.note_opened(uow, payment, standing, self.caller.cause))

    async def _try(self, payment: Payment, method: str) -> None:
        """What became of it is known afterwards, or is being asked about."""
        work, cause = self.caller.work, self.caller.cause
        try:
            standing = await self.provider.confirm(payment, method, self.order.return_url)
            if await work.write(lambda uow: service.learn(uow, payment, standing, {}, cause)) is None:
                await settle(work, self.provider, payment.id, cause)
        except ProviderAway:
            log.warning("payment_unknown", payment=str(payment.id))
        except Refused as refused:
            with suppress(ProviderAway):
                await settle(work, self.provider, payment.id, cause)
            raise Invalid(str(refused), faults=[Fault("/method", "unknown_method", str(refused))]) from None

    async def _tell(self, uow: UnitOfWork, payment: Payment) -> Reply:
        async def tell(uow: UnitOfWork) -> Reply:
            after = await uow.payments.get(payment.id) or payment
            is_owner = await uow.orders.owner_of(after.order_id) == self.caller.actor.account_id
            return Reply(200, OwnPaymentBody.own(after, is_owner=is_owner).encode())

        try:
            return await answer_once(uow, self.claim, tell)
        except KeyReused:  # by another request meanwhile; what has come of this one is told all the same
            return await tell(uow)


def _claim(caller: Caller, key: str | None, order_id: UUID, what: str, body: Body) -> Claim | None:
    return Claim.of(caller.actor.account_id, key, f"/api/v1/orders/{order_id}/{what}", body.encode())
