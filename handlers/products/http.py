"""REST endpoints of products."""

from __future__ import annotations

from aiohttp import web

from handlers.http import json_reply, path_id, read_cursor, read_query, signed_in, work
from handlers.products import service
from handlers.products.schemas import ProductBody
from handlers.schemas import Listing, PageQuery, encode_cursor

PATH = "/api/v1/products"


def routes() -> list[web.RouteDef]:
    return [web.get(PATH, page), web.get(f"{PATH}/{{id}}", get)]


async def page(request: web.Request) -> web.Response:
    signed_in(request)
    query = read_query(request, PageQuery)
    after_sku = read_cursor(query.cursor, _parse_sku) or ""
    found = await work(request).read(lambda uow: service.page(uow, after_sku=after_sku, limit=query.limit))
    body = Listing[ProductBody](
        items=[ProductBody.of(product) for product in found.products],
        next=None if found.next is None else encode_cursor(found.next),
    )
    return json_reply(body.encode())


async def get(request: web.Request) -> web.Response:
    signed_in(request)
    product_id = path_id(request)
    product = await work(request).read(lambda uow: service.get(uow, product_id))
    return json_reply(ProductBody.of(product).encode())


def _parse_sku(text: str) -> str | None:
    return text if text and "\0" not in text else None
