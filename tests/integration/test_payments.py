"""Payments over REST, on PostgreSQL and the sandbox: orders follow, money and pieces are where they belong."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from handlers.accounts.model import Account
from handlers.actor import Role
from handlers.clock import utc_now
from handlers.errors import Unavailable
from handlers.events import Cause
from handlers.orders import service as orders
from handlers.payments import notices
from handlers.payments.model import Payment, RefundStatus, Standing
from handlers.payments.settling import Settling
from handlers.ports.payments import ForgedNotice, ProviderAway, Refused
from handlers.products.model import Product
from handlers.work import Work
from storage import sandbox
from storage.sandbox import Sandbox
from tests.rest import Answered, PostgresRest, serving

STOCK, PRICE = 10, 1000


@dataclass
class Shop:
    rest: PostgresRest
    provider: Sandbox
    work: Work
    customer: Account
    staff: Account
    product: Product

    async def order(self, quantity: int = 2) -> str:
        return str((await self.rest.place(self.customer, self.product, quantity)).body["id"])

    async def pay(self, order: str, method: str | None, key: str | None = None, who: Account | None = None) -> Answered:
        body = {} if method is None else {"method": method}
        headers = {} if key is None else {"Idempotency-Key": key}
        url = f"/api/v1/orders/{order}/payment"
        return await self.rest.call("POST", url, who or self.customer, json=body, headers=headers)

    async def refund(self, order: str, amount: int | None = None, key: str | None = None) -> Answered:
        body = {} if amount is None else {"amount": amount}
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.rest.call("POST", f"/api/v1/orders/{order}/refunds", self.staff, json=body, headers=headers)

    async def act(self, order: str, action: str, who: Account | None = None) -> Answered:
        return await self.rest.call("POST", f"/api/v1/orders/{order}/{action}", who or self.staff)

    async def seen(self, order: str) -> tuple[str, int]:
        """Status, and what was given back."""
        body = (await self.rest.call("GET", f"/api/v1/orders/{order}", self.customer)).body
        return body["status"], body["refunded"]

    async def payment(self, order: str, who: Account | None = None) -> Any:
        return (await self.rest.call("GET", f"/api/v1/orders/{order}/payment", who or self.customer)).body

    async def settle(self) -> None:
        """As the node does in the background, now."""
        await self.fetch("UPDATE payments SET ask_at = now() WHERE ask_at IS NOT NULL")
        await Settling(self.work, self.provider).settle()

    async def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        async with self.rest.postgres.pool.connection() as connection:
            return [tuple(row.values()) for row in await connection.fetch(statement)]

    async def balance(self) -> int:
        [(moved,)] = await self.fetch("SELECT coalesce(sum(amount), 0)::bigint FROM sandbox_movements")
        return int(moved)

    async def stock(self) -> int:
        [(stock,)] = await self.fetch("SELECT stock FROM products")
        return int(stock)

    async def told(self) -> list[str]:
        return [kind for (kind,) in await self.fetch("SELECT type FROM outbox ORDER BY id")]


@pytest.fixture
async def shop(postgres_url: str) -> AsyncIterator[Shop]:
    async with serving(postgres_url) as rest, Work(rest.postgres) as work:
        people = (await rest.an_account(), await rest.an_account(Role.STAFF))
        product = await rest.a_product(stock=STOCK, price=PRICE)
        yield Shop(rest, Sandbox(rest.postgres.pool), work, *people, product)


async def test_a_paid_order_is_paid_and_everybody_is_told_in_order(shop: Shop) -> None:
    order = await shop.order()
    paid = await shop.pay(order, "pm_card_visa")

    assert (paid.status, paid.body["status"], paid.body["amount"]) == (200, "succeeded", 2 * PRICE)
    assert await shop.seen(order) == ("paid", 0)
    assert await shop.balance() == 2 * PRICE
    told = await shop.told()
    assert (told[0], told[-1]) == ("order.created", "order.paid")
    assert set(told[1:-1]) == {"payment.changed"}
    history = (await shop.rest.call("GET", f"/api/v1/orders/{order}/history", shop.customer)).body["items"]
    assert [(each["action"], each["by"]) for each in history] == [("place", "customer"), ("pay", "provider")]


async def test_a_declined_order_may_be_tried_again_and_each_decline_is_told(shop: Shop) -> None:
    order = await shop.order()
    declined = await shop.pay(order, "pm_card_visa_chargeDeclinedInsufficientFunds")
    again = await shop.pay(order, "pm_card_chargeDeclinedExpiredCard")
    await shop.settle()  # which learns nothing new

    assert [each.body["decline"]["code"] for each in (declined, again)] == ["insufficient_funds", "expired_card"]
    assert await shop.seen(order) == ("payment_failed", 0)
    assert (await shop.told()).count("order.payment_failed") == 2

    paid = await shop.pay(order, "pm_card_visa")
    assert (paid.body["status"], paid.body["decline"], paid.body["id"]) == ("succeeded", None, again.body["id"])
    assert await shop.seen(order) == ("paid", 0)


@pytest.mark.parametrize(("answer", "status"), [("yes", "paid"), ("no", "payment_failed")])
async def test_who_is_asked_by_their_bank_pays_by_their_answer(shop: Shop, answer: str, status: str) -> None:
    order = await shop.order()
    asked = await shop.pay(order, "pm_card_authenticationRequired")
    assert asked.body["status"] == "requires_action"
    assert await shop.seen(order) == ("placed", 0)

    reference = asked.body["action_url"].removeprefix("/sandbox/")
    assert await shop.provider.answer(reference, is_authentic=answer == "yes")
    assert not await shop.provider.answer(reference, is_authentic=True)  # it asks once
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(shop.provider.run(lambda *told: notices.receive(shop.work, shop.provider, *told)))
        while (await shop.seen(order))[0] != status:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        running.cancel()


async def test_what_nobody_knows_the_outcome_of_is_asked_about_and_collected_once(shop: Shop) -> None:
    order = await shop.order()
    first = await shop.pay(order, "pm_sandbox_lostReply", key="once")
    again = await shop.pay(order, "pm_sandbox_lostReply", key="once")
    assert (first.body["status"], again.raw) == ("processing", first.raw)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await shop.seen(order) == ("placed", 0)

    await shop.settle()

    assert await shop.seen(order) == ("paid", 0)
    assert await shop.balance() == 2 * PRICE


async def test_many_who_pay_one_order_at_once_pay_it_once(shop: Shop) -> None:
    order = await shop.order()
    answers = await asyncio.gather(*(shop.pay(order, "pm_card_visa") for _ in range(12)))

    assert set(Counter(answer.status for answer in answers)) <= {200, 409}
    assert {answer.code for answer in answers if answer.status == 409} <= {"not_payable"}
    assert await shop.seen(order) == ("paid", 0)
    assert await shop.balance() == 2 * PRICE


async def test_a_bank_that_takes_its_time_keeps_the_order_from_expiring(shop: Shop) -> None:
    order = await shop.order()
    assert (await shop.pay(order, "pm_usBankAccount_success")).body["status"] == "processing"
    assert (await shop.pay(order, "pm_card_visa")).code == "not_payable"

    later = Cause(utc_now() + timedelta(days=2))
    assert not await shop.work.write(lambda uow: orders.expire_next(uow, later, set()))
    await shop.fetch("UPDATE sandbox_payments SET settles_at = now()")
    await shop.provider._decide()
    await shop.settle()

    assert await shop.seen(order) == ("paid", 0)


async def test_a_bank_that_takes_its_time_keeps_no_other_order_from_expiring(shop: Shop) -> None:
    slow, unpaid = await shop.order(), await shop.order()
    await shop.pay(slow, "pm_usBankAccount_success")

    later = Cause(utc_now() + timedelta(days=2))
    expired = [await shop.work.write(lambda uow: orders.expire_next(uow, later, set())) for _ in range(2)]

    assert expired == [True, False]
    assert ((await shop.seen(slow))[0], (await shop.seen(unpaid))[0]) == ("placed", "expired")


async def test_what_is_collected_too_late_goes_back(shop: Shop) -> None:
    order = await shop.order()
    await shop.pay(order, "pm_usBankAccount_success")
    assert (await shop.act(order, "cancel", shop.customer)).status == 200
    assert await shop.stock() == STOCK
    await shop.settle()  # it cannot be stopped any more
    await shop.fetch("UPDATE sandbox_payments SET settles_at = now()")
    await shop.provider._decide()
    await shop.settle()
    await shop.settle()

    payment = await shop.payment(order)
    assert payment["status"] == "succeeded"
    assert [(each["amount"], each["reason"], each["status"]) for each in payment["refunds"]] == [
        (2 * PRICE, "paid_too_late", "succeeded")
    ]
    assert await shop.seen(order) == ("cancelled", 0)
    assert (await shop.balance(), await shop.stock()) == (0, STOCK)


@pytest.mark.parametrize("way", ["cancel", "expire", "pay"])
async def test_an_order_that_is_over_or_paid_by_hand_stops_its_payment(shop: Shop, way: str) -> None:
    order = await shop.order()
    asked = await shop.pay(order, "pm_card_authenticationRequired")
    if way == "expire":
        later = Cause(utc_now() + timedelta(days=2))
        assert await shop.work.write(lambda uow: orders.expire_next(uow, later, set()))
    else:
        assert (await shop.act(order, way)).status == 200
    await shop.settle()

    reference = asked.body["action_url"].removeprefix("/sandbox/")
    assert not await shop.provider.answer(reference, is_authentic=True)
    assert await shop.balance() == 0
    payment = await shop.payment(order)
    by_hand = way == "pay"
    assert payment["status"] == ("succeeded" if by_hand else "cancelled")
    assert payment["provider"] == ("by_hand" if by_hand else "sandbox")
    assert (await shop.pay(order, "pm_card_visa")).code == "not_payable"


async def test_parts_are_given_back_and_with_the_last_one_the_order_is_refunded(shop: Shop) -> None:
    order = await shop.order()
    await shop.pay(order, "pm_card_visa")

    part = await shop.refund(order, 500, key="part")
    repeated = await shop.refund(order, 500, key="part")
    too_much = await shop.refund(order, 2 * PRICE - 499)
    await shop.settle()
    assert (part.status, repeated.raw, too_much.code) == (201, part.raw, "not_refundable")
    assert too_much.faults == [("/amount", "not_refundable")]
    assert await shop.seen(order) == ("paid", 500)
    assert (await shop.balance(), await shop.stock()) == (2 * PRICE - 500, STOCK - 2)

    assert (await shop.refund(order)).body["amount"] == 2 * PRICE - 500
    await shop.settle()
    assert await shop.seen(order) == ("refunded", 2 * PRICE)
    assert (await shop.balance(), await shop.stock()) == (0, STOCK)
    assert (await shop.refund(order)).code == "not_refundable"


async def test_a_cancelled_order_gives_its_money_back_and_a_returned_one_its_pieces(shop: Shop) -> None:
    cancelled, returned = await shop.order(), await shop.order()
    for order in (cancelled, returned):
        await shop.pay(order, "pm_card_visa")
    await shop.act(cancelled, "cancel")
    for step in ("pack", "ship", "return"):
        assert (await shop.act(returned, step)).status == 200
    await shop.settle()

    assert await shop.seen(cancelled) == ("cancelled", 2 * PRICE)
    assert await shop.seen(returned) == ("returned", 0)
    assert (await shop.balance(), await shop.stock()) == (2 * PRICE, STOCK)
    await shop.refund(returned)
    await shop.settle()
    assert await shop.seen(returned) == ("refunded", 2 * PRICE)
    assert (await shop.balance(), await shop.stock()) == (0, STOCK)


@pytest.mark.parametrize("reason", ["requested", "order_cancelled", "paid_too_late"])
async def test_staff_hear_of_each_refund_that_fails(shop: Shop, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    async def refuse(*_: object) -> RefundStatus:
        return RefundStatus.FAILED

    monkeypatch.setattr(Sandbox, "refund", refuse)
    order = await shop.order()
    if reason == "paid_too_late":
        await shop.pay(order, "pm_usBankAccount_success")
        await shop.act(order, "cancel")
        await shop.fetch("UPDATE sandbox_payments SET settles_at = now()")
        await shop.provider._decide()
        await shop.settle()
    else:
        await shop.pay(order, "pm_card_visa")
        await (shop.refund(order) if reason == "requested" else shop.act(order, "cancel"))
    await shop.settle()
    await shop.settle()  # which learns nothing new

    assert await shop.seen(order) == ("paid" if reason == "requested" else "cancelled", 0)
    [refund] = (await shop.payment(order))["refunds"]
    assert (refund["reason"], refund["status"]) == (reason, "failed")
    assert (await shop.told()).count("order.refund_failed") == 1
    history = (await shop.rest.call("GET", f"/api/v1/orders/{order}/history", shop.customer)).body["items"]
    assert (history[-1]["action"], history[-1]["by"]) == ("refund_failed", "provider")
    assert (await shop.refund(order)).body["amount"] == 2 * PRICE  # it may be tried anew


async def test_what_was_shipped_and_refunded_has_not_come_back(shop: Shop) -> None:
    order = await shop.order()
    await shop.pay(order, "pm_card_visa")
    for step in ("pack", "ship"):
        await shop.act(order, step)
    await shop.refund(order)
    await shop.settle()

    assert await shop.seen(order) == ("refunded", 2 * PRICE)
    assert await shop.stock() == STOCK - 2


async def test_what_was_paid_by_hand_is_given_back_by_hand(shop: Shop) -> None:
    order = await shop.order()
    await shop.act(order, "pay")
    assert (await shop.refund(order, 500)).body["status"] == "succeeded"
    await shop.act(order, "cancel")

    assert await shop.seen(order) == ("cancelled", 2 * PRICE)
    assert await shop.balance() == 0


async def test_what_costs_nothing_is_paid_without_a_provider(shop: Shop) -> None:
    free = await shop.rest.a_product(price=0)
    order = (await shop.rest.place(shop.customer, free)).body["id"]

    assert (await shop.pay(order, None)).body["status"] == "succeeded"
    assert await shop.seen(order) == ("paid", 0)
    assert await shop.fetch("SELECT reference FROM sandbox_payments") == []


async def test_who_asks_again_with_the_key_is_told_that_nothing_was_to_pay(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = await shop.rest.a_product(price=0)
    order = (await shop.rest.place(shop.customer, free)).body["id"]

    async def die(*_: object) -> None:
        raise Unavailable

    with monkeypatch.context() as dying:
        dying.setattr("handlers.payments.commands.answer_once", die)  # it is paid, and nobody has said so
        assert (await shop.pay(order, None, key="a")).status == 503
    again = await shop.pay(order, None, key="a")

    assert (again.status, again.body["status"]) == (200, "succeeded")
    assert (await shop.pay(order, None, key="b")).code == "not_payable"


async def test_a_payment_made_ready_can_be_gone_on_with_in_the_client_and_is_shown_to_its_customer_alone(
    shop: Shop,
) -> None:
    order = await shop.order()
    assert (await shop.rest.call("GET", f"/api/v1/orders/{order}/payment", shop.customer)).code == "not_found"
    ready = await shop.pay(order, None)
    again = await shop.pay(order, None)

    assert ready.body["status"] == "requires_payment_method"
    assert ready.body["client_secret"] == again.body["client_secret"] == (await shop.payment(order))["client_secret"]
    assert (await shop.payment(order, shop.staff))["client_secret"] is None
    assert (await shop.pay(order, None, who=shop.staff)).body["client_secret"] is None
    secret = ready.body["client_secret"]
    assert await shop.fetch(f"SELECT id FROM outbox WHERE position('{secret}'::bytea IN body) > 0") == []
    stranger = await shop.rest.an_account()
    for answer in (
        await shop.pay(order, "pm_card_visa", who=stranger),
        await shop.rest.call("GET", f"/api/v1/orders/{order}/payment", stranger),
    ):
        assert answer.code == "not_found"
    url = f"/api/v1/orders/{order}/refunds"
    assert (await shop.rest.call("POST", url, shop.customer, json={})).code == "forbidden"


async def test_a_method_that_nobody_knows_is_a_fault_and_the_next_one_pays(shop: Shop) -> None:
    order = await shop.order()
    wrong = await shop.pay(order, "pm_of_nobody", key="a")
    assert (wrong.status, wrong.faults) == (422, [("/method", "unknown_method")])
    assert (await shop.pay(order, "pm_card_visa", key="a")).body["status"] == "succeeded"


async def test_whoever_dies_in_between_the_same_key_goes_on_with_the_same_try(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await shop.order()

    async def die(*_: object) -> None:
        raise Unavailable

    with monkeypatch.context() as dying:
        dying.setattr("handlers.payments.service.learn", die)  # the money has moved, and nobody has written it down
        assert (await shop.pay(order, "pm_card_visa", key="a")).status == 503
    assert (await shop.seen(order), await shop.balance()) == (("placed", 0), 2 * PRICE)
    assert (await shop.pay(order, "pm_card_visa", key="b")).code == "not_payable"

    paid = await shop.pay(order, "pm_card_visa", key="a")
    assert (paid.status, paid.body["status"]) == (200, "succeeded")
    assert await shop.balance() == 2 * PRICE
    assert (await shop.pay(order, "pm_card_visa", key="a")).raw == paid.raw


async def test_who_has_paid_is_told_so_though_another_request_has_taken_the_key_meanwhile(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, other = await shop.order(1), await shop.order(1)
    confirm = Sandbox.confirm

    async def slowly(provider: Sandbox, payment: Payment, method: str, return_url: str | None) -> Standing:
        if str(payment.order_id) == order:
            assert (await shop.pay(other, "pm_card_visa", key="a")).status == 200
        return await confirm(provider, payment, method, return_url)

    monkeypatch.setattr(Sandbox, "confirm", slowly)
    paid = await shop.pay(order, "pm_card_visa", key="a")

    assert (paid.status, paid.body["status"], paid.body["order_id"]) == (200, "succeeded", order)
    assert await shop.balance() == 2 * PRICE
    assert (await shop.pay(order, "pm_card_visa", key="a")).code == "idempotency_key_reused"


@contextmanager
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The provider cannot be told of any payment."""

    async def fail(*_: object) -> Standing:
        raise ProviderAway

    with monkeypatch.context() as patched:
        patched.setattr(Sandbox, "open", fail)
        yield


async def test_what_was_not_collected_for_an_order_that_is_over_by_now_never_is(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await shop.order()
    with away(monkeypatch):
        assert (await shop.pay(order, "pm_card_visa", "key")).status == 503
    await shop.act(order, "cancel", shop.customer)

    again = await shop.pay(order, "pm_card_visa", "key")

    assert (again.status, again.code) == (409, "not_payable")
    assert await shop.balance() == 0


async def test_what_the_provider_was_never_told_of_is_in_the_way_of_no_other_try(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await shop.order()
    with away(monkeypatch):
        assert [(await shop.pay(order, "pm_card_visa", key)).status for key in ("a", "b", None)] == [503] * 3
    assert (await shop.payment(order))["status"] == "requires_payment_method"

    paid = await shop.pay(order, "pm_card_mastercard", "c")

    assert (paid.status, paid.body["status"]) == (200, "succeeded")
    assert await shop.balance() == 2 * PRICE


async def test_a_key_whose_payment_the_provider_refused_may_be_used_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> Standing:
        raise Refused("Too little.")

    order = await shop.order()
    with monkeypatch.context() as patched:
        patched.setattr(Sandbox, "open", refuse)
        refused = [await shop.pay(order, "pm_card_visa", "key") for _ in range(2)]
    paid = await shop.pay(order, "pm_card_visa", "key")

    assert [answer.status for answer in refused] == [409, 409]
    assert (paid.status, paid.body["status"]) == (200, "succeeded")


async def test_only_what_the_provider_has_signed_is_looked_into(shop: Shop) -> None:
    order = await shop.order()
    payment = await shop.pay(order, None)
    forged = await shop.rest.call("POST", "/api/v1/payments/notices", json={"data": {"object": {"id": "pi_0"}}})
    assert forged.code == "forbidden"

    [(reference,)] = await shop.fetch("SELECT reference FROM payments")
    body = f'{{"data": {{"object": {{"id": "{reference}"}}}}}}'.encode()
    for at, is_good in ((0, True), (200, True), (600, False)):
        signed = str(int(utc_now().timestamp()) - at)
        signature = f"t={signed},v1={shop.provider._sign(signed, body)}"
        if is_good:
            await notices.receive(shop.work, shop.provider, body, signature)
        else:
            with pytest.raises(ForgedNotice):
                await notices.receive(shop.work, shop.provider, body, signature)
    assert (await shop.payment(order))["version"] == payment.body["version"]  # there was nothing new


async def test_who_takes_a_payment_that_is_due_and_dies_lets_another_take_it_later(shop: Shop) -> None:
    await shop.pay(await shop.order(), None)
    now = utc_now()
    taken: list[UUID | None] = []
    pauses: list[float] = []
    for _ in range(14):
        async with shop.rest.postgres.transaction() as uow:
            taken.append(await uow.payments.take_due(Sandbox.name, now + timedelta(days=30)))
        [(ask_at,)] = await shop.fetch("SELECT ask_at FROM payments")
        pauses.append((ask_at - now - timedelta(days=30)).total_seconds())
        await shop.fetch("UPDATE payments SET ask_at = now()")
    assert len(set(taken)) == 1
    assert pauses == [min(3600.0, 5.0 * 2**count) for count in range(14)]


@pytest.mark.parametrize("news", ["it changed", "its order goes on", "the provider called"])
async def test_where_there_is_news_of_a_payment_the_pauses_are_short_again(shop: Shop, news: str) -> None:
    order = await shop.order()
    payment = UUID((await shop.pay(order, None)).body["id"])
    later = utc_now() + timedelta(days=30)

    async with shop.rest.postgres.transaction() as uow:
        for days in range(10):
            assert await uow.payments.take_due(Sandbox.name, later + timedelta(days=days)) == payment
        known = await uow.payments.get(payment)
        assert known is not None
        assert known.standing is not None
        if news == "it changed":
            await uow.payments.save(replace(known, ask_at=later))
        if news == "its order goes on":
            await uow.payments.ask_soon(known.order_id, later)
        if news == "the provider called":
            await uow.payments.ask_about(Sandbox.name, known.standing.reference, later)
        assert await uow.payments.take_due(Sandbox.name, later) == payment

    assert await shop.fetch("SELECT ask_at, asked FROM payments") == [(later + timedelta(seconds=5), 1)]


async def test_what_has_waited_longest_is_asked_about_first(shop: Shop) -> None:
    paid = [await shop.pay(await shop.order(1), None) for _ in range(3)]
    payments, now = [UUID(each.body["id"]) for each in paid], utc_now()

    async with shop.rest.postgres.transaction() as uow:
        for payment, seconds in zip(payments, (2, 1, 3), strict=True):
            known = await uow.payments.get(payment)
            assert known is not None
            await uow.payments.save(replace(known, ask_at=now - timedelta(seconds=seconds)))
        taken = [await uow.payments.take_due(Sandbox.name, now) for _ in range(4)]

    assert taken == [payments[2], payments[0], payments[1], None]


async def test_a_payment_that_cannot_be_settled_keeps_no_other_waiting(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange, plain = await shop.order(), await shop.order()
    for order in (strange, plain):
        await shop.pay(order, "pm_usBankAccount_success")
    await shop.fetch("UPDATE sandbox_payments SET settles_at = now()")
    await shop.provider._decide()
    look = Sandbox.look

    async def stumble(provider: Sandbox, payment: Payment) -> Standing:
        if str(payment.order_id) == strange:
            raise ZeroDivisionError
        return await look(provider, payment)

    with monkeypatch.context() as stumbling, capture_logs() as logged:
        stumbling.setattr(Sandbox, "look", stumble)
        await shop.settle()

    assert [each["event"] for each in logged if each["log_level"] == "error"] == ["settling_failed"]
    assert ((await shop.seen(strange))[0], (await shop.seen(plain))[0]) == ("placed", "paid")
    await shop.settle()
    assert (await shop.seen(strange))[0] == "paid"


def test_every_decline_of_the_sandbox_is_explained() -> None:
    codes = {outcome.decline for outcome in sandbox.METHODS.values()} - {None}
    assert codes | {sandbox.NOT_AUTHENTICATED} == set(sandbox._MESSAGES)
