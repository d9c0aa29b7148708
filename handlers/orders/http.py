"""REST endpoints of orders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from handlers.errors import Forbidden, IllegalTransition, KeyInFlight, KeyReused, OutOfStock
from handlers.http import (
    Endpoint,
    caller_of,
    idempotency_key,
    json_reply,
    path_id,
    position_headers,
    read_body,
    read_query,
    signed_in,
)
from handlers.orders import commands
from handlers.orders.model import Action
from handlers.orders.schemas import LiveOrderBody, OrderBody, PlaceOrder, PlaceOrderRequest
from handlers.schemas import ById, LiveListing, PageQuery

PATH = "/api/v1/orders"


async def place(request: web.Request) -> web.Response:
    actor = signed_in(request)
    body = await read_body(request, PlaceOrderRequest)
    order = PlaceOrder(items=body.items, idempotency_key=idempotency_key(request))
    reply = await commands.place(caller_of(request, actor), order)
    headers = {"Location": f"{PATH}/{orjson.loads(reply.body)['id']}"}
    if reply.replayed:
        headers["Idempotency-Replayed"] = "true"
    return json_reply(reply.body, status=reply.status, headers=headers)


async def get(request: web.Request) -> web.Response:
    found = await commands.get(caller_of(request, signed_in(request)), ById(id=path_id(request)))
    return json_reply(found.encode(), headers=position_headers(found.stream))


async def page(request: web.Request) -> web.Response:
    found = await commands.page(caller_of(request, signed_in(request)), read_query(request, PageQuery))
    return json_reply(found.encode(), headers=position_headers(found.stream))


def _advance(action: Action) -> Callable[[web.Request], Awaitable[web.Response]]:
    run = commands.advance(action)

    async def advance(request: web.Request) -> web.Response:
        order = await run(caller_of(request, signed_in(request)), ById(id=path_id(request)))
        return json_reply(order.encode())

    return advance


_ADVANCING = {
    Action.PAY: "Note that a placed order is paid",
    Action.SHIP: "Note that a paid order is on its way",
    Action.DELIVER: "Note that a shipped order has arrived",
    Action.CANCEL: "Cancel an order that is placed, as staff also one that is paid; its pieces go back to the stock",
}

ENDPOINTS = (
    Endpoint(
        name="orders.place",
        method="POST",
        path=PATH,
        handler=place,
        summary="Place an order",
        body=PlaceOrderRequest,
        reply=OrderBody,
        status=201,
        refusals=(OutOfStock, KeyInFlight, KeyReused),
        takes_key=True,
        has_location=True,
    ),
    Endpoint(
        name="orders.list",
        method="GET",
        path=PATH,
        handler=page,
        summary="List one's own orders, newest first; for staff everybody's",
        query=PageQuery,
        reply=LiveListing[OrderBody],
        has_position=True,
    ),
    Endpoint(
        name="orders.get",
        method="GET",
        path=f"{PATH}/{{id}}",
        handler=get,
        summary="Read an order",
        reply=LiveOrderBody,
        has_position=True,
    ),
    *(
        Endpoint(
            name=f"orders.{action}",
            method="POST",
            path=f"{PATH}/{{id}}/{action}",
            handler=_advance(action),
            summary=_ADVANCING[action],
            reply=OrderBody,
            refusals=(Forbidden, IllegalTransition),
        )
        for action in Action
    ),
)
