"""The sandbox: a payment provider for development that collects no money. It behaves like Stripe, and knows some of
its test methods. What it knows is in tables of its own, changed in transactions of its own, as if it were far away.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from uuid import UUID

import orjson
import structlog

from handlers.errors import Unavailable
from handlers.payments.model import Decline, Payment, PaymentStatus, Refund, RefundStatus, Standing
from handlers.ports.payments import ForgedNotice, ProviderAway, Refused
from storage.pool import Pool, in_transaction
from storage.queries import load

if TYPE_CHECKING:
    import asyncpg

    from storage.pool import PooledConnection

log = structlog.get_logger(__name__)

SQL = load("sandbox")

INTERVAL = 0.25  # seconds between two looks at what the banks have decided
PROCESSING = timedelta(seconds=2)  # of what is not decided at once
LATE = timedelta(seconds=1)  # for notices of what was answered at once
TOLERANCE = 300  # seconds for which a signature is good


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of trying a method. A decline of what is processing comes later; a reply that is lost was done all the same."""

    status: PaymentStatus
    decline: str | None = None
    loses_reply: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What a customer is asked by their bank: whether it is them who pays; only while it `is_open`."""

    amount: int
    currency: str
    return_url: str | None
    is_open: bool


_REFUSED = PaymentStatus.REQUIRES_METHOD
METHODS: Final[Mapping[str, Outcome]] = MappingProxyType(
    {
        "pm_card_visa": Outcome(PaymentStatus.SUCCEEDED),
        "pm_card_mastercard": Outcome(PaymentStatus.SUCCEEDED),
        "pm_card_authenticationRequired": Outcome(PaymentStatus.REQUIRES_ACTION),
        "pm_card_visa_chargeDeclined": Outcome(_REFUSED, "generic_decline"),
        "pm_card_visa_chargeDeclinedInsufficientFunds": Outcome(_REFUSED, "insufficient_funds"),
        "pm_card_chargeDeclinedExpiredCard": Outcome(_REFUSED, "expired_card"),
        "pm_card_visa_chargeDeclinedLostCard": Outcome(_REFUSED, "lost_card"),
        "pm_usBankAccount_success": Outcome(PaymentStatus.PROCESSING),
        "pm_usBankAccount_insufficientFunds": Outcome(PaymentStatus.PROCESSING, "insufficient_funds"),
        "pm_sandbox_lostReply": Outcome(PaymentStatus.SUCCEEDED, loses_reply=True),
    }
)
NOT_AUTHENTICATED: Final = "authentication_failed"
_MESSAGES: Final[Mapping[str, str]] = {
    "generic_decline": "The card was declined.",
    "insufficient_funds": "There is not enough money.",
    "expired_card": "The card has expired.",
    "lost_card": "The card was declined.",  # who has found it does not learn that it is missed
    NOT_AUTHENTICATED: "The bank could not tell that it was its customer.",
}


class Sandbox:
    name = "sandbox"

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._secret = secrets.token_bytes(32)

    async def open(self, payment: Payment) -> Standing:
        reference = f"pi_{secrets.token_hex(12)}"
        secret = f"{reference}_secret_{secrets.token_hex(12)}"
        async with self._transaction() as connection:
            await connection.execute(SQL["open"], reference, payment.id, payment.amount, payment.currency, secret)
            return await _look(connection, payment)

    async def confirm(self, payment: Payment, method: str, return_url: str | None) -> Standing:
        outcome = METHODS.get(method)
        if outcome is None:
            raise Refused(f"The sandbox knows {', '.join(METHODS)}.")
        is_processing = outcome.status is PaymentStatus.PROCESSING
        async with self._transaction() as connection:
            reference = await connection.fetchval(
                SQL["confirm"],
                payment.id,
                payment.attempts,
                method,
                return_url,
                outcome.status,
                None if is_processing else outcome.decline,
                PROCESSING if is_processing else None,
                LATE,
            )
            if reference is not None and outcome.status is PaymentStatus.SUCCEEDED:
                await connection.execute(SQL["collect"], reference)
            standing = await _look(connection, payment)
        if outcome.loses_reply and reference is not None:
            raise ProviderAway
        return standing

    async def look(self, payment: Payment) -> Standing:
        async with self._transaction() as connection:
            return await _look(connection, payment)

    async def cancel(self, payment: Payment) -> Standing:
        async with self._transaction() as connection:
            await connection.execute(SQL["cancel"], payment.id, LATE)
            return await _look(connection, payment)

    async def refund(self, payment: Payment, refund: Refund) -> RefundStatus:
        async with self._transaction() as connection:
            is_done = await connection.fetchval(SQL["give_back"], str(refund.id), payment.id, refund.amount)
        return RefundStatus.SUCCEEDED if is_done else RefundStatus.FAILED

    async def refunds(self, payment: Payment) -> Mapping[UUID, RefundStatus]:
        async with self._transaction() as connection:
            made = {row["id"] for row in await connection.fetch(SQL["given_back"], payment.id)}
        return {each.id: RefundStatus.SUCCEEDED for each in payment.refunds if str(each.id) in made}

    def notice(self, body: bytes, signature: str) -> str | None:
        at, _, given = signature.removeprefix("t=").partition(",v1=")
        if not hmac.compare_digest(given.encode(), self._sign(at, body).encode()):
            raise ForgedNotice("The signature is not the provider's.")
        if abs(time.time() - int(at)) > TOLERANCE:
            raise ForgedNotice("The signature is too old.")
        reference: str = orjson.loads(body)["data"]["object"]["id"]
        return reference

    async def asked(self, reference: str) -> Asked | None:
        """Raises ProviderAway."""
        async with self._transaction() as connection:
            row = await connection.fetchrow(SQL["asked"], reference)
        if row is None:
            return None
        is_open = row["status"] == PaymentStatus.REQUIRES_ACTION
        return Asked(row["amount"], row["currency"], row["return_url"], is_open)

    async def answer(self, reference: str, *, is_authentic: bool) -> bool:
        """What the customer has said to their bank; False when it had not asked. Raises ProviderAway."""
        status = PaymentStatus.SUCCEEDED if is_authentic else PaymentStatus.REQUIRES_METHOD
        async with self._transaction() as connection:
            known = await connection.fetchval(
                SQL["answer"], reference, status, None if is_authentic else NOT_AUTHENTICATED
            )
            if known is not None and is_authentic:
                await connection.execute(SQL["collect"], reference)
        return known is not None

    async def run(self, tell: Callable[[bytes, str], Awaitable[None]]) -> None:
        """Let banks decide, and tell what has happened, as a provider would by HTTP."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self._decide()
                await self._tell(tell)
            except (ProviderAway, Unavailable):
                log.warning("sandbox_postponed")

    async def _decide(self) -> None:
        for method, outcome in METHODS.items():
            if outcome.status is not PaymentStatus.PROCESSING:
                continue
            async with self._transaction() as connection:
                if outcome.decline is not None:
                    await connection.execute(SQL["refuse_due"], method, outcome.decline)
                    continue
                for row in await connection.fetch(SQL["settle_due"], method):
                    await connection.execute(SQL["collect"], row["reference"])

    async def _tell(self, tell: Callable[[bytes, str], Awaitable[None]]) -> None:
        while True:
            async with self._transaction() as connection:
                due = await connection.fetchrow(SQL["take_notice"])
            if due is None:
                return
            body = orjson.dumps({"type": "payment_intent.updated", "data": {"object": {"id": due["reference"]}}})
            at = str(int(time.time()))
            await tell(body, f"t={at},v1={self._sign(at, body)}")
            async with self._transaction() as connection:
                await connection.execute(SQL["heard"], due["reference"], due["notify_at"])

    def _sign(self, at: str, body: bytes) -> str:
        return hmac.new(self._secret, at.encode() + b"." + body, hashlib.sha256).hexdigest()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[PooledConnection]:
        try:
            async with self._pool.connection() as connection, in_transaction(connection):
                yield connection
        except Unavailable as away:
            raise ProviderAway from away


async def _look(connection: PooledConnection, payment: Payment) -> Standing:
    """Raises ProviderAway where it is not known: then it was not opened here."""
    row = await connection.fetchrow(SQL["get"], payment.id)
    if row is None:
        raise ProviderAway
    return _standing(row)


def _standing(row: asyncpg.Record) -> Standing:
    status, code = PaymentStatus(row["status"]), row["decline_code"]
    return Standing(
        row["reference"],
        status,
        row["client_secret"],
        f"/sandbox/{row['reference']}" if status is PaymentStatus.REQUIRES_ACTION else None,
        None if code is None else Decline(row["decline_attempt"], code, _MESSAGES[code]),
    )
