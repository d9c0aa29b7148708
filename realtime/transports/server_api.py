"""`POST /api/<method>`: the server API over HTTP, for backends that show the key."""

from __future__ import annotations

import hmac
from typing import Final

import orjson
from aiohttp import hdrs, web

from realtime.protocol.codes import Error
from realtime.server_api import ApiError, Result, ServerApi

_SCHEME: Final = "apikey "
_ERROR_MODE: Final = "X-Centrifugo-Error-Mode"
# In the transport mode. Everything else is the server's own fault.
_STATUSES: Final = {
    Error.UNKNOWN_CHANNEL: 404,
    Error.PERMISSION_DENIED: 403,
    Error.METHOD_NOT_FOUND: 404,
    Error.BAD_REQUEST: 400,
    Error.NOT_AVAILABLE: 400,
    Error.TOO_MANY_REQUESTS: 429,
    Error.UNRECOVERABLE_POSITION: 416,
}


class ServerApiEndpoint:
    def __init__(self, api: ServerApi, key: str) -> None:
        self._api = api
        self._key = key.encode()

    async def handle(self, request: web.Request) -> web.Response:
        if not self._is_known(request):
            raise web.HTTPUnauthorized
        method = request.match_info["method"]
        if not self._api.knows(method):
            raise web.HTTPNotFound
        try:
            body = orjson.loads(await request.read() or b"{}")
        except orjson.JSONDecodeError:
            raise web.HTTPBadRequest from None
        if not isinstance(body, dict):
            raise web.HTTPBadRequest
        try:
            result = await self._api.call(method, body)
        except ApiError as refused:
            return _reply({"error": refused.shown}, status=_status(request, refused.error))
        # A batch has always been answered without the envelope.
        return _reply(result if method == "batch" else {"result": result})

    def _is_known(self, request: web.Request) -> bool:
        given = request.headers.get("X-API-Key") or request.query.get("api_key") or ""
        authorization = request.headers.get(hdrs.AUTHORIZATION, "")
        if not given and authorization.lower().startswith(_SCHEME):
            given = authorization[len(_SCHEME) :]
        return hmac.compare_digest(given.encode(errors="surrogateescape"), self._key)


def _status(request: web.Request, error: Error) -> int:
    return _STATUSES.get(error, 500) if request.headers.get(_ERROR_MODE) == "transport" else 200


def _reply(body: Result, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
