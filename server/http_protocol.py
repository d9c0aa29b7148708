"""One connection's HTTP."""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web

from handlers.http import IS_STEADY

_LINE_BYTES = 8190  # of an address without the first commands of an event stream


class HttpProtocol(web.RequestHandler):
    """aiohttp's, for a runner with `handler_cancellation=True`: an abandoned socket must not stay in the hub."""

    __slots__ = ()

    def __init__(self, server: web.Server, *, keepalive_timeout: float, message_size_limit: int) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as aiohttp's own runner gives it
            auto_decompress=False,  # compressed bodies are refused, and not looked into before
            keepalive_timeout=keepalive_timeout,
            max_line_size=_LINE_BYTES + 3 * message_size_limit,  # a byte takes up to three in an address
        )

    def connection_lost(self, exc: BaseException | None) -> None:
        request = self._current_request
        if request is not None and request.get(IS_STEADY):
            self._task_handler = None  # which aiohttp would cancel
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is answered before the application has seen it; aiohttp would name all versions there."""
        response = super().handle_error(request, status, exc, message)
        response.headers[hdrs.SERVER] = "orderwire"
        return response
