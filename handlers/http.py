"""The edge that all REST endpoints share: requests in, typed values out, and back. Raises only `handlers.errors`
and aiohttp's HTTP exceptions; `server.problems` turns both into problem documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from aiohttp import web
from pydantic import ValidationError

from handlers.actor import Actor
from handlers.clock import utc_now
from handlers.errors import Fault, Invalid, Malformed, NotFound, Unauthenticated
from handlers.events import Cause
from handlers.idempotency import Claim, fingerprint, parse_key
from handlers.ports.domain import Passwords, Tokens
from handlers.schemas import Body, Query, StreamBody, decode_cursor
from handlers.work import Work

MAX_FAULTS = 50
MAX_POINTER_LENGTH = 200

T = TypeVar("T")
B = TypeVar("B", bound=Body)
Q = TypeVar("Q", bound=Query)

Identify = Callable[[str, datetime], Actor]
"""Whose access token is this, now? Raises InvalidToken."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the REST endpoints need of the rest of the process."""

    work: Work
    passwords: Passwords
    tokens: Tokens
    identify: Identify


SERVICES = web.AppKey("services", Services)
REQUEST_ID = web.RequestKey("request_id", str)
TRACEPARENT = web.RequestKey("traceparent", str)


def services(request: web.Request) -> Services:
    return request.app[SERVICES]


def work(request: web.Request) -> Work:
    return services(request).work


def cause_of(request: web.Request) -> Cause:
    return Cause(utc_now(), request.get(TRACEPARENT))


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
    """Raises 415, 413, Malformed for what is not JSON, and Invalid with every fault of what is.

    Of a name that an object repeats, the last value counts.
    """
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="The body must be application/json.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise web.HTTPUnsupportedMediaType(text="The body must not be compressed.")
    raw = await request.read()
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        faults = _faults(error)
        kind = Malformed if any(fault.code == "not_json" for fault in faults) else Invalid
        raise kind(faults=faults) from None


def read_query(request: web.Request, model: type[Q]) -> Q:
    """Raises Malformed with every fault; pointers name the parameters."""
    repeated = sorted({name for name in request.query if len(request.query.getall(name)) > 1})
    if repeated:
        raise Malformed(faults=[Fault(_pointer([name]), "repeated", "Give it once") for name in repeated[:MAX_FAULTS]])
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        raise Malformed(faults=_faults(error)) from None


def read_cursor(cursor: str | None, parse: Callable[[str], T | None]) -> T | None:
    """What a page continues from, None for the first page. Raises Malformed for a cursor that we did not give out."""
    if cursor is None:
        return None
    value = decode_cursor(cursor)
    parsed = None if value is None else parse(value)
    if parsed is None:
        raise Malformed(faults=[Fault("/cursor", "bad_cursor", "Take the `next` of the page before")])
    return parsed


def idempotency_claim(request: web.Request, actor: Actor, body: Body) -> Claim | None:
    """The request's Idempotency-Key, None where it has none. Raises Malformed."""
    keys = request.headers.getall("Idempotency-Key", [])
    if not keys:
        return None
    key = parse_key(keys[0] if len(keys) == 1 else "")
    return Claim(actor.account_id, key, fingerprint(request.method, request.path, body.encode()))


def json_reply(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")


def position_headers(stream: StreamBody) -> dict[str, str]:
    return {"X-Stream-Offset": str(stream.offset), "X-Stream-Epoch": stream.epoch}


# What pydantic calls a fault -> what we call it; the codes are part of the API, pydantic's names are not.
_CODES = {
    "json_invalid": "not_json",
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "nul_character": "nul_character",
    "too_long": "wrong_length",
    "too_short": "wrong_length",
    "string_too_long": "wrong_length",
    "string_too_short": "wrong_length",
    "greater_than_equal": "out_of_range",
    "less_than_equal": "out_of_range",
}

_OTHER_CODE = "wrong_type"

FAULT_CODES = frozenset(_CODES.values()) | {
    _OTHER_CODE,
    "repeated",
    "bad_cursor",
    "bad_idempotency_key",
    "bad_email",
    "repeated_product",
    "other_currency",
    "not_found",
    "out_of_stock",
}
"""Every code that `errors[].code` of a problem can have."""


def _faults(error: ValidationError) -> list[Fault]:
    found = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_FAULTS]
    return [Fault(_pointer(fault["loc"]), _CODES.get(fault["type"], _OTHER_CODE), fault["msg"]) for fault in found]


def _pointer(path: Iterable[str | int]) -> str:
    """RFC 6901. Names come from the client, so they are cut."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "".join(f"/{step}" for step in steps)[:MAX_POINTER_LENGTH]
