"""REST endpoints of orders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from handlers.commands import Caller
from handlers.errors import Forbidden, IllegalTransition, Invalid, KeyInFlight, KeyReused, OutOfStock
from handlers.http import (
    Endpoint,
    answer_lines,
    caller_of,
    etag,
    expected_version,
    idempotency_key,
    json_reply,
    path_id,
    position_headers,
    read_body,
    read_query,
    replayable,
    send_lines,
    signed_in,
    unless_known,
)
from handlers.ndjson import LineTooLong
from handlers.orders import bulk, commands
from handlers.orders.model import REQUESTED, Action
from handlers.orders.schemas import (
    AdvanceOrder,
    ChangeBody,
    EditOrder,
    EditOrderRequest,
    ExportQuery,
    HistoryOf,
    ImportedBody,
    ImportLine,
    LiveOrderBody,
    LiveOrderList,
    OrderBody,
    OrderQuery,
    PlaceOrder,
    PlaceOrderRequest,
)
from handlers.schemas import ById, Listing, PageQuery

PATH = "/api/v1/orders"
EXPORT_PATH = "/api/v1/exports/orders"


async def place(request: web.Request) -> web.Response:
    actor = signed_in(request)
    body = await read_body(request, PlaceOrderRequest)
    order = PlaceOrder(**dict(body), idempotency_key=idempotency_key(request))
    reply = await commands.place(caller_of(request, actor), order)
    placed = orjson.loads(reply.body)
    return replayable(reply, {"Location": f"{PATH}/{placed['id']}", "ETag": etag(placed["version"])})


async def get(request: web.Request) -> web.Response:
    found = await commands.get(caller_of(request, signed_in(request)), ById(id=path_id(request)))
    return unless_known(request, found.encode(), found.stream, tag=etag(found.version))


async def page(request: web.Request) -> web.Response:
    found = await commands.page(caller_of(request, signed_in(request)), read_query(request, OrderQuery))
    return unless_known(request, found.encode(), found.stream)


async def export(request: web.Request) -> web.StreamResponse:
    found = await bulk.export(caller_of(request, signed_in(request), is_steady=False), read_query(request, ExportQuery))
    headers = {"X-Total-Count": str(found.count), **position_headers(found.stream)}
    return await send_lines(request, found.lines, headers)


async def import_(request: web.Request) -> web.StreamResponse:
    actor = signed_in(request)
    actor.require_staff()
    caller = caller_of(request, actor, is_steady=False)

    async def place(numbered: tuple[int, bytes | LineTooLong]) -> bytes:
        return (await bulk.import_line(caller, *numbered)).encode() + b"\n"

    return await answer_lines(request, place, at_once=bulk.AT_ONCE)


async def history(request: web.Request) -> web.Response:
    caller = caller_of(request, signed_in(request))
    page = read_query(request, PageQuery)
    found = await commands.history(caller, HistoryOf(id=path_id(request), **dict(page)))
    return unless_known(request, found.encode())


async def edit(request: web.Request) -> web.Response:
    caller = caller_of(request, signed_in(request))
    order_id = path_id(request)
    body = await read_body(request, EditOrderRequest)
    order = await commands.edit(caller, EditOrder(id=order_id, version=expected_version(request), **body.given()))
    return json_reply(order.encode(), headers={"ETag": etag(order.version)})


def _advance(
    run: Callable[[Caller, AdvanceOrder], Awaitable[OrderBody]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def advance(request: web.Request) -> web.Response:
        caller = caller_of(request, signed_in(request))
        which = AdvanceOrder(id=path_id(request), version=expected_version(request))
        order = await run(caller, which)
        return json_reply(order.encode(), headers={"ETag": etag(order.version)})

    return advance


_ADVANCING = {
    Action.PAY: "Note that an order was paid for by hand",
    Action.PACK: "Note that a paid order is packed",
    Action.SHIP: "Note that a packed order is on its way",
    Action.DELIVER: "Note that a shipped order has arrived",
    Action.CANCEL: "Cancel a draft or an unpaid order, as staff also one that is not shipped; pieces and money go back",
    Action.RETURN: "Note that an order's pieces have come back",
}

ENDPOINTS = (
    Endpoint(
        name="orders.place",
        method="POST",
        path=PATH,
        handler=place,
        summary="Place an order, or draft one",
        body=PlaceOrderRequest,
        reply=OrderBody,
        status=201,
        refusals=(OutOfStock, KeyInFlight, KeyReused),
        takes_key=True,
        has_location=True,
        has_version=True,
    ),
    Endpoint(
        name="orders.list",
        method="GET",
        path=PATH,
        handler=page,
        summary="List one's own orders, for staff everybody's: filtered, searched, sorted",
        query=OrderQuery,
        reply=LiveOrderList,
        has_position=True,
        has_digest=True,
    ),
    Endpoint(
        name="orders.get",
        method="GET",
        path=f"{PATH}/{{id}}",
        handler=get,
        summary="Read an order",
        reply=LiveOrderBody,
        has_position=True,
        has_version=True,
    ),
    Endpoint(
        name="orders.history",
        method="GET",
        path=f"{PATH}/{{id}}/history",
        handler=history,
        summary="Who did what to an order and when, oldest first",
        query=PageQuery,
        reply=Listing[ChangeBody],
        has_digest=True,
    ),
    Endpoint(
        name="orders.edit",
        method="PATCH",
        path=f"{PATH}/{{id}}",
        handler=edit,
        summary="Change the address or the note of an order that is not packed yet, or all of a draft",
        body=EditOrderRequest,
        reply=OrderBody,
        refusals=(IllegalTransition,),
        has_version=True,
    ),
    Endpoint(
        name="orders.place_draft",
        method="POST",
        path=f"{PATH}/{{id}}/place",
        handler=_advance(commands.place_draft),
        summary="Place a draft, at today's prices",
        reply=OrderBody,
        refusals=(Invalid, IllegalTransition, OutOfStock),
        has_version=True,
    ),
    Endpoint(
        name="orders.export",
        method="GET",
        path=EXPORT_PATH,
        handler=export,
        summary="All orders that one may see, or some of them, oldest first: one on each line",
        query=ExportQuery,
        reply=OrderBody,
        has_position=True,
        has_count=True,
        sends_lines=True,
    ),
    Endpoint(
        name="orders.import",
        method="POST",
        path=bulk.IMPORT_PATH,
        handler=import_,
        summary="Place an order for each line, as staff; each answer comes as soon as its order is placed",
        body=ImportLine,
        reply=ImportedBody,
        refusals=(Forbidden,),
        takes_lines=True,
        sends_lines=True,
    ),
    *(
        Endpoint(
            name=f"orders.{action}",
            method="POST",
            path=f"{PATH}/{{id}}/{action}",
            handler=_advance(commands.advance(action)),
            summary=_ADVANCING[action],
            reply=OrderBody,
            refusals=(Forbidden, IllegalTransition),
            has_version=True,
        )
        for action in REQUESTED
    ),
)
