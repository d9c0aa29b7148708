"""The JSON bodies of payments. `PaymentBody` is also the `data` of the event `payment.changed`."""

from __future__ import annotations

from typing import Annotated, Self
from uuid import UUID

from pydantic import Field

from handlers.orders.schemas import Money
from handlers.payments.model import Decline, Payment, PaymentStatus, Refund, RefundReason, RefundStatus
from handlers.ports.domain import Snapshot
from handlers.schemas import Body, ById, Currency, Moment, StreamBody, Text

MAX_METHOD = 255
MAX_URL = 2000

_OF_THIEVES = frozenset({"lost_card", "stolen_card", "fraudulent", "pickup_card", "merchant_blacklist"})

Method = Annotated[
    Text, Field(min_length=1, max_length=MAX_METHOD, description="As the provider's own library in the client names it")
]
ReturnUrl = Annotated[
    str,
    Field(
        pattern=r"^https?://[!-~]+$",
        max_length=MAX_URL,
        description="Where the customer comes back to from what their bank asks of them",
    ),
]


class PayOrderRequest(Body):
    """Without a method the payment is only made ready, for the provider's own library in the client to go on with."""

    method: Method | None = None
    return_url: ReturnUrl | None = None


class PayOrder(PayOrderRequest, ById):
    """An order to pay as a command; the key is what REST has in the header Idempotency-Key."""

    idempotency_key: str | None = None


class RefundOrderRequest(Body):
    """How much of what was paid is given back; all that is left of it unless it is said."""

    amount: Annotated[int, Field(ge=1, le=2**53, description="Minor units of the order's currency")] | None = None


class RefundOrder(RefundOrderRequest, ById):
    """A refund as a command; the key is what REST has in the header Idempotency-Key."""

    idempotency_key: str | None = None


class DeclineBody(Body):
    """Why the last method was refused; the code is the provider's."""

    code: str
    message: str

    @classmethod
    def of(cls, decline: Decline) -> Self:
        """Who has found or stolen a card does not learn that it is missed."""
        if decline.code in _OF_THIEVES:
            return cls(code="generic_decline", message="The card was declined.")
        return cls(code=decline.code, message=decline.message)


class RefundBody(Body):
    """What is given back of a payment."""

    id: UUID
    amount: Annotated[int, Field(ge=1, description="Minor units of the payment's currency")]
    reason: RefundReason
    status: RefundStatus
    created_at: Moment

    @classmethod
    def of(cls, refund: Refund) -> Self:
        return cls(
            id=refund.id,
            amount=refund.amount,
            reason=refund.reason,
            status=refund.status,
            created_at=refund.created_at,
        )


class PaymentBody(Body):
    """What is collected for an order. `version` grows by one with each change: keep what has the highest."""

    id: UUID
    order_id: UUID
    provider: str
    status: PaymentStatus
    version: Annotated[int, Field(ge=1)]
    amount: Money
    currency: Currency
    decline: DeclineBody | None
    refunds: list[RefundBody]
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, payment: Payment) -> PaymentBody:
        decline = None if payment.standing is None else payment.standing.decline
        return cls(
            id=payment.id,
            order_id=payment.order_id,
            provider=payment.provider,
            status=payment.status,
            version=payment.version,
            amount=payment.amount,
            currency=payment.currency,
            decline=None if decline is None or payment.status.is_settled else DeclineBody.of(decline),
            refunds=[RefundBody.of(refund) for refund in payment.refunds],
            created_at=payment.created_at,
            updated_at=payment.updated_at,
        )


class OwnPaymentBody(PaymentBody):
    """A payment as its customer sees it, with how to go on."""

    client_secret: Annotated[str | None, Field(description="For the provider's own library in the client")]
    action_url: Annotated[str | None, Field(description="Where the customer's bank asks something of them")]

    @classmethod
    def own(cls, payment: Payment, *, is_owner: bool) -> OwnPaymentBody:
        shown = payment.standing if is_owner and not payment.status.is_settled else None
        return OwnPaymentBody(
            **dict(PaymentBody.of(payment)),
            client_secret=None if shown is None else shown.client_secret,
            action_url=None if shown is None else shown.action_url,
        )


class LivePaymentBody(OwnPaymentBody):
    """A payment, with the stream that tells how it goes on; only its customer is told how to go on with it."""

    stream: StreamBody

    @classmethod
    def at(cls, snapshot: Snapshot[Payment], *, is_owner: bool) -> LivePaymentBody:
        own = OwnPaymentBody.own(snapshot.state, is_owner=is_owner)
        return cls.trusted(**dict(own), stream=StreamBody.of(snapshot))


class ReceivedBody(Body):
    """The notice will be looked into."""

    received: bool = True
