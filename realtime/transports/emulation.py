"""`POST /emulation`: commands for a connection that is an HTTP response."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from aiohttp import web
from google.protobuf.message import DecodeError

from realtime.bus import BusAway
from realtime.emulation import Emulation, SessionUnknown
from realtime.protocol import client_pb2 as pb
from realtime.transports.entrance import PROTOBUF, Entrance, said_type


@dataclass(frozen=True, slots=True)
class _Commands:
    node: str
    session: str
    frame: bytes


class EmulationEndpoint:
    """`size_limit` is of the commands of one request, bytes."""

    def __init__(self, emulation: Emulation, entrance: Entrance, *, size_limit: int) -> None:
        self._emulation = emulation
        self._entrance = entrance
        self._size_limit = size_limit

    async def handle(self, request: web.Request) -> web.Response:
        """204: handed to the connection's node. Whatever becomes of the commands is said on the connection."""
        refusal = self._entrance.foreign(request)
        if refusal is not None:
            return refusal
        return web.Response(status=await self._status(request))

    async def _status(self, request: web.Request) -> int:
        body = await request.read()
        commands = _from_protobuf(body) if said_type(request) == PROTOBUF else _from_json(body)
        if commands is None or not commands.frame:
            return 400
        if len(commands.frame) > self._size_limit:
            return 413
        try:
            await self._emulation.deliver(commands.node, commands.session, commands.frame)
        except SessionUnknown:
            return 404
        except BusAway:
            return 503
        return 204


def _from_json(body: bytes) -> _Commands | None:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict):
        return None
    node, session, data = (said.get(key) for key in ("node", "session", "data"))
    if not isinstance(node, str) or not isinstance(session, str) or not isinstance(data, str):
        return None
    return _Commands(node, session, data.encode())


def _from_protobuf(body: bytes) -> _Commands | None:
    try:
        said = pb.EmulationRequest.FromString(body)
    except DecodeError:
        return None
    return _Commands(said.node, said.session, said.data)
