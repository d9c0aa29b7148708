"""Payments by Stripe, through its own library. A payment is a payment intent; all requests that change something have
idempotency keys made of our ids, so that whoever repeats one repeats nothing.

Source: Stripe's API reference (payment intents, refunds, idempotent requests) and its guide to webhooks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import aiohttp
import orjson
import structlog

from handlers.payments.model import Decline, Payment, PaymentStatus, Refund, RefundStatus, Standing
from handlers.ports.payments import ForgedNotice, ProviderAway, Refused

if TYPE_CHECKING:
    import stripe

log = structlog.get_logger(__name__)

NAME: Final = "stripe"
TIMEOUT: Final = 10.0  # seconds; what takes longer is asked about
TOLERANCE: Final = 300  # seconds for which a signature is good; Stripe signs anew what it sends again

_PAYMENT: Final = "orderwire_payment"
_ORDER: Final = "orderwire_order"
_REFUND: Final = "orderwire_refund"
_STATUSES: Final[Mapping[str, PaymentStatus]] = {
    "requires_payment_method": PaymentStatus.REQUIRES_METHOD,
    "requires_confirmation": PaymentStatus.REQUIRES_METHOD,
    "requires_action": PaymentStatus.REQUIRES_ACTION,
    "processing": PaymentStatus.PROCESSING,
    "requires_capture": PaymentStatus.PROCESSING,
    "succeeded": PaymentStatus.SUCCEEDED,
    "canceled": PaymentStatus.CANCELLED,
}
_REFUND_STATUSES: Final[Mapping[str, RefundStatus]] = {
    "succeeded": RefundStatus.SUCCEEDED,
    "failed": RefundStatus.FAILED,
    "canceled": RefundStatus.FAILED,
}
_UNKNOWN: Final = "resource_missing"
_NOT_NOW: Final = "payment_intent_unexpected_state"


@dataclass(frozen=True, slots=True)
class StripeOptions:
    """`api_base` is where Stripe's API is, unless it is where it always is."""

    secret_key: str = field(repr=False)
    webhook_secret: str = field(repr=False)
    api_base: str = ""


class StripeProvider:
    """Raises ProviderAway also for what Stripe refuses to us as such: then the configuration has to be mended, and
    nothing is known of the payment until it is."""

    name = NAME

    def __init__(self, client: stripe.StripeClient, webhook_secret: str) -> None:
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds
        self._webhook_secret = webhook_secret

    async def open(self, payment: Payment) -> Standing:
        import stripe

        try:
            with _answering():
                intent = await self._intents.create_async(
                    {
                        "amount": payment.amount,
                        "currency": payment.currency.lower(),
                        "automatic_payment_methods": {"enabled": True},
                        "metadata": {_PAYMENT: str(payment.id), _ORDER: str(payment.order_id)},
                    },
                    {"idempotency_key": f"open-{payment.id}"},
                )
        except stripe.InvalidRequestError as refused:
            raise Refused(refused.user_message or "Stripe does not collect this.") from None
        # The answer to a repeated request is the first one, whatever has happened since.
        return await self._look(intent.id)

    async def confirm(self, payment: Payment, method: str, return_url: str | None) -> Standing:
        import stripe

        reference = _reference(payment)
        params: stripe.params.PaymentIntentConfirmParams = {"payment_method": method}
        if return_url is not None:
            params["return_url"] = return_url
        try:
            with _answering():
                await self._intents.confirm_async(
                    reference, params, {"idempotency_key": f"confirm-{payment.id}-{payment.attempts}"}
                )
        except stripe.CardError:
            pass  # the intent tells of it
        except stripe.InvalidRequestError as refused:
            if refused.code != _NOT_NOW:
                raise Refused(refused.user_message or "Stripe does not know this payment method.") from None
        return await self._look(reference)

    async def look(self, payment: Payment) -> Standing:
        return await self._look(_reference(payment))

    async def cancel(self, payment: Payment) -> Standing:
        import stripe

        reference = _reference(payment)
        try:
            with _answering():
                await self._intents.cancel_async(reference, {"cancellation_reason": "abandoned"})
        except stripe.InvalidRequestError:
            log.info("payment_not_cancelled", reference=reference)
        return await self._look(reference)

    async def refund(self, payment: Payment, refund: Refund) -> RefundStatus:
        import stripe

        reference = _reference(payment)
        # Not by its idempotency key alone: that repeats the first answer, and is forgotten after a while.
        known = await self._known_refunds(reference)
        if str(refund.id) in known:
            return known[str(refund.id)]
        try:
            with _answering():
                made = await self._refunds.create_async(
                    {"payment_intent": reference, "amount": refund.amount, "metadata": {_REFUND: str(refund.id)}},
                    {"idempotency_key": f"refund-{refund.id}"},
                )
        except stripe.InvalidRequestError as refused:
            if refused.code == _UNKNOWN:
                raise _unknown_to_stripe(reference) from refused
            log.warning("refund_refused", reference=reference, refund=str(refund.id), code=refused.code)
            return RefundStatus.FAILED
        return _refund_status(made.status)

    async def refunds(self, payment: Payment) -> Mapping[UUID, RefundStatus]:
        known = await self._known_refunds(_reference(payment))
        return {each.id: known[str(each.id)] for each in payment.refunds if str(each.id) in known}

    def notice(self, body: bytes, signature: str) -> str | None:
        import stripe

        try:
            stripe.WebhookSignature.verify_header(body.decode(), signature, self._webhook_secret, TOLERANCE)
        except (stripe.SignatureVerificationError, ValueError):
            raise ForgedNotice("Stripe has not signed this, or not in the last minutes.") from None
        try:
            about: Mapping[str, Any] = orjson.loads(body)["data"]["object"]
            reference = about["id"] if about["object"] == "payment_intent" else about.get("payment_intent")
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return None
        if about["object"] == "refund" and about.get("status") in {"failed", "canceled"}:
            log.error("refund_failed", refund=about.get("id"), reference=reference)  # it may have succeeded before
        return reference if isinstance(reference, str) else None

    async def _look(self, reference: str) -> Standing:
        import stripe

        try:
            with _answering():
                return _standing(await self._intents.retrieve_async(reference))
        except stripe.InvalidRequestError as unknown:
            raise _unknown_to_stripe(reference) from unknown

    async def _known_refunds(self, reference: str) -> Mapping[str, RefundStatus]:
        """By our ids, for those that we have asked for; of two with one id the newer."""
        import stripe

        known: dict[str, RefundStatus] = {}
        try:
            with _answering():
                listed = await self._refunds.list_async({"payment_intent": reference, "limit": 100})
                async for each in listed.auto_paging_iter():
                    metadata = {} if each.metadata is None else each.metadata.to_dict()
                    if _REFUND in metadata:
                        known.setdefault(metadata[_REFUND], _refund_status(each.status))
        except stripe.InvalidRequestError as unknown:
            raise _unknown_to_stripe(reference) from unknown
        return known


@asynccontextmanager
async def open_stripe(options: StripeOptions) -> AsyncIterator[StripeProvider]:
    """Imports Stripe's library, which takes most of a second; so who does without it is not kept waiting."""
    import stripe

    stripe.enable_telemetry = False  # which would keep a file in the home folder
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session:
        client = stripe.StripeClient(
            options.secret_key,
            http_client=stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=TIMEOUT), session=session),
            base_addresses={"api": options.api_base} if options.api_base else {},
            max_network_retries=1,
        )
        yield StripeProvider(client, options.webhook_secret)


@contextmanager
def _answering() -> Iterator[None]:
    """What Stripe says of a request goes on; where it says nothing, or nothing of the request, nobody knows."""
    import stripe

    try:
        yield
    except (stripe.CardError, stripe.InvalidRequestError):
        raise
    except stripe.StripeError as away:
        log.warning("stripe_away", error=type(away).__name__, code=away.code, request=away.request_id)
        raise ProviderAway from away
    except (aiohttp.ClientError, OSError) as broken:  # in the middle of an answer, which the library lets through
        log.warning("stripe_away", error=type(broken).__name__)
        raise ProviderAway from broken


def _unknown_to_stripe(reference: str) -> ProviderAway:
    log.error("payment_unknown_to_stripe", reference=reference)
    return ProviderAway()


def _reference(payment: Payment) -> str:
    if payment.standing is None:
        raise ProviderAway  # it was never opened here
    return payment.standing.reference


def _standing(intent: stripe.PaymentIntent) -> Standing:
    told = intent.to_dict()  # what is not there is no attribute
    redirect = (told.get("next_action") or {}).get("redirect_to_url") or {}
    error = told.get("last_payment_error")
    return Standing(
        intent.id,
        _STATUSES.get(intent.status, PaymentStatus.PROCESSING),  # what is new to us is not settled
        intent.client_secret,
        redirect.get("url"),
        None if error is None else _decline(error),
    )


def _decline(error: Mapping[str, Any]) -> Decline:
    code = error.get("decline_code") or error.get("code") or "declined"
    method = error.get("payment_method") or {}
    attempt = error.get("charge") or f"{method.get('id', '')} {code}"
    return Decline(attempt, code, error.get("message") or "The payment was declined.")


def _refund_status(status: str | None) -> RefundStatus:
    return _REFUND_STATUSES.get(status or "", RefundStatus.PENDING)
