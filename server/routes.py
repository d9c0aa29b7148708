"""The tables of routes and of commands: which address and which name leads where. docs/api.md describes both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

import handlers.accounts.commands
import handlers.accounts.http
import handlers.orders.commands
import handlers.orders.http
import handlers.products.commands
import handlers.products.http
from handlers.actor import Actor
from handlers.commands import Command
from handlers.errors import InvalidToken
from handlers.http import Endpoint, Identify
from realtime.tokens import TokenAuthority, TokenExpired, TokenInvalid

REST: Final[Sequence[Endpoint]] = (
    *handlers.accounts.http.ENDPOINTS,
    *handlers.products.http.ENDPOINTS,
    *handlers.orders.http.ENDPOINTS,
)


def build_routes(
    *,
    transports: Sequence[web.RouteDef],
    openapi: Handler,
    asyncapi: Handler,
    health: Sequence[web.RouteDef],
    metrics: Handler,
    web_folder: Path | None,
) -> list[web.RouteDef]:
    """All routes of a node. `web_folder` holds the page at `/`; without it there is none."""
    return [
        *(endpoint.route() for endpoint in REST),
        *transports,
        web.get("/openapi.json", openapi),
        web.get("/asyncapi.json", asyncapi),
        *health,
        web.get("/metrics", metrics),
        *([] if web_folder is None else _page(web_folder)),
    ]


def page(document: Mapping[str, Any]) -> Handler:
    """A contract, as programs read it."""
    body = orjson.dumps(document)

    async def send(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "max-age=300"})

    return send


def build_commands() -> list[Command]:
    """All commands of a node, for clients of the socket."""
    return [
        *handlers.accounts.commands.COMMANDS,
        *handlers.products.commands.COMMANDS,
        *handlers.orders.commands.COMMANDS,
    ]


def server_api_routes(handle: Handler) -> list[web.RouteDef]:
    """A deployment has these when it has set a key."""
    return [web.post("/api/{method:[a-z_]+}", handle)]


def identify_by(tokens: TokenAuthority) -> Identify:
    """REST accepts the tokens that the sockets accept."""

    def identify(token: str, now: datetime) -> Actor:
        try:
            return tokens.verify(token, now).actor
        except TokenExpired:
            raise InvalidToken("The access token has expired.") from None
        except TokenInvalid:
            raise InvalidToken from None

    return identify


def _page(folder: Path) -> list[web.RouteDef]:
    # One route per file, not `web.static("/")`: that would answer 405 where nothing is.
    routes = [
        web.get(f"/{file.relative_to(folder).as_posix()}", _send(file))
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
    return [web.get("/", _send(folder / "index.html")), *routes]


def _send(file: Path) -> Handler:
    async def send(_request: web.Request) -> web.FileResponse:
        # Files keep their names across releases, so a browser has to ask whether it has the present ones.
        return web.FileResponse(file, headers={"Cache-Control": "no-cache"})

    return send
