"""The tables of routes and of commands: which address and which name leads where. docs/api/README.md describes both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

import handlers.accounts.commands
import handlers.accounts.http
import handlers.discounts.commands
import handlers.discounts.http
import handlers.orders.commands
import handlers.orders.http
import handlers.payments.commands
import handlers.payments.http
import handlers.products.commands
import handlers.products.http
import handlers.stats.commands
import handlers.stats.http
from handlers.actor import Actor
from handlers.commands import Command
from handlers.errors import InvalidToken
from handlers.http import Endpoint, Identify
from realtime.tokens import TokenAuthority, TokenExpired, TokenInvalid

REST: Final[Sequence[Endpoint]] = (
    *handlers.accounts.http.ENDPOINTS,
    *handlers.products.http.ENDPOINTS,
    *handlers.discounts.http.ENDPOINTS,
    *handlers.orders.http.ENDPOINTS,
    *handlers.payments.http.ENDPOINTS,
    *handlers.stats.http.ENDPOINTS,
)


STREAMED: Final = frozenset(endpoint.path for endpoint in REST if endpoint.takes_lines)
"""Where the handler reads the body as it comes."""
_DOCS: Final = "docs.html"
_SWAGGER_UI: Final = ("swagger-ui.css", "swagger-ui-bundle.js")
# Swagger UI styles elements one by one, and has its pictures in its style sheet.
_DOCS_POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


def build_routes(
    *,
    transports: Sequence[web.RouteDef],
    openapi: Handler,
    asyncapi: Handler,
    health: Sequence[web.RouteDef],
    metrics: Handler,
    web_folder: Path | None,
    swagger_ui_folder: Path | None,
) -> list[web.RouteDef]:
    """All routes of a node. `web_folder` holds the pages at `/` and `/docs`; the latter also needs Swagger UI's files.
    Without a folder there is no such page."""
    return [
        *(endpoint.route() for endpoint in REST),
        *transports,
        web.get("/openapi.json", openapi),
        web.get("/asyncapi.json", asyncapi),
        *health,
        web.get("/metrics", metrics),
        *([] if web_folder is None else _page(web_folder)),
        *([] if web_folder is None or swagger_ui_folder is None else _docs(web_folder, swagger_ui_folder)),
    ]


def page(document: Callable[[], Mapping[str, Any]]) -> Handler:
    """A contract, as programs read it. To make it takes a while, so the first who asks waits, not every start."""
    rendered = cache(lambda: orjson.dumps(document()))

    async def send(_request: web.Request) -> web.Response:
        body = await asyncio.to_thread(rendered)
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "max-age=300"})

    return send


def build_commands() -> list[Command]:
    """All commands of a node, for clients of the socket."""
    return [
        *handlers.accounts.commands.COMMANDS,
        *handlers.products.commands.COMMANDS,
        *handlers.discounts.commands.COMMANDS,
        *handlers.orders.commands.COMMANDS,
        *handlers.payments.commands.COMMANDS,
        *handlers.stats.commands.COMMANDS,
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
        if file.is_file() and file.name != _DOCS
    ]
    return [web.get("/", _send(folder / "index.html")), *routes]


def _docs(folder: Path, swagger_ui_folder: Path) -> list[web.RouteDef]:
    files = [web.get(f"/swagger-ui/{name}", _send(swagger_ui_folder / name)) for name in _SWAGGER_UI]
    return [web.get("/docs", _send(folder / _DOCS, {"Content-Security-Policy": _DOCS_POLICY})), *files]


def _send(file: Path, headers: Mapping[str, str] = _NO_HEADERS) -> Handler:
    async def send(_request: web.Request) -> web.FileResponse:
        # Files keep their names across releases, so a browser has to ask whether it has the present ones.
        return web.FileResponse(file, headers={"Cache-Control": "no-cache", **headers})

    return send
