"""What every request passes: ids, logs and figures outermost, then problem documents, the Host check, the body."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Iterable, Set
from http import HTTPStatus

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter, Histogram

from handlers import timing
from handlers.http import BODY_TIMEOUT, REQUEST_ID, TRACEPARENT
from handlers.traceparent import continue_trace
from server.compressing import compressed
from server.problems import problem_of
from server.sharing import SHARED, share

log = structlog.get_logger(__name__)

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
API_PREFIX = "/api/"

_CLIENT_GONE = 499  # never sent: the client closed the connection before there was an answer
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_PROBES = ("/health/", "/metrics")
_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds
_RESPONSE_BEGUN = web.RequestKey("response_begun", bool)
_SPENT = web.RequestKey("spent", tuple[float, timing.Timing])
"""When it began, and what it has spent since."""

_SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}


class HttpMetrics:
    """Requests by route template, never by path: the number of label values stays that of the routes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "orderwire_http_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "orderwire_http_request_seconds",
            "Time to answer.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        known = method if method in hdrs.METH_ALL else "other"
        self._requests.labels(known, route, str(status)).inc()
        if status != HTTPStatus.SWITCHING_PROTOCOLS:  # a socket's life is no time to answer
            self._seconds.labels(known, route).observe(seconds)


def middlewares(
    metrics: HttpMetrics,
    *,
    allowed_hosts: Iterable[str],
    body_timeout: float,
    allowed_origins: Iterable[str] = (),
    streamed: Set[str] = frozenset(),
) -> list[Middleware]:
    """In the order in which requests pass them. No allowed host means: any. `streamed` are the paths whose handlers
    read the body themselves.

    One that has nothing to do afterwards hands on what the handler returns instead of awaiting it: else it would stay
    in memory for as long as a client is connected.
    """
    first: list[Middleware] = [observe(metrics), share(allowed_origins), compress, render_problems]
    return [*first, check_host(allowed_hosts), receive_body(body_timeout, streamed)]


def observe(metrics: HttpMetrics) -> Middleware:
    """Give the request its ids, and tell log and metrics how it went."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("traceparent")
        trace_id, traceparent = continue_trace(given)
        request_id = _given_id(request) or (trace_id if given is None else secrets.token_hex(16))
        request[REQUEST_ID], request[TRACEPARENT] = request_id, traceparent
        is_call = request.path.startswith(API_PREFIX)
        started = time.perf_counter()
        spent, token = timing.begin() if is_call else (None, None)
        if spent is not None:
            request[_SPENT] = (started, spent)
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR
        # Not structlog's context manager: it would live, and take memory, as long as a client is connected.
        bound = structlog.contextvars.bind_contextvars(request_id=request_id, trace_id=trace_id)
        try:
            response = await handler(request)
            # A handler may go on without its client. What was sent before that, as to a socket, counts as it was.
            is_gone = request.transport is None and not response.prepared
            status = _CLIENT_GONE if is_gone else response.status
        except asyncio.CancelledError:
            status = _CLIENT_GONE
            raise
        finally:
            _report(metrics, request, status, time.perf_counter() - started)
            structlog.contextvars.reset_contextvars(**bound)
            if token is not None:
                timing.end(token)
        return response

    return middleware


@web.middleware
async def render_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        return problem_of(error).response(request[REQUEST_ID])
    except Exception as error:
        problem = problem_of(error)
        if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            log.exception("request_failed")
        if request.get(_RESPONSE_BEGUN):  # too late for another answer; aiohttp closes the connection
            raise
        return problem.response(request[REQUEST_ID])


@web.middleware
def compress(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
    """Large answers of the API, for clients that take them so."""
    return _compress(request, handler) if request.path.startswith(API_PREFIX) else handler(request)


async def _compress(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await compressed(request, await handler(request))


def check_host(allowed_hosts: Iterable[str]) -> Middleware:
    """Refuse requests for other hosts than these with 421: a page that rebinds its DNS name to us has a foreign Host.

    Probes of liveness and readiness pass: balancers ask by address.
    """
    allowed = frozenset(map(_name, allowed_hosts))

    @web.middleware
    def middleware(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        if allowed and not request.path.startswith("/health/"):
            hosts = request.headers.getall(hdrs.HOST, [])
            if len(hosts) != 1 or _name(_without_port(hosts[0])) not in allowed:
                raise web.HTTPMisdirectedRequest
        return handler(request)

    return middleware


def receive_body(seconds: float, streamed: Set[str] = frozenset()) -> Middleware:
    """Refuse with 408 what has not come whole after so long, and with 413, at once, what says that it is too large:
    handlers find the body there, and wait for nobody. But for the paths in `streamed`: their handlers learn how long
    they may wait for more."""

    @web.middleware
    def middleware(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        if request.path in streamed:
            request[BODY_TIMEOUT] = seconds
        elif not request.content.is_eof() and request.match_info.http_exception is None:
            return received(request, handler)
        return handler(request)

    async def received(request: web.Request, handler: Handler) -> web.StreamResponse:
        size, most = request.content_length or 0, request.client_max_size
        if size > most:
            raise web.HTTPRequestEntityTooLarge(max_size=most, actual_size=size)
        try:
            async with asyncio.timeout(seconds):
                await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        except web.RequestPayloadError:
            raise web.HTTPBadRequest from None
        return await handler(request)

    return middleware


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: it sees streamed responses too, before their head is sent."""
    request[_RESPONSE_BEGUN] = True
    response.headers.pop(hdrs.SERVER, None)  # which versions run here is nobody else's business
    if isinstance(response, web.WebSocketResponse):
        return
    if REQUEST_ID in request:
        response.headers["X-Request-Id"] = request[REQUEST_ID]
    for name, value in _SAFE_HEADERS.items():
        response.headers.setdefault(name, value)
    if request.path.startswith(API_PREFIX):
        response.headers.setdefault("Cache-Control", "no-store")
    if _SPENT in request:
        started, spent = request[_SPENT]
        total = time.perf_counter() - started
        response.headers["Server-Timing"] = f"db;dur={1000 * spent.database:.1f}, total;dur={1000 * total:.1f}"
    response.headers.extend(request.get(SHARED, ()))


def _given_id(request: web.Request) -> str | None:
    given = request.headers.get("X-Request-Id", "")
    return given if _REQUEST_ID.fullmatch(given) else None


def _report(metrics: HttpMetrics, request: web.Request, status: int, seconds: float) -> None:
    resource = request.match_info.route.resource
    route = "unmatched" if resource is None else resource.canonical
    metrics.observe(request.method, route, status, seconds)
    level = logging.DEBUG if request.path.startswith(_PROBES) else logging.INFO
    if not log.is_enabled_for(level):
        return
    log.log(
        level,
        "http_request",
        method=request.method,
        route=route,
        path=request.rel_url.raw_path,  # still encoded: no control character gets into a log line
        status=status,
        milliseconds=round(seconds * 1000, 1),
    )


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _name(host: str) -> str:
    """The one name that it is in DNS, where a dot at the end only says that it is whole."""
    return host.lower().removesuffix(".")
