"""The commands of products: parameters -> service -> result."""

from __future__ import annotations

from handlers.commands import Caller, command
from handlers.products import service
from handlers.products.schemas import ProductBody
from handlers.reading import parse_text, read_cursor
from handlers.schemas import ById, Listing, PageQuery, encode_cursor


async def page(caller: Caller, query: PageQuery) -> Listing[ProductBody]:
    after_sku = read_cursor(query.cursor, parse_text) or ""
    found = await caller.work.read(lambda uow: service.page(uow, after_sku=after_sku, limit=query.limit))
    return Listing[ProductBody](
        items=[ProductBody.of(product) for product in found.products],
        next=None if found.next is None else encode_cursor(found.next),
    )


async def get(caller: Caller, which: ById) -> ProductBody:
    return ProductBody.of(await caller.work.read(lambda uow: service.get(uow, which.id)))


COMMANDS = (command("products.list", PageQuery, page), command("products.get", ById, get))
