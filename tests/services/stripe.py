"""What Stripe is to us, on loopback: the part of its API that we use, as its reference describes it, in this process.

Stripe itself cannot run here. This stand-in is strict where Stripe is: it knows no parameter that we made up, and a
request with an idempotency key has one answer.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler

SECRET_KEY = "sk_test_of_a_stand_in"
WEBHOOK_SECRET = "whsec_of_a_stand_in"

GOOD = "pm_card_visa"
DECLINED = "pm_card_visa_chargeDeclinedInsufficientFunds"
ASKING = "pm_card_authenticationRequired"
SLOW = "pm_usBankAccount_success"

_OPEN = {"requires_payment_method", "requires_confirmation", "requires_action"}

Node = dict[str, Any]


@dataclass
class Answer(Exception):
    """Other than 200."""

    status: int
    error: Node


@dataclass
class Stripe:
    """`intents` and `refunds` by id, `charges` by the id of their intent. While it `is_away`, nobody answers; what
    `loses_answers` is done, and the connection breaks, before an answer or, where it `breaks_off`, in the middle of it.
    Of what is `forgotten` no refunds are known.
    """

    url: str = ""
    intents: dict[str, Node] = field(default_factory=dict)
    refunds: dict[str, Node] = field(default_factory=dict)
    charges: dict[str, list[int]] = field(default_factory=dict)
    answers: dict[str, tuple[Node, int, Node]] = field(default_factory=dict)
    is_away: bool = False
    loses_answers: bool = False
    breaks_off: bool = False
    forgotten: set[str] = field(default_factory=set)
    asked_in_vain: asyncio.Event = field(default_factory=asyncio.Event)
    replayed: int = 0

    def balance(self, intent: str) -> int:
        """What came, less what went back."""
        given: int = sum(
            each["amount"]
            for each in self.refunds.values()
            if each["payment_intent"] == intent and each["status"] != "failed"
        )
        return sum(self.charges.get(intent, ())) - given

    def send_back(self, intent_id: str) -> Node:
        """As the bank to which the last refund went; returns that, as a webhook tells of it."""
        refund = [each for each in self.refunds.values() if each["payment_intent"] == intent_id][-1]
        refund["status"] = "failed"
        return refund

    def authenticate(self, intent_id: str, *, is_authentic: bool) -> None:
        """As the customer whose bank asks something."""
        intent = self.intents[intent_id]
        assert intent["status"] == "requires_action"
        intent["next_action"] = None
        if is_authentic:
            self._collect(intent)
        else:
            self._refuse(intent, "payment_intent_authentication_failure", None, None)

    def settle(self, intent_id: str) -> None:
        """The bank has sent the money."""
        assert self.intents[intent_id]["status"] == "processing"
        self._collect(self.intents[intent_id])

    @contextmanager
    def away(self) -> Iterator[None]:
        self.is_away = True
        yield
        self.is_away = False

    def answering(self, do: Callable[[web.Request, Node], Node]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, do)

        return answer

    async def _answer(self, request: web.Request, do: Callable[[web.Request, Node], Node]) -> web.StreamResponse:
        """Who asks, whether they have asked before, and what an error looks like."""
        if self.is_away:
            return self._broken(request)
        if request.headers.get("Authorization") != f"Bearer {SECRET_KEY}":
            return web.json_response(_error("invalid_api_key", type_="invalid_request_error"), status=401)
        params = dict(await request.post()) if request.method == "POST" else dict(request.query)
        key = request.headers.get("Idempotency-Key", "")
        if key in self.answers:
            asked, status, body = self.answers[key]
            if asked != params:
                return web.json_response(_error("idempotency_key_in_use", type_="idempotency_error"), status=400)
            self.replayed += 1
            return web.json_response(body, status=status, headers={"Idempotent-Replayed": "true"})
        try:
            body, status = do(request, params), 200
        except Answer as answer:
            body, status = answer.error, answer.status
        if key and status not in {400, 404}:  # what is not valid was not begun
            self.answers[key] = (params, status, body)
        if self.loses_answers:
            return self._broken(request)
        if self.breaks_off:
            begun = web.StreamResponse(headers={"Content-Length": "1000"})
            await begun.prepare(request)
            await begun.write(b"{")
            self._broken(request)
            return begun
        return web.json_response(body, status=status)

    def _broken(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def create(self, _request: web.Request, params: Node) -> Node:
        known = _known(
            params, r"amount|currency|automatic_payment_methods\[(enabled|allow_redirects)\]|metadata\[\w+\]"
        )
        if int(known["amount"]) < 50:
            raise Answer(400, _error("amount_too_small", param="amount"))
        intent_id = f"pi_{secrets.token_hex(12)}"
        self.intents[intent_id] = {
            "id": intent_id,
            "object": "payment_intent",
            "amount": int(known["amount"]),
            "currency": known["currency"],
            "client_secret": f"{intent_id}_secret_{secrets.token_hex(8)}",
            "status": "requires_payment_method",
            "next_action": None,
            "last_payment_error": None,
            "metadata": {name[9:-1]: value for name, value in known.items() if name.startswith("metadata[")},
        }
        return dict(self.intents[intent_id])

    def retrieve(self, request: web.Request, params: Node) -> Node:
        _known(params, r"expand\[\d+\]")
        return dict(self._intent(request))

    def confirm(self, request: web.Request, params: Node) -> Node:
        known, intent = _known(params, "payment_method|return_url"), self._intent(request)
        if intent["status"] not in _OPEN:
            raise Answer(400, _error("payment_intent_unexpected_state"))
        match known["payment_method"]:
            case "pm_card_visa":
                self._collect(intent)
            case "pm_card_visa_chargeDeclinedInsufficientFunds":
                charge = f"ch_{secrets.token_hex(8)}"
                self._refuse(intent, "card_declined", "insufficient_funds", charge)
                raise Answer(402, {"error": {**intent["last_payment_error"], "payment_intent": dict(intent)}})
            case "pm_card_authenticationRequired":
                url = f"https://hooks.stripe.example/redirect/{intent['id']}"
                intent["status"] = "requires_action"
                intent["next_action"] = {"type": "redirect_to_url", "redirect_to_url": {"url": url}}
            case "pm_usBankAccount_success":
                intent["status"] = "processing"
            case _:
                raise Answer(404, _error("resource_missing", param="payment_method"))
        return dict(intent)

    def cancel(self, request: web.Request, params: Node) -> Node:
        _known(params, "cancellation_reason")
        intent = self._intent(request)
        if intent["status"] not in _OPEN:
            raise Answer(400, _error("payment_intent_unexpected_state"))
        intent |= {"status": "canceled", "next_action": None}
        return dict(intent)

    def refund(self, _request: web.Request, params: Node) -> Node:
        known = _known(params, r"payment_intent|amount|metadata\[\w+\]")
        amount, intent = int(known["amount"]), known["payment_intent"]
        if self.balance(intent) < amount:
            raise Answer(400, _error("charge_already_refunded"))
        refund_id = f"re_{secrets.token_hex(12)}"
        self.refunds[refund_id] = {
            "id": refund_id,
            "object": "refund",
            "amount": amount,
            "payment_intent": intent,
            "status": "succeeded",
            "metadata": {name[9:-1]: value for name, value in known.items() if name.startswith("metadata[")},
        }
        return dict(self.refunds[refund_id])

    def listed(self, _request: web.Request, params: Node) -> Node:
        known = _known(params, "payment_intent|limit|starting_after")
        if known["payment_intent"] in self.forgotten:
            self.asked_in_vain.set()
            raise Answer(404, _error("resource_missing", param="payment_intent"))
        found = [each for each in self.refunds.values() if each["payment_intent"] == known["payment_intent"]][::-1]
        begin = 0
        if "starting_after" in known:
            begin = [each["id"] for each in found].index(known["starting_after"]) + 1
        page = found[begin : begin + 1]  # as small as can be, so that pages are turned
        return {"object": "list", "data": page, "has_more": begin + 1 < len(found), "url": "/v1/refunds"}

    def _intent(self, request: web.Request) -> Node:
        intent = self.intents.get(request.match_info["id"])
        if intent is None:
            raise Answer(404, _error("resource_missing", param="intent"))
        return intent

    def _collect(self, intent: Node) -> None:
        self.charges.setdefault(intent["id"], []).append(intent["amount"])
        intent |= {"status": "succeeded", "last_payment_error": None}

    def _refuse(self, intent: Node, code: str, decline_code: str | None, charge: str | None) -> None:
        error = {"type": "card_error", "code": code, "message": "Your card was declined.", "charge": charge}
        if decline_code is not None:
            error["decline_code"] = decline_code
        intent |= {"status": "requires_payment_method", "last_payment_error": error}


def _known(params: Mapping[str, Any], names: str) -> Node:
    unknown = [name for name in params if not re.fullmatch(names, name)]
    if unknown:
        raise Answer(400, _error("parameter_unknown", param=unknown[0]))
    return dict(params)


def _error(code: str, *, type_: str = "invalid_request_error", param: str | None = None) -> Node:
    return {"error": {"type": type_, "code": code, "message": f"{code}: {param}", "param": param}}


@asynccontextmanager
async def standing_in() -> AsyncIterator[Stripe]:
    stripe = Stripe()
    app = web.Application()
    intents = "/v1/payment_intents"
    app.add_routes(
        [
            web.post(intents, stripe.answering(stripe.create)),
            web.get(f"{intents}/{{id}}", stripe.answering(stripe.retrieve)),
            web.post(f"{intents}/{{id}}/confirm", stripe.answering(stripe.confirm)),
            web.post(f"{intents}/{{id}}/cancel", stripe.answering(stripe.cancel)),
            web.post("/v1/refunds", stripe.answering(stripe.refund)),
            web.get("/v1/refunds", stripe.answering(stripe.listed)),
        ]
    )
    async with TestServer(app) as server:
        stripe.url = str(server.make_url("")).rstrip("/")
        yield stripe
