"""REST endpoints of sessions."""

from __future__ import annotations

from aiohttp import web

from handlers.accounts import commands, service
from handlers.accounts.schemas import AccountBody, LoginRequest, TokenBody
from handlers.clock import utc_now
from handlers.errors import WrongCredentials
from handlers.http import Endpoint, caller_of, json_reply, read_body, services, signed_in, work
from handlers.schemas import NoParameters

PATH = "/api/v1/auth"


async def login(request: web.Request) -> web.Response:
    body = await read_body(request, LoginRequest)
    parts, now = services(request), utc_now()
    signed = await service.login(parts.work, parts.passwords, parts.tokens, body.credentials(), now)
    return json_reply(TokenBody.of(signed, now).encode())


async def renew(request: web.Request) -> web.Response:
    actor, tokens, now = signed_in(request), services(request).tokens, utc_now()
    signed = await work(request).look_up(lambda uow: service.renew(uow, tokens, actor, now))
    return json_reply(TokenBody.of(signed, now).encode())


async def me(request: web.Request) -> web.Response:
    found = await commands.me(caller_of(request, signed_in(request)), NoParameters())
    return json_reply(found.encode())


ENDPOINTS = (
    Endpoint(
        name="auth.login",
        method="POST",
        path=f"{PATH}/login",
        handler=login,
        summary="Sign in",
        body=LoginRequest,
        reply=TokenBody,
        refusals=(WrongCredentials,),
        is_public=True,
    ),
    Endpoint(
        name="auth.token",
        method="POST",
        path=f"{PATH}/token",
        handler=renew,
        summary="Get a fresh token for a valid one",
        reply=TokenBody,
    ),
    Endpoint(
        name="accounts.me",
        method="GET",
        path=f"{PATH}/me",
        handler=me,
        summary="Read whose token this is",
        reply=AccountBody,
    ),
)
