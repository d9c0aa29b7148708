"""A whole node whose payments are by Stripe: on a stand-in for that, with webhooks as Stripe sends them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
import pytest
from stripe import WebhookSignature

from tests.deployment import ACCOUNT, Deploy, Deployment, of_account
from tests.services import stripe
from tests.services.stripe import WEBHOOK_SECRET, Stripe

PRODUCT = uuid4()
PRICE = 1200
SOON = 10.0  # seconds


@dataclass
class Shop:
    node: Deployment
    stripe: Stripe

    async def call(self, method: str, path: str, body: object = None, key: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {of_account()}", **({"Idempotency-Key": key} if key else {})}
        url = f"{self.node.url}/api/v1/{path}"
        async with self.node.http.request(method, url, json=body, headers=headers) as reply:
            return reply.status, await reply.json()

    async def order(self) -> str:
        items = [{"product_id": str(PRODUCT), "quantity": 1}]
        _, order = await self.call("POST", "orders", {"items": items})
        return str(order["id"])

    async def pay(self, order: str, method: str | None, key: str | None = None) -> tuple[int, Any]:
        body = {} if method is None else {"method": method, "return_url": "https://shop.example/thanks"}
        return await self.call("POST", f"orders/{order}/payment", body, key)

    async def until(self, order: str, is_so: Callable[[Any], bool]) -> Any:
        async with asyncio.timeout(SOON):
            while True:
                _, read = await self.call("GET", f"orders/{order}")
                if is_so(read):
                    return read
                await asyncio.sleep(0.05)

    async def hook(self, about: object, *, age: int = 0, secret: str = WEBHOOK_SECRET) -> int:
        """What Stripe sends; returns what it is answered."""
        body = orjson.dumps({"id": "evt_1", "object": "event", "data": {"object": about}})
        signature = WebhookSignature.generate_signature_header(body.decode(), secret, int(time.time()) - age)
        headers = {"Stripe-Signature": signature, "Content-Type": "application/json"}
        url = f"{self.node.url}/api/v1/payments/notices"
        async with self.node.http.post(url, data=body, headers=headers) as reply:
            return reply.status

    @property
    def intent(self) -> str:
        [intent] = self.stripe.intents
        return intent


@asynccontextmanager
async def furnished(postgres_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(postgres_url)
    try:
        who = (ACCOUNT.id, ACCOUNT.email, ACCOUNT.name, ACCOUNT.role, ACCOUNT.password_hash)
        await connection.execute("INSERT INTO accounts VALUES ($1, $2, $3, $4, $5)", *who)
        await connection.execute("INSERT INTO products VALUES ($1, 'A', 'A', $2, 'EUR', 9)", PRODUCT, PRICE)
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def shop(deploy: Deploy, postgres_url: str) -> AsyncIterator[Shop]:
    async with stripe.standing_in() as standing_in, furnished(postgres_url):
        environment = {
            "PAYMENTS__STRIPE_SECRET_KEY": stripe.SECRET_KEY,
            "PAYMENTS__STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "PAYMENTS__STRIPE_API_BASE": standing_in.url,
        }
        async with deploy(environment=environment) as node:
            yield Shop(node, standing_in)


async def test_an_order_is_paid_and_refunded(shop: Shop) -> None:
    order = await shop.order()
    _, declined = await shop.pay(order, stripe.DECLINED)
    status, paid = await shop.pay(order, stripe.GOOD)

    assert declined["decline"] == {"code": "insufficient_funds", "message": "Your card was declined."}
    assert (status, paid["status"], paid["provider"]) == (200, "succeeded", "stripe")
    assert shop.stripe.balance(shop.intent) == PRICE
    assert shop.stripe.intents[shop.intent]["metadata"] == {"orderwire_payment": paid["id"], "orderwire_order": order}
    await shop.call("POST", f"orders/{order}/refunds", {"amount": 200})
    await shop.call("POST", f"orders/{order}/cancel")
    read = await shop.until(order, lambda read: read["refunded"] == PRICE)
    assert (read["status"], shop.stripe.balance(shop.intent)) == ("cancelled", 0)


async def test_a_refund_that_fails_weeks_later_is_told_of_and_can_be_made_anew(shop: Shop) -> None:
    order = await shop.order()
    await shop.pay(order, stripe.GOOD)
    await shop.call("POST", f"orders/{order}/refunds", {"amount": 200})
    await shop.until(order, lambda read: read["refunded"] == 200)
    await shop.call("POST", f"orders/{order}/refunds", {})
    await shop.until(order, lambda read: read["status"] == "refunded")

    failed = shop.stripe.send_back(shop.intent)
    assert set(await asyncio.gather(*(shop.hook(failed) for _ in range(3)))) == {200}

    _, read = await shop.call("GET", f"orders/{order}")
    assert (read["status"], read["refunded"], shop.stripe.balance(shop.intent)) == ("refunded", 200, PRICE - 200)
    _, payment = await shop.call("GET", f"orders/{order}/payment")
    assert [(each["amount"], each["status"]) for each in payment["refunds"]] == [
        (200, "succeeded"),
        (PRICE - 200, "failed"),
    ]
    _, history = await shop.call("GET", f"orders/{order}/history")
    assert [each["action"] for each in history["items"]] == ["place", "pay", "refund", "refund", "refund_failed"]
    _, found = await shop.call("GET", f"products/{PRODUCT}")
    assert found["stock"] == 9  # the pieces came back with the refund, once

    assert (await shop.call("POST", f"orders/{order}/refunds", {}))[1]["amount"] == PRICE - 200
    read = await shop.until(order, lambda read: read["refunded"] == PRICE)
    assert (read["status"], shop.stripe.balance(shop.intent)) == ("refunded", 0)
    await shop.hook(failed)
    assert (await shop.call("GET", f"orders/{order}"))[1]["version"] == read["version"]


async def test_what_is_confirmed_in_the_client_is_heard_of_by_webhook_late_twice_and_in_any_order(shop: Shop) -> None:
    order = await shop.order()
    _, ready = await shop.pay(order, None)
    assert ready["client_secret"] == shop.stripe.intents[shop.intent]["client_secret"]
    before = dict(shop.stripe.intents[shop.intent])
    shop.stripe._collect(shop.stripe.intents[shop.intent])  # by Stripe's library in the browser

    after = shop.stripe.intents[shop.intent]
    charge = {"object": "charge", "payment_intent": shop.intent}
    # Whatever they tell, Stripe is asked.
    statuses = await asyncio.gather(*(shop.hook(about) for about in (after, before, charge, after, before)))

    assert set(statuses) == {200}
    read = await shop.until(order, lambda read: read["status"] == "paid")
    assert read["version"] == 2


async def test_what_stripe_has_not_signed_lately_is_refused_and_what_is_none_of_ours_is_let_pass(shop: Shop) -> None:
    order = await shop.order()
    await shop.pay(order, None)
    shop.stripe._collect(shop.stripe.intents[shop.intent])
    about = shop.stripe.intents[shop.intent]

    assert await shop.hook(about, age=600) == 403
    assert await shop.hook(about, secret="whsec_of_somebody") == 403
    assert (await shop.call("GET", f"orders/{order}"))[1]["status"] == "placed"
    strangers: list[object] = [{"object": "payment_intent", "id": "pi_0"}, {"object": "customer", "id": "cus_1"}, [], 7]
    for strange in strangers:
        assert await shop.hook(strange) == 200
    assert await shop.hook(about, age=200) == 200
    assert (await shop.call("GET", f"orders/{order}"))[1]["status"] == "paid"


async def test_an_answer_that_is_lost_is_asked_for_and_collected_once(shop: Shop, postgres_url: str) -> None:
    order = await shop.order()
    await shop.pay(order, None)
    shop.stripe.loses_answers = True
    status, unknown = await shop.pay(order, stripe.GOOD, key="a")
    assert (status, unknown["status"]) == (200, "processing")
    shop.stripe.loses_answers = False

    connection = await asyncpg.connect(postgres_url)
    await connection.execute("UPDATE payments SET ask_at = now()")
    await connection.close()

    await shop.until(order, lambda read: read["status"] == "paid")
    assert shop.stripe.balance(shop.intent) == PRICE
    assert await shop.pay(order, stripe.GOOD, key="a") == (200, unknown)


async def test_while_stripe_is_away_nothing_is_collected_and_that_is_said(shop: Shop) -> None:
    order = await shop.order()
    with shop.stripe.away():
        status, problem = await shop.pay(order, stripe.GOOD, key="a")
    assert (status, problem["code"], problem["retryable"]) == (503, "unavailable", True)
    assert shop.stripe.charges == {}

    assert (await shop.pay(order, stripe.GOOD, key="a"))[1]["status"] == "succeeded"
    assert shop.stripe.balance(shop.intent) == PRICE


async def test_a_bank_that_asks_sends_its_customer_back(shop: Shop) -> None:
    order = await shop.order()
    _, asked = await shop.pay(order, stripe.ASKING)
    assert asked["action_url"].startswith("https://hooks.stripe.example/")
    shop.stripe.authenticate(shop.intent, is_authentic=False)
    await shop.hook(shop.stripe.intents[shop.intent])
    assert (await shop.call("GET", f"orders/{order}"))[1]["status"] == "payment_failed"

    await shop.pay(order, stripe.SLOW)
    await shop.call("POST", f"orders/{order}/cancel")
    shop.stripe.settle(shop.intent)  # it could not be stopped
    await shop.hook(shop.stripe.intents[shop.intent])
    async with asyncio.timeout(SOON):
        while shop.stripe.balance(shop.intent):  # noqa: ASYNC110 it is Stripe's
            await asyncio.sleep(0.05)
    assert (await shop.call("GET", f"orders/{order}"))[1]["refunded"] == 0


async def test_what_stripe_does_not_collect_is_said(shop: Shop, postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("UPDATE products SET price = 7")
    await connection.close()
    order = await shop.order()

    assert (await shop.pay(order, stripe.GOOD))[1]["code"] == "not_payable"
    assert (await shop.call("GET", f"orders/{order}/payment"))[1]["status"] == "cancelled"  # nothing is in the way
    assert (await shop.pay(order, stripe.GOOD))[1]["code"] == "not_payable"


async def test_a_signature_that_is_none_is_refused(shop: Shop) -> None:
    url = f"{shop.node.url}/api/v1/payments/notices"
    async with shop.node.http.post(url, data=b"{}", headers={"Stripe-Signature": "t=1,v1=é"}) as reply:
        assert reply.status == 403


async def test_an_answer_that_breaks_off_in_its_middle_is_no_answer(shop: Shop) -> None:
    order = await shop.order()
    shop.stripe.breaks_off = True
    status, problem = await shop.pay(order, stripe.GOOD, key="a")
    assert (status, problem["code"]) == (503, "unavailable")
    shop.stripe.breaks_off = False
    assert (await shop.pay(order, stripe.GOOD, key="a"))[1]["status"] == "succeeded"


async def test_what_is_settled_is_asked_about_no_more_whatever_is_told_of_it(shop: Shop, postgres_url: str) -> None:
    order = await shop.order()
    await shop.pay(order, stripe.GOOD)
    assert await shop.hook(shop.stripe.intents[shop.intent]) == 200

    connection = await asyncpg.connect(postgres_url)
    due = await connection.fetchval("SELECT count(*) FROM payments WHERE ask_at IS NOT NULL")
    await connection.close()
    assert due == 0


async def test_a_refund_of_what_stripe_does_not_know_waits_and_takes_nobody_down(shop: Shop) -> None:
    order = await shop.order()
    await shop.pay(order, stripe.GOOD)
    intent = shop.intent
    shop.stripe.forgotten.add(intent)
    _, refund = await shop.call("POST", f"orders/{order}/refunds", {})
    await asyncio.wait_for(shop.stripe.asked_in_vain.wait(), SOON)
    _, payment = await shop.call("GET", f"orders/{order}/payment")
    assert [(each["id"], each["status"]) for each in payment["refunds"]] == [(refund["id"], "pending")]

    shop.stripe.forgotten.clear()
    await shop.hook({"object": "charge", "payment_intent": intent})
    await shop.until(order, lambda read: read["status"] == "refunded")
    assert shop.stripe.balance(intent) == 0
