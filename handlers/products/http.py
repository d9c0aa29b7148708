"""REST endpoints of products."""

from __future__ import annotations

from aiohttp import web

from handlers.http import caller_of, json_reply, path_id, read_query, signed_in
from handlers.products import commands
from handlers.schemas import ById, PageQuery

PATH = "/api/v1/products"


def routes() -> list[web.RouteDef]:
    return [web.get(PATH, page), web.get(f"{PATH}/{{id}}", get)]


async def page(request: web.Request) -> web.Response:
    found = await commands.page(caller_of(request, signed_in(request)), read_query(request, PageQuery))
    return json_reply(found.encode())


async def get(request: web.Request) -> web.Response:
    found = await commands.get(caller_of(request, signed_in(request)), ById(id=path_id(request)))
    return json_reply(found.encode())
