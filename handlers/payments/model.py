"""A payment: what is collected for an order, how that stands, and what of it was given back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

BY_HAND = "by_hand"
"""The provider of what staff have collected themselves, and give back themselves."""


class PaymentStatus(StrEnum):
    REQUIRES_METHOD = "requires_payment_method"
    REQUIRES_ACTION = "requires_action"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"

    @property
    def is_settled(self) -> bool:
        """It stays so."""
        return self in {PaymentStatus.SUCCEEDED, PaymentStatus.CANCELLED}


class RefundStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class RefundReason(StrEnum):
    REQUESTED = "requested"
    ORDER_CANCELLED = "order_cancelled"
    PAID_TOO_LATE = "paid_too_late"  # the order was over already, or paid for otherwise


@dataclass(frozen=True, slots=True)
class Decline:
    """Why a provider refused a method. `attempt` is the provider's name of the try, so that one told twice is known."""

    attempt: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How a payment stands at its provider, whose name for it is `reference`. With `client_secret` the provider's own
    library in a browser can go on; at `action_url` the customer has to do something; `decline` is the last one."""

    reference: str
    status: PaymentStatus
    client_secret: str | None = None
    action_url: str | None = None
    decline: Decline | None = None


@dataclass(frozen=True, slots=True)
class Refund:
    """Money on its way back. `requested_by` is None for what nobody had to ask for."""

    id: UUID
    amount: int
    reason: RefundReason
    status: RefundStatus
    requested_by: UUID | None
    created_at: datetime

    def told(self, status: RefundStatus) -> Refund:
        """This refund once the provider has told what became of it. What was given back may come back, for it could not
        be brought to its end; what has failed stays so."""
        is_news = self.status is RefundStatus.PENDING or status is RefundStatus.FAILED
        return replace(self, status=status) if is_news else self


@dataclass(frozen=True, slots=True)
class Payment:
    """`amount` is in minor units of `currency`; `version` counts from 1 and grows by one with each change.

    `standing` is None until the provider knows of it. `attempts` counts the methods that were tried through us, the
    last with the `attempt_key` of the request, if it had one. `ask_at` is when to ask the provider again; None where
    there is nothing to learn.
    """

    id: UUID
    order_id: UUID
    provider: str
    amount: int
    currency: str
    status: PaymentStatus
    version: int
    created_at: datetime
    updated_at: datetime
    standing: Standing | None = None
    attempts: int = 0
    attempt_key: str | None = None
    refunds: tuple[Refund, ...] = field(default=())
    ask_at: datetime | None = None

    @property
    def refundable(self) -> int:
        """What was collected, and is neither given back nor about to be."""
        if self.status is not PaymentStatus.SUCCEEDED:
            return 0
        return self.amount - sum(each.amount for each in self.refunds if each.status is not RefundStatus.FAILED)

    @property
    def pending_refunds(self) -> tuple[Refund, ...]:
        return tuple(each for each in self.refunds if each.status is RefundStatus.PENDING)

    @property
    def failed_refunds(self) -> tuple[Refund, ...]:
        return tuple(each for each in self.refunds if each.status is RefundStatus.FAILED)

    def at(self, standing: Standing) -> Payment:
        """This payment once the provider has told how it stands."""
        return replace(self, standing=standing, status=standing.status)

    def told(self, standing: Standing | None, refunds: Mapping[UUID, RefundStatus], now: datetime) -> Payment:
        """This payment once the provider has told how it stands and what became of refunds; the same where that is
        known. What is settled stays so."""
        after = self
        if standing is not None and not self.status.is_settled:
            after = after.at(standing)
        known = tuple(each.told(refunds.get(each.id, each.status)) for each in self.refunds)
        return replace(after, refunds=known).changed_from(self, now)

    def changed_from(self, before: Payment, now: datetime) -> Payment:
        """With the next version, unless nothing has changed."""
        same = replace(self, ask_at=before.ask_at) == before
        return self if same else replace(self, version=before.version + 1, updated_at=now)
