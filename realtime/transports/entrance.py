"""What every transport asks of a request first: whose page sends it, and is there room for another connection?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from realtime.connections import Connections
from realtime.wildcards import fits

HELLO: Final = "cf_connect"
"""The parameter of the address that holds the first command, where a request cannot."""

PROTOBUF: Final = "application/octet-stream"
"""The content type of a request in that form."""

_PREFLIGHT_SECONDS: Final = "300"


class Entrance:
    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def refusal(self, request: web.Request) -> web.Response | None:
        """The answer to a request for a connection that is not to be had."""
        if (refusal := self.foreign(request)) is not None:
            return refusal
        if not self._connections.can_take_more:
            headers = {hdrs.RETRY_AFTER: "1"}
            return web.Response(status=503, text="No more connections just now.\n", headers=headers)
        return None

    def foreign(self, request: web.Request) -> web.Response | None:
        """The answer to a page that may not ask here."""
        if self._is_origin_allowed(request):
            return None
        return web.Response(status=403, text="This origin is not allowed.\n")

    def cors(self, request: web.Request) -> Mapping[str, str]:
        """What lets a page of an allowed origin read the response, whoever gives it."""
        origin = request.headers.get(hdrs.ORIGIN)
        if not origin or not self._is_origin_allowed(request):
            return {}
        return {
            hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin,
            hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS: "true",
            hdrs.VARY: hdrs.ORIGIN,
        }

    async def preflight(self, request: web.Request) -> web.Response:
        """A browser asks whether a page of another origin may send what it is about to send."""
        if (refusal := self.foreign(request)) is not None:
            return refusal
        asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, hdrs.CONTENT_TYPE)
        headers = {
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST, OPTIONS",
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: asked,
            hdrs.ACCESS_CONTROL_MAX_AGE: _PREFLIGHT_SECONDS,
        }
        return web.Response(status=204, headers=headers)

    def _is_origin_allowed(self, request: web.Request) -> bool:
        """Only browsers send an origin, and only theirs can be somebody else's page."""
        origin = request.headers.get(hdrs.ORIGIN, "").lower()
        if not origin:
            return True
        patterns = self._connections.options.allowed_origins
        return _authority(origin) == request.host.lower() or any(fits(origin, pattern.lower()) for pattern in patterns)


def said_type(request: web.Request) -> str:
    """The content type that the request states; aiohttp's own attribute has one also where it states none."""
    return request.content_type if hdrs.CONTENT_TYPE in request.headers else ""


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
