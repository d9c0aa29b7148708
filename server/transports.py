"""The addresses at which clients connect, as far as the settings open them. docs/protocol.md describes each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from aiohttp import web

from realtime.connections import Connections
from realtime.emulation import Emulation
from realtime.transports.emulation import EmulationEndpoint
from realtime.transports.entrance import Entrance
from realtime.transports.http_stream import HttpStreamEndpoint, http_stream, sse, uni_http_stream, uni_sse
from realtime.transports.websocket import WebSocketEndpoint

WEBSOCKET_PATH: Final = "/connection/websocket"
EMULATION_PATH: Final = "/emulation"

_STREAMS: Final[Mapping[str, Callable[[Connections, Entrance], HttpStreamEndpoint]]] = {
    "http_stream": http_stream,
    "sse": sse,
    "uni_http_stream": uni_http_stream,
    "uni_sse": uni_sse,
}
_EMULATED: Final = frozenset({"http_stream", "sse"})
OPTIONAL: Final = frozenset({*_STREAMS, "uni_websocket"})
"""Beside the WebSocket."""
_SHARED: Final = frozenset({EMULATION_PATH, *(f"/connection/{name}" for name in _STREAMS)})


def share_transports(entrance: Entrance) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """For `on_response_prepare`: a page has to be able to read what is refused before there is a handler, too. The
    response that opens a WebSocket no page reads."""

    async def share(request: web.Request, response: web.StreamResponse) -> None:
        if request.path in _SHARED:
            response.headers.update(entrance.cors(request))

    return share


def transport_routes(
    wanted: Collection[str], entrance: Entrance, connections: Connections, emulation: Emulation
) -> list[web.RouteDef]:
    """`wanted` are of the optional ones."""
    routes = [web.get(WEBSOCKET_PATH, WebSocketEndpoint(connections, entrance).handle, allow_head=False)]
    if "uni_websocket" in wanted:
        listeners = WebSocketEndpoint(connections, entrance, is_one_way=True)
        routes.append(web.get("/connection/uni_websocket", listeners.handle, allow_head=False))
    for name, make in _STREAMS.items():
        if name in wanted:
            path, endpoint = f"/connection/{name}", make(connections, entrance)
            routes += [
                web.get(path, endpoint.handle, allow_head=False),
                web.post(path, endpoint.handle),
                web.options(path, entrance.preflight),
            ]
    if not _EMULATED.isdisjoint(wanted):
        commands = EmulationEndpoint(emulation, entrance, size_limit=connections.options.message_size_limit)
        routes += [web.post(EMULATION_PATH, commands.handle), web.options(EMULATION_PATH, entrance.preflight)]
    return routes
