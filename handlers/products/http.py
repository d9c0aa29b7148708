"""REST endpoints of products."""

from __future__ import annotations

import orjson
from aiohttp import web

from handlers.errors import Conflict, Forbidden, KeyInFlight, KeyReused, OutOfStock
from handlers.http import (
    Endpoint,
    caller_of,
    etag,
    expected_version,
    idempotency_key,
    json_reply,
    path_id,
    read_body,
    read_query,
    replayable,
    signed_in,
    unless_known,
)
from handlers.products import commands
from handlers.products.commands import PATH
from handlers.products.schemas import (
    AdjustStock,
    AdjustStockRequest,
    EditProduct,
    EditProductRequest,
    LiveProductList,
    NewProduct,
    NewProductRequest,
    ProductBody,
    ProductQuery,
)
from handlers.schemas import ById


async def page(request: web.Request) -> web.Response:
    found = await commands.page(caller_of(request, signed_in(request)), read_query(request, ProductQuery))
    return unless_known(request, found.encode(), found.stream)


async def get(request: web.Request) -> web.Response:
    found = await commands.get(caller_of(request, signed_in(request)), ById(id=path_id(request)))
    return unless_known(request, found.encode(), tag=etag(found.version))


async def create(request: web.Request) -> web.Response:
    caller = caller_of(request, signed_in(request))
    body = await read_body(request, NewProductRequest)
    reply = await commands.create(caller, NewProduct(**dict(body), idempotency_key=idempotency_key(request)))
    made = orjson.loads(reply.body)
    return replayable(reply, {"Location": f"{PATH}/{made['id']}", "ETag": etag(made["version"])})


async def edit(request: web.Request) -> web.Response:
    caller = caller_of(request, signed_in(request))
    product_id = path_id(request)
    body = await read_body(request, EditProductRequest)
    wanted = EditProduct(id=product_id, version=expected_version(request), **body.given())
    edited = await commands.edit(caller, wanted)
    return json_reply(edited.encode(), headers={"ETag": etag(edited.version)})


async def adjust_stock(request: web.Request) -> web.Response:
    caller = caller_of(request, signed_in(request))
    product_id = path_id(request)
    body = await read_body(request, AdjustStockRequest)
    wanted = AdjustStock(
        id=product_id,
        pieces=body.pieces,
        version=expected_version(request),
        idempotency_key=idempotency_key(request),
    )
    reply = await commands.adjust_stock(caller, wanted)
    return replayable(reply, {"ETag": etag(orjson.loads(reply.body)["version"])})


ENDPOINTS = (
    Endpoint(
        name="products.list",
        method="GET",
        path=PATH,
        handler=page,
        summary="List products in order of SKU",
        query=ProductQuery,
        reply=LiveProductList,
        has_position=True,
        has_digest=True,
    ),
    Endpoint(
        name="products.get",
        method="GET",
        path=f"{PATH}/{{id}}",
        handler=get,
        summary="Read a product",
        reply=ProductBody,
        has_version=True,
    ),
    Endpoint(
        name="products.create",
        method="POST",
        path=PATH,
        handler=create,
        summary="Add a product; for staff, as all that changes products",
        body=NewProductRequest,
        reply=ProductBody,
        status=201,
        refusals=(Forbidden, Conflict, KeyInFlight, KeyReused),
        takes_key=True,
        has_location=True,
        has_version=True,
    ),
    Endpoint(
        name="products.edit",
        method="PATCH",
        path=f"{PATH}/{{id}}",
        handler=edit,
        summary="Rename a product, price it anew, or take it off sale",
        body=EditProductRequest,
        reply=ProductBody,
        refusals=(Forbidden,),
        has_version=True,
    ),
    Endpoint(
        name="products.adjust_stock",
        method="POST",
        path=f"{PATH}/{{id}}/stock",
        handler=adjust_stock,
        summary="Note that pieces of a product have arrived, or are gone",
        body=AdjustStockRequest,
        reply=ProductBody,
        refusals=(Forbidden, OutOfStock, KeyInFlight, KeyReused),
        takes_key=True,
        has_version=True,
    ),
)
