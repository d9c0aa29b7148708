"""Payments that are under way are asked about until it is known what became of them. Each node looks; who takes one
asks, and if it dies somebody asks again: a provider does the same thing once, however often it is asked to."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import structlog

from handlers.clock import utc_now
from handlers.errors import Unavailable
from handlers.events import Cause
from handlers.looking import keep_looking
from handlers.payments import service
from handlers.payments.model import Payment, PaymentStatus, RefundStatus, Standing
from handlers.ports.payments import PaymentProvider, ProviderAway, Refused
from handlers.work import Work

log = structlog.get_logger(__name__)

INTERVAL = 1.0  # seconds between two looks


class Settling:
    def __init__(self, work: Work, provider: PaymentProvider) -> None:
        self._work = work
        self._provider = provider

    async def run(self) -> None:
        await keep_looking(self.settle, 0.8 * INTERVAL, INTERVAL, "settling_postponed")

    async def settle(self) -> int:
        """Ask about all payments that are due, and return how many this node had. Raises Unavailable."""
        count = 0
        while (due := await self._take()) is not None:
            count += 1
            await self._settle(due)
        return count

    async def _settle(self, payment_id: UUID) -> None:
        try:
            await settle(self._work, self._provider, payment_id, Cause(utc_now()))
        except ProviderAway:
            log.warning("provider_away", payment=str(payment_id))
        except Refused as refused:
            log.warning("payment_refused", payment=str(payment_id), reason=str(refused))
        except Unavailable:
            raise
        except Exception:
            # One payment that cannot be settled, whatever its provider has come up with, keeps no other waiting. It is
            # due again later.
            log.exception("settling_failed", payment=str(payment_id))

    async def _take(self) -> UUID | None:
        return await self._work.write(lambda uow: uow.payments.take_due(self._provider.name, utc_now()))


async def settle(work: Work, provider: PaymentProvider, payment_id: UUID, cause: Cause) -> Payment:
    """Ask how a payment stands, until that is what is known of it.

    Raises ProviderAway, Refused, Unavailable, NotFound.
    """
    while True:
        learnt = await _settle_once(work, provider, payment_id, cause)
        if learnt is not None:
            return learnt


async def _settle_once(work: Work, provider: PaymentProvider, payment_id: UUID, cause: Cause) -> Payment | None:
    payment, is_wanted = await work.look_up(lambda uow: service.under_way(uow, payment_id))
    try:
        standing, refunds = await _ask(provider, payment, is_wanted=is_wanted)
    except Refused:
        await work.write(lambda uow: service.note_refused(uow, payment_id, cause))
        raise
    return await work.write(lambda uow: service.learn(uow, payment, standing, refunds, cause))


async def _ask(
    provider: PaymentProvider, payment: Payment, *, is_wanted: bool
) -> tuple[Standing | None, Mapping[UUID, RefundStatus]]:
    standing = None
    if not payment.status.is_settled:
        standing = await (provider.open(payment) if payment.standing is None else provider.look(payment))
        if not is_wanted and not standing.status.is_settled:
            standing = await provider.cancel(payment.at(standing))
    if payment.status is not PaymentStatus.SUCCEEDED:
        return standing, {}
    known = await provider.refunds(payment) if payment.refunds else {}
    made = {each.id: await provider.refund(payment, each) for each in payment.pending_refunds if each.id not in known}
    return standing, {**known, **made}
