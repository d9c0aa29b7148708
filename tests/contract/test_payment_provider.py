"""The port of payment providers, over all its variants: money moves once, however often it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from handlers.payments.model import Payment, PaymentStatus, Refund, RefundReason, RefundStatus, Standing
from handlers.ports.payments import ForgedNotice, PaymentProvider, ProviderAway, Refused
from server.stripe_provider import StripeOptions, open_stripe
from storage.postgres import open_postgres
from storage.sandbox import Sandbox
from tests.database_options import postgres_options
from tests.doubles import NOW
from tests.services import stripe

AMOUNT = 5668
RETURN_URL = "https://shop.example/thanks"


@dataclass
class Bank:
    """A variant, with what its test methods are called and what is seen at the other end of it."""

    provider: PaymentProvider
    good: str
    declined: str
    asking: str

    async def answer(self, payment: Payment, *, is_authentic: bool) -> None:
        """As the customer whose bank asks something."""
        raise NotImplementedError

    async def balance(self, payment: Payment) -> int:
        """What came, less what went back."""
        raise NotImplementedError


class SandboxBank(Bank):
    provider: Sandbox

    async def answer(self, payment: Payment, *, is_authentic: bool) -> None:
        assert payment.standing is not None
        assert await self.provider.answer(payment.standing.reference, is_authentic=is_authentic)

    async def balance(self, payment: Payment) -> int:
        assert payment.standing is not None
        async with self.provider._pool.connection() as connection:
            moved: int = await connection.fetchval(
                "SELECT coalesce(sum(amount), 0)::bigint FROM sandbox_movements WHERE reference = $1",
                payment.standing.reference,
            )
        return moved


class StripeBank(Bank):
    server: stripe.Stripe

    async def answer(self, payment: Payment, *, is_authentic: bool) -> None:
        assert payment.standing is not None
        self.server.authenticate(payment.standing.reference, is_authentic=is_authentic)

    async def balance(self, payment: Payment) -> int:
        assert payment.standing is not None
        return self.server.balance(payment.standing.reference)


@asynccontextmanager
async def by_stripe() -> AsyncIterator[StripeBank]:
    async with stripe.standing_in() as server:
        options = StripeOptions(stripe.SECRET_KEY, stripe.WEBHOOK_SECRET, server.url)
        async with open_stripe(options) as provider:
            bank = StripeBank(provider, stripe.GOOD, stripe.DECLINED, stripe.ASKING)
            bank.server = server
            yield bank


@asynccontextmanager
async def by_sandbox(postgres_url: str) -> AsyncIterator[Bank]:
    async with open_postgres(postgres_options(postgres_url)) as postgres:
        methods = ("pm_card_visa", "pm_card_visa_chargeDeclinedInsufficientFunds", "pm_card_authenticationRequired")
        yield SandboxBank(Sandbox(postgres.pool), *methods)


@pytest.fixture(params=["sandbox", "stripe"])
async def bank(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[Bank]:
    async with by_stripe() if request.param == "stripe" else by_sandbox(postgres_url) as bank:
        yield bank


async def opened(bank: Bank) -> Payment:
    payment = Payment(uuid4(), uuid4(), bank.provider.name, AMOUNT, "EUR", PaymentStatus.REQUIRES_METHOD, 1, NOW, NOW)
    return payment.at(await bank.provider.open(payment))


async def tried(bank: Bank, payment: Payment, method: str) -> tuple[Payment, Standing]:
    payment = replace(payment, attempts=payment.attempts + 1)
    return payment, await bank.provider.confirm(payment, method, RETURN_URL)


def a_refund(amount: int) -> Refund:
    return Refund(uuid4(), amount, RefundReason.REQUESTED, RefundStatus.PENDING, None, NOW)


async def test_opening_collects_nothing_and_again_it_is_the_same(bank: Bank) -> None:
    payment = await opened(bank)
    again = await bank.provider.open(replace(payment, standing=None))

    assert payment.status is PaymentStatus.REQUIRES_METHOD
    assert payment.standing is not None
    assert payment.standing.client_secret
    assert again == payment.standing == await bank.provider.look(payment)
    assert await bank.balance(payment) == 0


async def test_one_attempt_collects_once_however_often_and_at_once_it_is_made(bank: Bank) -> None:
    payment, first = await tried(bank, await opened(bank), bank.good)
    again = await asyncio.gather(*(bank.provider.confirm(payment, bank.good, RETURN_URL) for _ in range(5)))

    assert first.status is PaymentStatus.SUCCEEDED
    assert {standing.status for standing in again} == {PaymentStatus.SUCCEEDED}
    assert await bank.balance(payment) == AMOUNT


async def test_what_is_collected_is_not_collected_by_another_attempt(bank: Bank) -> None:
    payment, _ = await tried(bank, await opened(bank), bank.good)
    payment, second = await tried(bank, payment, bank.good)

    assert second.status is PaymentStatus.SUCCEEDED
    assert await bank.balance(payment) == AMOUNT


async def test_a_declined_attempt_says_why_and_another_may_succeed(bank: Bank) -> None:
    payment, declined = await tried(bank, await opened(bank), bank.declined)
    looked = await bank.provider.look(payment)
    repeated, again = await tried(bank, payment, bank.declined)
    _, paid = await tried(bank, repeated, bank.good)

    assert (declined.status, looked.decline) == (PaymentStatus.REQUIRES_METHOD, declined.decline)
    assert declined.decline is not None
    assert again.decline is not None
    assert (declined.decline.code, again.decline.code) == ("insufficient_funds",) * 2
    assert declined.decline.attempt != again.decline.attempt
    assert paid.status is PaymentStatus.SUCCEEDED
    assert await bank.balance(payment) == AMOUNT


@pytest.mark.parametrize("is_authentic", [True, False])
async def test_a_bank_that_asks_is_answered_somewhere_else(bank: Bank, is_authentic: bool) -> None:
    payment, asked = await tried(bank, await opened(bank), bank.asking)
    assert asked.status is PaymentStatus.REQUIRES_ACTION
    assert asked.action_url
    assert await bank.balance(payment) == 0

    await bank.answer(payment, is_authentic=is_authentic)
    standing = await bank.provider.look(payment)

    assert standing.status is (PaymentStatus.SUCCEEDED if is_authentic else PaymentStatus.REQUIRES_METHOD)
    assert (standing.decline is None) == is_authentic
    assert await bank.balance(payment) == (AMOUNT if is_authentic else 0)


async def test_a_cancelled_payment_collects_nothing_any_more(bank: Bank) -> None:
    payment = await opened(bank)

    cancelled = await bank.provider.cancel(payment)
    _, tried_on = await tried(bank, payment, bank.good)

    assert (cancelled.status, tried_on.status) == (PaymentStatus.CANCELLED,) * 2
    assert (await bank.provider.cancel(payment)).status is PaymentStatus.CANCELLED
    assert await bank.balance(payment) == 0


async def test_what_is_collected_cannot_be_cancelled(bank: Bank) -> None:
    payment, _ = await tried(bank, await opened(bank), bank.good)
    assert (await bank.provider.cancel(payment)).status is PaymentStatus.SUCCEEDED


async def test_a_refund_is_made_once_and_no_more_than_was_collected_goes_back(bank: Bank) -> None:
    payment, _ = await tried(bank, await opened(bank), bank.good)
    part, rest = a_refund(1000), a_refund(AMOUNT - 1000)

    made = [await bank.provider.refund(payment, each) for each in (part, part, rest, rest)]
    more = await bank.provider.refund(payment, a_refund(1))

    assert made == [RefundStatus.SUCCEEDED] * 4
    assert more is RefundStatus.FAILED
    assert await bank.balance(payment) == 0


async def test_of_the_refunds_that_were_made_it_is_told_how_they_stand_and_nothing_is_given_back(bank: Bank) -> None:
    payment, _ = await tried(bank, await opened(bank), bank.good)
    made, other = a_refund(1000), a_refund(500)
    payment = replace(payment, refunds=(made, other))
    assert await bank.provider.refunds(payment) == {}

    await bank.provider.refund(payment, made)

    assert await bank.provider.refunds(payment) == {made.id: RefundStatus.SUCCEEDED}
    assert await bank.balance(payment) == AMOUNT - 1000


async def test_a_method_that_nobody_knows_is_not_tried(bank: Bank) -> None:
    payment = await opened(bank)
    with pytest.raises(Refused):
        await tried(bank, payment, "pm_of_nobody")
    assert (await bank.provider.look(payment)).status is PaymentStatus.REQUIRES_METHOD


async def test_a_payment_of_somebody_else_is_not_told_of(bank: Bank) -> None:
    stranger = Payment(uuid4(), uuid4(), bank.provider.name, 1, "EUR", PaymentStatus.PROCESSING, 1, NOW, NOW)
    standing = Standing("pi_00", PaymentStatus.PROCESSING)
    with pytest.raises(ProviderAway):
        await bank.provider.look(stranger.at(standing))


@pytest.mark.parametrize(
    "signature", ["", "t=1,v1=", "t=,v1=00", "t=x,v1=00", "t=1764000000,v1=" + 64 * "0", "v1=0,t=1"]
)
async def test_a_notice_that_nobody_signed_is_refused(bank: Bank, signature: str) -> None:
    with pytest.raises(ForgedNotice):
        bank.provider.notice(b'{"data": {"object": {"id": "pi_00"}}}', signature)
