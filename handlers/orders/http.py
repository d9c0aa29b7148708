"""REST endpoints of orders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from handlers.http import (
    cause_of,
    idempotency_claim,
    json_reply,
    path_id,
    position_headers,
    read_body,
    read_cursor,
    read_query,
    signed_in,
    work,
)
from handlers.idempotency import Reply, answer_once
from handlers.orders import service
from handlers.orders.model import Action
from handlers.orders.schemas import LiveOrderBody, OrderBody, PlaceOrderRequest
from handlers.ports.domain import UnitOfWork
from handlers.schemas import LiveListing, PageQuery, StreamBody, encode_cursor

PATH = "/api/v1/orders"
_LAST_NUMBER = 2**63 - 1


def routes() -> list[web.RouteDef]:
    transitions = [web.post(f"{PATH}/{{id}}/{action}", _advance(action)) for action in Action]
    return [web.post(PATH, place), web.get(PATH, page), web.get(f"{PATH}/{{id}}", get), *transitions]


async def place(request: web.Request) -> web.Response:
    actor = signed_in(request)
    body = await read_body(request, PlaceOrderRequest)
    claim = idempotency_claim(request, actor, body)
    cause = cause_of(request)

    async def command(uow: UnitOfWork) -> Reply:
        order = await service.place(uow, actor, body.quantities(), cause)
        return Reply(201, OrderBody.of(order).encode())

    reply = await work(request).write(lambda uow: answer_once(uow, claim, command))
    headers = {"Location": f"{PATH}/{orjson.loads(reply.body)['id']}"}
    if reply.replayed:
        headers["Idempotency-Replayed"] = "true"
    return json_reply(reply.body, status=reply.status, headers=headers)


async def get(request: web.Request) -> web.Response:
    actor, order_id = signed_in(request), path_id(request)
    snapshot = await work(request).read(lambda uow: service.get(uow, actor, order_id))
    body = LiveOrderBody.at(snapshot)
    return json_reply(body.encode(), headers=position_headers(body.stream))


async def page(request: web.Request) -> web.Response:
    actor, query = signed_in(request), read_query(request, PageQuery)
    before = read_cursor(query.cursor, _parse_number)
    snapshot = await work(request).read(lambda uow: service.page(uow, actor, before=before, limit=query.limit))
    found = snapshot.state
    body = LiveListing[OrderBody](
        items=[OrderBody.of(order) for order in found.orders],
        next=None if found.next is None else encode_cursor(str(found.next)),
        stream=StreamBody.of(snapshot),
    )
    return json_reply(body.encode(), headers=position_headers(body.stream))


def _advance(action: Action) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def advance(request: web.Request) -> web.Response:
        actor, order_id, cause = signed_in(request), path_id(request), cause_of(request)
        order = await work(request).write(lambda uow: service.advance(uow, actor, order_id, action, cause))
        return json_reply(OrderBody.of(order).encode())

    return advance


def _parse_number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_LAST_NUMBER))):
        return None
    number = int(text)
    return number if 0 < number <= _LAST_NUMBER else None
