"""The edge that all REST endpoints share: requests in, typed values out, and back. Raises only `handlers.errors`
and aiohttp's HTTP exceptions; `server.problems` turns both into problem documents."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from handlers import ndjson
from handlers.actor import Actor
from handlers.clock import utc_now
from handlers.commands import Caller
from handlers.errors import AppError, Fault, Malformed, NotFound, Unauthenticated
from handlers.events import Cause
from handlers.idempotency import Reply, parse_key
from handlers.ports.domain import Passwords, Tokens
from handlers.ports.payments import PaymentProvider
from handlers.reading import MAX_FAULTS as MAX_FAULTS
from handlers.reading import SHAPE_CODES, faults_of, pointer, read_json
from handlers.rules import Rules
from handlers.schemas import Body, StreamBody
from handlers.work import Work

log = structlog.get_logger(__name__)

B = TypeVar("B", bound=Body)

Identify = Callable[[str, datetime], Actor]
"""Whose access token is this, now? Raises InvalidToken."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the REST endpoints need of the rest of the process."""

    work: Work
    rules: Rules
    provider: PaymentProvider | None
    passwords: Passwords
    tokens: Tokens
    identify: Identify


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A REST endpoint: where it is, what answers, and what has to be known to call it. Routes and the OpenAPI document
    are made of the same tables, one in each domain's http.py.

    `name` is unique, and that of the command if there is one for clients of the socket. `reply` is the body of the
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
    has_version: bool = False  # an ETag, of the version; what is to be changed may name it
    has_digest: bool = False  # an ETag, of the body
    has_count: bool = False  # X-Total-Count
    takes_lines: bool = False  # `body` is a line, and the handler reads them as they come
    sends_lines: bool = False  # `reply` is a line

    @property
    def has_etag(self) -> bool:
        return self.has_version or self.has_digest

    def route(self) -> web.RouteDef:
        if self.method == "GET":
            return web.get(self.path, self.handler)
        return web.route(self.method, self.path, self.handler)


ETAG = r'"([1-9][0-9]{0,9})"'
"""A version as an entity tag."""
DIGEST = r'W/"[0-9a-f]{24}"'
"""What a body amounts to as an entity tag."""

_ASK_AGAIN = {"Cache-Control": "private, no-cache", "Vary": "Authorization"}  # a browser then does so with the ETag

SERVICES = web.AppKey("services", Services)
REQUEST_ID = web.RequestKey("request_id", str)
TRACEPARENT = web.RequestKey("traceparent", str)
IS_STEADY = web.RequestKey("is_steady", bool)
"""The handler is not to be cancelled when its client goes away; it will soon be done."""
BODY_TIMEOUT = web.RequestKey("body_timeout", float)
"""Seconds, of a body that the handler reads."""


def services(request: web.Request) -> Services:
    return request.app[SERVICES]


def work(request: web.Request) -> Work:
    return services(request).work


def caller_of(request: web.Request, actor: Actor, *, is_steady: bool = True) -> Caller:
    """`actor` on whose behalf this request runs a command, now. `is_steady`: it goes on when its client goes away."""
    part = services(request)
    request[IS_STEADY] = is_steady
    cause = Cause(utc_now(), request.get(TRACEPARENT))
    return Caller(actor, cause, part.work, part.rules, part.provider, is_steady)


def signed_in(request: web.Request) -> Actor:
    """The bearer of the request's access token (RFC 6750). Raises Unauthenticated, or InvalidToken."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated
    return services(request).identify(token.strip(" "), utc_now())


def path_id(request: web.Request) -> UUID:
    """The `{id}` of the path; what is not the one spelling of a UUID names nothing."""
    text = request.match_info["id"]
    try:
        parsed = UUID(text)
    except ValueError:
        raise NotFound from None
    if str(parsed) != text:
        raise NotFound
    return parsed


async def read_body(request: web.Request, model: type[B]) -> B:
    """Raises 415, 413, and what `read_json` raises."""
    _refuse_other_bodies(request, "application/json")
    return read_json(await request.read(), model)


def _refuse_other_bodies(request: web.Request, media_type: str) -> None:
    if request.content_type != media_type:
        raise web.HTTPUnsupportedMediaType(text=f"The body must be {media_type}.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise web.HTTPUnsupportedMediaType(text="The body must not be compressed.")


def read_query(request: web.Request, model: type[B]) -> B:
    """Raises Malformed with every fault; pointers name the parameters."""
    repeated = sorted({name for name in request.query if len(request.query.getall(name)) > 1})
    if repeated:
        raise Malformed(faults=[Fault(pointer([name]), "repeated", "Give it once") for name in repeated[:MAX_FAULTS]])
    try:
        return model.model_validate_strings(dict(request.query), strict=False)
    except ValidationError as error:
        raise Malformed(faults=faults_of(error)) from None


def idempotency_key(request: web.Request) -> str | None:
    """The request's Idempotency-Key, None where it has none. Raises Malformed."""
    keys = request.headers.getall("Idempotency-Key", [])
    if not keys:
        return None
    return parse_key(keys[0] if len(keys) == 1 else "")


def expected_version(request: web.Request) -> int | None:
    """What the request's If-Match (RFC 9110) names: the version that it is to change; None where any will do.

    Raises Malformed.
    """
    given = request.headers.getall("If-Match", [])
    if given in ([], ["*"]):
        return None
    named = re.fullmatch(ETAG, given[0]) if len(given) == 1 else None
    if named is None:
        raise Malformed("If-Match is one ETag as it was given out, or *.")
    return int(named[1])


def etag(version: int) -> str:
    return f'"{version}"'


def digest(body: bytes) -> str:
    """The ETag of what has no version. Weak: who takes it compressed gets other bytes.

    With `stream` in the body it changes with each position: who is told 304 keeps the one that it has, and that is then
    the one that there is.
    """
    return f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def unless_known(
    request: web.Request, body: bytes, stream: StreamBody | None = None, *, tag: str | None = None
) -> web.Response:
    """What was read; 304 where If-None-Match (RFC 9110) names its ETag, among others or by `*`."""
    tag = tag or digest(body)
    headers = {"ETag": tag, **_ASK_AGAIN, **({} if stream is None else position_headers(stream))}
    given = ",".join(request.headers.getall("If-None-Match", []))
    known = [each.strip().removeprefix("W/") for each in given.split(",")]
    if known == ["*"] or tag.removeprefix("W/") in known:
        return web.Response(status=304, headers=headers)
    return json_reply(body, headers=headers)


async def send_lines(
    request: web.Request, lines: AsyncIterable[bytes], headers: Mapping[str, str]
) -> web.StreamResponse:
    """As fast as they are read. When there are no more because a part is away, the answer stops before its end."""
    response = web.StreamResponse(headers={"Content-Type": ndjson.MEDIA_TYPE, **headers})
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        async for some in lines:
            await response.write(some)
    except (AppError, ConnectionError) as error:
        _cut(request, error)
    return response


async def answer_lines(
    request: web.Request,
    answer: Callable[[tuple[int, bytes | ndjson.LineTooLong]], Awaitable[bytes]],
    *,
    at_once: int,
) -> web.StreamResponse:
    """The lines of the body, counted from 1, each with a line. When the body stops coming before it is whole, so does
    the answer. Raises 415."""
    _refuse_other_bodies(request, ndjson.MEDIA_TYPE)
    response = web.StreamResponse(headers={"Content-Type": ndjson.MEDIA_TYPE})
    await response.prepare(request)

    async def numbered() -> AsyncIterator[tuple[int, bytes | ndjson.LineTooLong]]:
        number = 0
        async for line in ndjson.lines(_chunks(request)):
            number += 1
            yield number, line

    try:
        await ndjson.answer_in_order(numbered(), answer, response.write, at_once=at_once)
    except* (TimeoutError, ConnectionError, web.RequestPayloadError) as errors:
        _cut(request, errors.exceptions[0])
    return response


def _cut(request: web.Request, error: BaseException) -> None:
    """An answer that has begun can only stop: without its end, its reader knows."""
    log.info("lines_cut", error=type(error).__name__)
    if request.transport is not None:
        request.transport.abort()


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    """Raises TimeoutError where nothing comes for as long as a whole body may take."""
    while True:
        async with asyncio.timeout(request[BODY_TIMEOUT]):
            chunk = await request.content.readany()
        if not chunk:
            return
        yield chunk


def json_reply(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")


def replayable(reply: Reply, headers: Mapping[str, str] | None = None) -> web.Response:
    """The answer to a request that may have an Idempotency-Key; says so where it was given before."""
    replayed = {"Idempotency-Replayed": "true"} if reply.replayed else {}
    return json_reply(reply.body, status=reply.status, headers={**(headers or {}), **replayed})


def position_headers(stream: StreamBody) -> dict[str, str]:
    return {"X-Stream-Offset": str(stream.offset), "X-Stream-Epoch": stream.epoch}


FAULT_CODES = SHAPE_CODES | {
    "repeated",
    "bad_cursor",
    "bad_idempotency_key",
    "bad_email",
    "repeated_product",
    "other_currency",
    "not_for_sale",
    "bad_discount",
    "not_found",
    "out_of_stock",
    "unknown_method",
    "not_refundable",
}
"""Every code that `errors[].code` of a problem can have."""
