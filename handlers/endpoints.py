"""A REST endpoint: where it is, what answers, and what has to be known to call it. Routes and the OpenAPI document are
made of the same table, which each domain's http.py has."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from handlers.errors import AppError
from handlers.schemas import Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """`name` is unique, and that of the command if there is one for clients of the socket. `reply` is the body of the
    answer with `status`; `body` and `query` are what is read.

    `refusals` are this endpoint's own. What follows from the rest is not among them: a body may be invalid, who is
    nobody is unauthenticated, what an id names may not be there.
    """

    name: str
    method: str
    path: str
    handler: Handler
    summary: str
    reply: type[Body]
    status: int = 200
    body: type[Body] | None = None
    query: type[Body] | None = None
    refusals: tuple[type[AppError], ...] = ()
    is_public: bool = False
    takes_key: bool = False  # an Idempotency-Key
    has_position: bool = False  # X-Stream-Offset and X-Stream-Epoch
    has_location: bool = False

    def route(self) -> web.RouteDef:
        if self.method == "GET":
            return web.get(self.path, self.handler)
        return web.route(self.method, self.path, self.handler)
