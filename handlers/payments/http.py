"""REST endpoints of payments, and where their provider tells of them."""

from __future__ import annotations

from aiohttp import web

from handlers.errors import Forbidden, Invalid, KeyInFlight, KeyReused, NotFound, NotPayable, NotRefundable
from handlers.http import (
    Endpoint,
    caller_of,
    idempotency_key,
    json_reply,
    path_id,
    position_headers,
    read_body,
    replayable,
    services,
    signed_in,
    work,
)
from handlers.orders.http import PATH as ORDERS
from handlers.payments import commands, notices
from handlers.payments.schemas import (
    LivePaymentBody,
    OwnPaymentBody,
    PayOrder,
    PayOrderRequest,
    ReceivedBody,
    RefundBody,
    RefundOrder,
    RefundOrderRequest,
)
from handlers.ports.payments import ForgedNotice
from handlers.schemas import ById

NOTICES = "/api/v1/payments/notices"


async def pay(request: web.Request) -> web.Response:
    caller = caller_of(request, signed_in(request))
    order_id = path_id(request)
    body = await read_body(request, PayOrderRequest)
    order = PayOrder(
        id=order_id, method=body.method, return_url=body.return_url, idempotency_key=idempotency_key(request)
    )
    return replayable(await commands.pay(caller, order))


async def get(request: web.Request) -> web.Response:
    found = await commands.get(caller_of(request, signed_in(request)), ById(id=path_id(request)))
    return json_reply(found.encode(), headers=position_headers(found.stream))


async def refund(request: web.Request) -> web.Response:
    caller = caller_of(request, signed_in(request))
    order_id = path_id(request)
    body = await read_body(request, RefundOrderRequest)
    order = RefundOrder(id=order_id, amount=body.amount, idempotency_key=idempotency_key(request))
    return replayable(await commands.refund(caller, order))


async def notice(request: web.Request) -> web.Response:
    provider = services(request).provider
    if provider is None:
        raise NotFound
    try:
        await notices.receive(
            work(request), provider, await request.read(), request.headers.get("Stripe-Signature", "")
        )
    except ForgedNotice as forged:
        raise Forbidden(str(forged)) from None
    return json_reply(ReceivedBody().encode())


ENDPOINTS = (
    Endpoint(
        name="payments.pay",
        method="POST",
        path=f"{ORDERS}/{{id}}/payment",
        handler=pay,
        summary="Pay an order, or try again with another method",
        body=PayOrderRequest,
        reply=OwnPaymentBody,
        refusals=(Invalid, NotPayable, KeyInFlight, KeyReused),
        takes_key=True,
    ),
    Endpoint(
        name="payments.get",
        method="GET",
        path=f"{ORDERS}/{{id}}/payment",
        handler=get,
        summary="How the payment of an order stands, and what of it was given back",
        reply=LivePaymentBody,
        has_position=True,
    ),
    Endpoint(
        name="payments.refund",
        method="POST",
        path=f"{ORDERS}/{{id}}/refunds",
        handler=refund,
        summary="Give back what was paid for an order, or a part of it",
        body=RefundOrderRequest,
        reply=RefundBody,
        status=201,
        refusals=(Forbidden, NotRefundable, KeyInFlight, KeyReused),
        takes_key=True,
    ),
    Endpoint(
        name="payments.notice",
        method="POST",
        path=NOTICES,
        handler=notice,
        summary="For the payment provider, who signs it: something has happened to a payment",
        reply=ReceivedBody,
        refusals=(Forbidden, NotFound),
        is_public=True,
    ),
)
