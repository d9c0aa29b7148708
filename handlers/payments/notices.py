"""What a provider tells by itself. It is the reason to ask, no more: so it may come late, twice and in any order."""

from __future__ import annotations

import structlog

from handlers.clock import utc_now
from handlers.events import Cause
from handlers.payments.settling import settle
from handlers.ports.payments import ForgedNotice, PaymentProvider, ProviderAway
from handlers.work import Work

log = structlog.get_logger(__name__)


async def receive(work: Work, provider: PaymentProvider, body: bytes, signature: str) -> None:
    """Once this returns, the provider is asked about what it tells of, by whoever lives. Raises ForgedNotice,
    Unavailable."""
    if not signature.isascii():
        raise ForgedNotice("A signature is ASCII.")
    reference = provider.notice(body, signature)
    if reference is None:
        return
    now = utc_now()
    payment_id = await work.write(lambda uow: uow.payments.ask_about(provider.name, reference, now))
    if payment_id is None:
        log.info("notice_of_nothing_known", reference=reference)
        return
    try:
        await settle(work, provider, payment_id, Cause(now))
    except ProviderAway:
        log.warning("provider_away", payment=str(payment_id))
