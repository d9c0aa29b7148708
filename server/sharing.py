"""Cross-origin requests to the REST API: which pages of other origins may call it (the Fetch standard's CORS)."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Iterator
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from realtime.wildcards import fits

PREFIX: Final = "/api/v1/"
SHARED: Final = web.RequestKey("shared", list[tuple[str, str]])
"""Headers for the answer."""

_MAY_SEND: Final = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Request-Id, traceparent"
_MAY_READ: Final = (
    "ETag, Idempotency-Replayed, Location, Retry-After, Server-Timing, X-Request-Id, X-Stream-Epoch, X-Stream-Offset, "
    "X-Total-Count"
)
_PREFLIGHT_SECONDS: Final = "7200"  # the longest that browsers keep one


def share(origins: Iterable[str]) -> Middleware:
    """With pages of these origins; in a pattern, * stands for anything. OPTIONS tells what a path takes. What lets them
    read an answer is in SHARED before there is one: that of a stream has left when its handler returns.

    Nothing is shared with credentials: who calls says in each request whose token it has, and no cookie counts.
    """
    patterns = [origin.lower() for origin in origins]

    @web.middleware
    def middleware(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        return shared(request, handler) if request.path.startswith(PREFIX) else handler(request)

    async def shared(request: web.Request, handler: Handler) -> web.StreamResponse:
        methods = _methods(request) if request.method == hdrs.METH_OPTIONS else None
        request[SHARED] = list(_headers(request, methods))
        return await handler(request) if methods is None else _told(methods)

    def _headers(request: web.Request, methods: str | None) -> Iterator[tuple[str, str]]:
        if patterns:
            yield hdrs.VARY, hdrs.ORIGIN
        origin = request.headers.get(hdrs.ORIGIN, "")
        if origin and any(fits(origin.lower(), pattern) for pattern in patterns):
            yield from _letting(origin, methods)

    return middleware


def _methods(request: web.Request) -> str | None:
    """Of the path, if there is something."""
    refusal = request.match_info.http_exception
    if not isinstance(refusal, web.HTTPMethodNotAllowed):
        return None
    return ", ".join(sorted({*refusal.allowed_methods, hdrs.METH_OPTIONS}))


def _told(methods: str) -> web.Response:
    return web.Response(status=204, headers={hdrs.ALLOW: methods})


def _letting(origin: str, methods: str | None) -> Iterator[tuple[str, str]]:
    yield hdrs.ACCESS_CONTROL_ALLOW_ORIGIN, origin
    if methods is None:
        yield hdrs.ACCESS_CONTROL_EXPOSE_HEADERS, _MAY_READ
        yield "Timing-Allow-Origin", origin
        return
    yield hdrs.ACCESS_CONTROL_ALLOW_METHODS, methods
    yield hdrs.ACCESS_CONTROL_ALLOW_HEADERS, _MAY_SEND
    yield hdrs.ACCESS_CONTROL_MAX_AGE, _PREFLIGHT_SECONDS
