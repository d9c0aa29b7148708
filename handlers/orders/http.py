"""REST endpoints of orders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from handlers.http import (
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
from handlers.orders.schemas import PlaceOrder, PlaceOrderRequest
from handlers.schemas import ById, PageQuery

PATH = "/api/v1/orders"


def routes() -> list[web.RouteDef]:
    transitions = [web.post(f"{PATH}/{{id}}/{action}", _advance(action)) for action in Action]
    return [web.post(PATH, place), web.get(PATH, page), web.get(f"{PATH}/{{id}}", get), *transitions]


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
