"""The client protocol over WebSocket (RFC 6455), in its JSON and its Protobuf form, and its one-way form for listeners.

Frames are built here once and written to the socket's transport directly, beside aiohttp's own writer: a server's
frames are not masked, so the same bytes serve every client.
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, hdrs, web
from aiohttp.abc import AbstractStreamWriter

from realtime.connection import Connection
from realtime.connections import Connections, Link
from realtime.protocol.codes import Closing, Disconnect
from realtime.protocol.json_codec import JsonCodec, JsonPushCodec
from realtime.protocol.messages import Codec, Goodbye
from realtime.protocol.protobuf_codec import ProtobufCodec
from realtime.transports.entrance import HELLO, Entrance
from realtime.transports.wires import GOODBYE_SECONDS, Framed, SocketWire, goodbye_patience

_JSON: Final = "centrifuge-json"
_PROTOBUF: Final = "centrifuge-protobuf"
_NORMAL: Final = 1000
_FIN: Final = 0x80


class Frames(Framed):
    """Whole WebSocket frames. `kind`, text or binary, is also that of the client's."""

    def __init__(self, codec: Codec, kind: WSMsgType) -> None:
        super().__init__(codec)
        self.kind = kind

    def frame(self, payload: bytes) -> bytes:
        """A server's: FIN, the opcode, not masked (RFC 6455, section 5.2)."""
        first, size = _FIN | self.kind, len(payload)
        if size < 126:
            return b"%c%c%b" % (first, size, payload)
        if size < 1 << 16:
            return struct.pack("!BBH", first, 126, size) + payload
        return struct.pack("!BBQ", first, 127, size) + payload


class _Response(web.WebSocketResponse[bool]):
    """aiohttp closes by itself what breaks the protocol, and nothing may be written after a Close frame."""

    wire: SocketWire | None = None

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        if self.wire is not None:
            self.wire.shut()
        return await super().close(code=code, message=message, drain=drain)


class _Socket(SocketWire):
    """Ending it interrupts the reader, which then says goodbye: only the reader may close."""

    __slots__ = ("_frames", "_reading", "_ws")

    def __init__(
        self,
        ws: _Response,
        transport: asyncio.Transport,
        writer: AbstractStreamWriter,
        most: int,
        reading: asyncio.Timeout,
        frames: Frames,
    ) -> None:
        super().__init__(transport, writer, most)
        self._ws = ws
        self._frames = frames
        self._reading: asyncio.Timeout | None = reading  # None once nothing is read any more
        ws.wire = self

    def end(self, why: Disconnect | Closing) -> None:
        if isinstance(self._frames.codec, JsonPushCodec):
            self.write(self._frames.message(Goodbye(why)))  # its listeners may know no close codes
        self.why = why
        self.shut()
        if self._reading is not None:
            self._reading.reschedule(asyncio.get_running_loop().time())

    async def say_goodbye(self) -> None:
        # It waits for a client that takes nothing, whose session may be ended meanwhile: for no pong, or with the node.
        self._reading = None
        code, reason = (_NORMAL, "") if self.why is None else (self.why.code, self.why.reason)
        last_resort = asyncio.get_running_loop().call_later(goodbye_patience(self.why), self._transport.abort)
        await self._ws.close(code=code, message=reason.encode(), drain=False)
        if not self.buffered:
            last_resort.cancel()


class WebSocketEndpoint:
    """aiohttp must run with `handler_cancellation=True`; whatever ends the handler detaches the client."""

    def __init__(self, connections: Connections, entrance: Entrance, *, is_one_way: bool = False) -> None:
        self._connections = connections
        self._entrance = entrance
        self._is_one_way = is_one_way
        name = "uni_websocket" if is_one_way else "websocket"
        self._spoken = {_JSON} if is_one_way else {_JSON, _PROTOBUF}
        self._link = Link(name, is_routed=is_one_way, is_one_way=is_one_way)
        self._json = Frames(JsonPushCodec() if is_one_way else JsonCodec(), WSMsgType.TEXT)
        self._protobuf = Frames(ProtobufCodec(), WSMsgType.BINARY)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        refusal = self._entrance.refusal(request)
        if refusal is not None:
            return refusal
        if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
            raise web.HTTPUpgradeRequired(headers={hdrs.UPGRADE: "websocket"})
        ws = _Response(
            protocols=[name for name in _offered(request) if name in self._spoken],
            compress=False,
            max_msg_size=self._connections.options.message_size_limit + 1,  # the first size that aiohttp refuses
            autoclose=False,
            autoping=False,
            timeout=GOODBYE_SECONDS,
            decode_text=False,
        )
        try:
            writer = await ws.prepare(request)
        except ConnectionError:
            return web.Response(status=400)  # nobody is there to read it: gone during the handshake
        if request.transport is not None:
            is_protobuf = not self._is_one_way and _speaks_protobuf(ws.ws_protocol, request)
            hello = request.query.get(HELLO, "").encode() if self._is_one_way else b""
            await self._serve(ws, request.transport, writer, self._protobuf if is_protobuf else self._json, hello)
        return ws

    async def _serve(
        self,
        ws: _Response,
        transport: asyncio.Transport,
        writer: AbstractStreamWriter,
        frames: Frames,
        hello: bytes,
    ) -> None:
        reading = asyncio.timeout(None)
        socket = _Socket(ws, transport, writer, self._connections.options.queue_max_size, reading, frames)
        try:
            with self._connections.open(socket, frames, frames.codec, self._link) as connection:
                try:
                    async with reading:
                        if hello:
                            connection.receive(hello)
                        await self._read(ws, socket, connection, frames.kind, is_deaf=bool(hello))
                except TimeoutError:
                    if socket.why is None:
                        raise
                connection.detach()
                await socket.say_goodbye()
        finally:
            ws.wire = None  # else each holds the other, and the garbage collector seldom comes

    async def _read(
        self,
        ws: _Response,
        socket: _Socket,
        connection: Connection,
        kind: WSMsgType,
        *,
        is_deaf: bool,
    ) -> None:
        """`is_deaf`: what the client says from now on is passed over."""
        while socket.why is None:
            message = await ws.receive()
            if message.type is kind and not is_deaf:
                connection.receive(message.data)
                await connection.ready()
                is_deaf = self._is_one_way
            elif message.type in {kind, WSMsgType.PING, WSMsgType.PONG}:
                if message.type is WSMsgType.PING:
                    with suppress(ConnectionError):  # it has gone, as the next message says
                        await ws.pong(message.data)
                # No rate bounds these, and thousands of them come in one piece: between two, others have their turn.
                await asyncio.sleep(0)
            elif message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                connection.close(Disconnect.BAD_REQUEST)
            else:
                return


def _speaks_protobuf(agreed: str | None, request: web.Request) -> bool:
    """By the subprotocol; a client that cannot name one may ask in the address."""
    if agreed is not None:
        return agreed == _PROTOBUF
    return "protobuf" in (request.query.get("cf_protocol"), request.query.get("format"))


def _offered(request: web.Request) -> list[str]:
    """The subprotocols, most wanted first."""
    headers = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [name.strip() for header in headers for name in header.split(",")]
