from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from handlers.payments.model import (
    Decline,
    Payment,
    PaymentStatus,
    Refund,
    RefundReason,
    RefundStatus,
    Standing,
)
from storage.queries import load

if TYPE_CHECKING:
    import asyncpg

    from storage.pool import Connection

SQL = load("payments")


@dataclass(frozen=True, slots=True)
class PostgresPayments:
    connection: Connection

    async def add(self, payment: Payment) -> None:
        await self.connection.execute(
            SQL["add"],
            payment.id,
            payment.order_id,
            payment.provider,
            payment.amount,
            payment.currency,
            payment.status,
            payment.version,
            payment.created_at,
            payment.updated_at,
            payment.attempts,
            payment.attempt_key,
            payment.ask_at,
        )

    async def save(self, payment: Payment) -> None:
        standing = payment.standing
        decline = None if standing is None else standing.decline
        await self.connection.execute(
            SQL["save"],
            payment.id,
            payment.status,
            payment.version,
            payment.updated_at,
            payment.attempts,
            payment.attempt_key,
            payment.ask_at,
            *((None,) * 4 if standing is None else _told(standing)),
            *((None,) * 3 if decline is None else (decline.attempt, decline.code, decline.message)),
            [each.id for each in payment.refunds],
            [each.amount for each in payment.refunds],
            [each.reason for each in payment.refunds],
            [each.status for each in payment.refunds],
            [each.requested_by for each in payment.refunds],
            [each.created_at for each in payment.refunds],
        )

    async def get(self, payment_id: UUID) -> Payment | None:
        rows = await self.connection.fetch(SQL["get"], payment_id)
        return _payment(rows) if rows else None

    async def current(self, order_id: UUID) -> Payment | None:
        payment_id = await self.connection.fetchval(SQL["current"], order_id)
        return None if payment_id is None else await self.get(payment_id)

    async def ask_soon(self, order_id: UUID, now: datetime) -> None:
        await self.connection.execute(SQL["ask_soon"], order_id, now)

    async def ask_no_more(self, payment_id: UUID) -> None:
        await self.connection.execute(SQL["ask_no_more"], payment_id)

    async def ask_about(self, provider: str, reference: str, now: datetime) -> UUID | None:
        payment_id: UUID | None = await self.connection.fetchval(SQL["ask_about"], provider, reference, now)
        return payment_id

    async def take_due(self, provider: str, now: datetime) -> UUID | None:
        payment_id: UUID | None = await self.connection.fetchval(SQL["take_due"], provider, now)
        return payment_id


def _told(standing: Standing) -> tuple[str | None, ...]:
    return standing.reference, standing.status, standing.client_secret, standing.action_url


def _payment(rows: Sequence[asyncpg.Record]) -> Payment:
    first = rows[0]
    return Payment(
        id=first["id"],
        order_id=first["order_id"],
        provider=first["provider"],
        amount=first["amount"],
        currency=first["currency"],
        status=PaymentStatus(first["status"]),
        version=first["version"],
        created_at=first["created_at"],
        updated_at=first["updated_at"],
        standing=_standing(first),
        attempts=first["attempts"],
        attempt_key=first["attempt_key"],
        refunds=tuple(_refund(row) for row in rows if row["refund_id"] is not None),
        ask_at=first["ask_at"],
    )


def _standing(row: asyncpg.Record) -> Standing | None:
    if row["reference"] is None:
        return None
    decline = None
    if row["decline_attempt"] is not None:
        decline = Decline(row["decline_attempt"], row["decline_code"], row["decline_message"])
    return Standing(
        row["reference"], PaymentStatus(row["provider_status"]), row["client_secret"], row["action_url"], decline
    )


def _refund(row: asyncpg.Record) -> Refund:
    return Refund(
        row["refund_id"],
        row["refund_amount"],
        RefundReason(row["reason"]),
        RefundStatus(row["refund_status"]),
        row["requested_by"],
        row["refund_created_at"],
    )
