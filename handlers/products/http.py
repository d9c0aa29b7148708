"""REST endpoints of products."""

from __future__ import annotations

from aiohttp import web

from handlers.http import Endpoint, caller_of, path_id, read_query, signed_in, unless_known
from handlers.products import commands
from handlers.products.schemas import ProductBody
from handlers.schemas import ById, Listing, PageQuery

PATH = "/api/v1/products"


async def page(request: web.Request) -> web.Response:
    found = await commands.page(caller_of(request, signed_in(request)), read_query(request, PageQuery))
    return unless_known(request, found.encode())


async def get(request: web.Request) -> web.Response:
    found = await commands.get(caller_of(request, signed_in(request)), ById(id=path_id(request)))
    return unless_known(request, found.encode())


ENDPOINTS = (
    Endpoint(
        name="products.list",
        method="GET",
        path=PATH,
        handler=page,
        summary="List products in order of SKU",
        query=PageQuery,
        reply=Listing[ProductBody],
        has_digest=True,
    ),
    Endpoint(
        name="products.get",
        method="GET",
        path=f"{PATH}/{{id}}",
        handler=get,
        summary="Read a product",
        reply=ProductBody,
        has_digest=True,
    ),
)
