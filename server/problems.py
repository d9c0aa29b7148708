"""Errors as problem documents (RFC 9457): the one place that maps `handlers.errors` to HTTP.

docs/errors.md lists every code; a test compares the two. Never carries the text of an exception that is not ours.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import orjson
from aiohttp import web

from handlers.errors import (
    AppError,
    Conflict,
    Fault,
    Forbidden,
    Invalid,
    InvalidToken,
    KeyInFlight,
    KeyReused,
    Malformed,
    NotFound,
    Unauthenticated,
    Unavailable,
    VersionMismatch,
)

# The nearest ancestor counts.
STATUSES: Mapping[type[AppError], int] = {
    AppError: 500,
    Invalid: 422,
    Malformed: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    VersionMismatch: 412,
    KeyReused: 422,
    Unavailable: 503,
}

# What HTTP itself refuses, before or beside the domain.
HTTP_CODES: Mapping[int, tuple[str, str]] = {
    400: ("malformed", "The request cannot be understood."),
    401: ("wrong_api_key", "There is no API key, or it is not the right one."),
    404: ("not_found", "There is no such thing."),
    405: ("method_not_allowed", "This resource does not know that method."),
    408: ("request_timeout", "The request body did not come in time."),
    413: ("too_large", "The request body is too large."),
    415: ("unsupported_media_type", "The request body is of a kind that is not read here."),
    421: ("misdirected", "This server does not answer to that host name."),
    426: ("upgrade_required", "This is a WebSocket endpoint."),
}
OTHER_HTTP_CODE = "http_error"


@dataclass(frozen=True, slots=True)
class Problem:
    status: int
    code: str
    title: str
    detail: str = ""
    retryable: bool = False
    faults: tuple[Fault, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, request_id: str) -> web.Response:
        document: dict[str, object] = {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "retryable": self.retryable,
            "request_id": request_id,
        }
        if self.detail:
            document["detail"] = self.detail
        if self.faults:
            document["errors"] = [
                {"pointer": fault.pointer, "code": fault.code, "detail": fault.detail} for fault in self.faults
            ]
        return web.Response(
            status=self.status,
            body=orjson.dumps(document),
            headers=self.headers,
            content_type="application/problem+json",
        )


def problem_of(error: Exception) -> Problem:
    """Anything that is neither an AppError nor one of aiohttp's HTTP exceptions is `internal`, without a detail."""
    if isinstance(error, AppError):
        return _of_app_error(error)
    if isinstance(error, web.HTTPException):
        return _of_http_exception(error)
    return Problem(500, AppError.code, AppError.title())


def status_of(kind: type[AppError]) -> int:
    return next(STATUSES[ancestor] for ancestor in kind.__mro__ if ancestor in STATUSES)


def _of_app_error(error: AppError) -> Problem:
    return Problem(
        status_of(type(error)),
        error.code,
        error.title(),
        error.detail,
        error.retryable,
        error.faults,
        _headers(error),
    )


def _headers(error: AppError) -> dict[str, str]:
    if isinstance(error, Unauthenticated):
        reason = ', error="invalid_token"' if isinstance(error, InvalidToken) else ""  # RFC 6750, section 3
        return {"WWW-Authenticate": f'Bearer realm="orderwire"{reason}'}
    if isinstance(error, Unavailable):
        # Spread out, or all who were refused come back in the same second.
        return {"Retry-After": str(1 + secrets.randbelow(2))}
    return {"Retry-After": "1"} if isinstance(error, KeyInFlight) else {}


def _of_http_exception(error: web.HTTPException) -> Problem:
    fallback = (OTHER_HTTP_CODE, HTTPStatus(error.status).phrase)
    code, title = HTTP_CODES.get(error.status, fallback)
    # Only our own raising of 415 has a text of ours; aiohttp's texts repeat the phrase, or what the client sent.
    detail = (error.text or "") if error.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE else ""
    kept = {name: value for name, value in error.headers.items() if name in {"Allow", "Upgrade"}}
    return Problem(error.status, code, title, detail, headers=kept)
