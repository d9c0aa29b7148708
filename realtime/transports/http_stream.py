"""Connections whose server side is an endless HTTP response: lines or events (SSE), for clients and for mere listeners.

Like WebSocket frames, the chunks are built once for all who share a form and written to the socket's transport
directly, beside aiohttp's own writer. What a client says after its hello comes by way of `/emulation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter

from realtime.connections import Connections, Link
from realtime.protocol.codes import Closing, Disconnect
from realtime.protocol.json_codec import JsonCodec, JsonPushCodec
from realtime.protocol.messages import Codec, Goodbye
from realtime.protocol.protobuf_codec import ProtobufCodec
from realtime.transports.entrance import HELLO, PROTOBUF, Entrance, said_type
from realtime.transports.wires import Framed, SocketWire, goodbye_patience

_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"
_HEADERS: Final = {
    hdrs.CACHE_CONTROL: "private, no-cache, no-store, must-revalidate, max-age=0",
    "X-Accel-Buffering": "no",  # nginx would keep the response until it has some kilobytes
}


@dataclass(frozen=True, slots=True)
class Form:
    """How messages stand in the body of a response."""

    content_type: str
    codec: Codec
    before: bytes = b""
    after: bytes = b""
    opening: bytes = b""


def _lines(codec: Codec) -> Form:
    return Form(_JSON, codec, after=b"\n")


def _events(codec: Codec) -> Form:
    return Form(_EVENTS, codec, before=b"data: ", after=b"\n\n", opening=b"\r\n")


class Chunks(Framed):
    """A form in HTTP's chunks (RFC 9112, section 7.1), or as it is for clients of HTTP/1.0."""

    def __init__(self, form: Form, *, is_chunked: bool) -> None:
        super().__init__(form.codec)
        self.form = form
        self._is_chunked = is_chunked

    def frame(self, payload: bytes) -> bytes:
        return self.chunk(b"%b%b%b" % (self.form.before, payload, self.form.after))

    def chunk(self, body: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(body), body) if self._is_chunked else body


class _Body(SocketWire):
    """The response's."""

    __slots__ = ("_chunks", "_ended", "_response")

    def __init__(
        self,
        response: web.StreamResponse,
        transport: asyncio.Transport,
        writer: AbstractStreamWriter,
        most: int,
        chunks: Chunks,
    ) -> None:
        super().__init__(transport, writer, most)
        self._response = response
        self._chunks = chunks
        self._ended = asyncio.Event()

    def end(self, why: Disconnect | Closing) -> None:
        self.write(self._chunks.message(Goodbye(why)))
        self.why = why
        self.shut()
        self._ended.set()

    async def ended(self) -> None:
        await self._ended.wait()

    async def finish(self) -> None:
        last_resort = asyncio.get_running_loop().call_later(goodbye_patience(self.why), self._transport.abort)
        with suppress(ConnectionError):  # it has gone, and needs no goodbye
            await self._response.write_eof()
        if not self.buffered:
            last_resort.cancel()


class HttpStreamEndpoint:
    """aiohttp must run with `handler_cancellation=True`: whatever ends the handler detaches the client."""

    def __init__(
        self,
        connections: Connections,
        entrance: Entrance,
        transport: str,
        forms: Mapping[str, Form],
        *,
        is_one_way: bool = False,
    ) -> None:
        """`forms` by the request's content type; the first one counts where it is none of them."""
        self._connections = connections
        self._entrance = entrance
        self._link = Link(transport, is_routed=True, is_one_way=is_one_way)
        self._chunked = {kind: Chunks(form, is_chunked=True) for kind, form in forms.items()}
        self._plain = {kind: Chunks(form, is_chunked=False) for kind, form in forms.items()}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        hello = request.query.get(HELLO, "").encode() if request.method == hdrs.METH_GET else await request.read()
        # Only now: a node may have begun to leave while the body came.
        refusal = self._entrance.refusal(request)
        if refusal is not None:
            return refusal
        if not hello:
            return web.Response(status=400, text="The first command is missing.\n")
        if len(hello) > self._connections.options.message_size_limit:
            return web.Response(status=413, text="These commands are too long.\n")
        known = self._chunked if request.version >= HttpVersion11 else self._plain
        chunks = known.get(said_type(request)) or next(iter(known.values()))
        response = web.StreamResponse(headers={**_HEADERS, hdrs.CONTENT_TYPE: chunks.form.content_type})
        response.force_close()
        try:
            writer = await response.prepare(request)
        except ConnectionError:
            return web.Response(status=400)  # nobody is there to read it: gone as soon as it had asked
        if writer is not None and request.transport is not None:
            most = self._connections.options.queue_max_size
            await self._serve(_Body(response, request.transport, writer, most, chunks), chunks, hello)
        return response

    async def _serve(self, body: _Body, chunks: Chunks, hello: bytes) -> None:
        with self._connections.open(body, chunks, chunks.codec, self._link) as connection:
            if chunks.form.opening:
                body.write(chunks.chunk(chunks.form.opening))
            connection.receive(hello)
            await body.ended()
            connection.detach()
            await body.finish()


def http_stream(connections: Connections, entrance: Entrance) -> HttpStreamEndpoint:
    """`/connection/http_stream`"""
    forms = {_JSON: _lines(JsonCodec()), PROTOBUF: Form(PROTOBUF, ProtobufCodec())}
    return HttpStreamEndpoint(connections, entrance, "http_stream", forms)


def sse(connections: Connections, entrance: Entrance) -> HttpStreamEndpoint:
    """`/connection/sse`"""
    return HttpStreamEndpoint(connections, entrance, "sse", {_JSON: _events(JsonCodec())})


def uni_http_stream(connections: Connections, entrance: Entrance) -> HttpStreamEndpoint:
    """`/connection/uni_http_stream`"""
    forms = {_JSON: _lines(JsonPushCodec())}
    return HttpStreamEndpoint(connections, entrance, "uni_http_stream", forms, is_one_way=True)


def uni_sse(connections: Connections, entrance: Entrance) -> HttpStreamEndpoint:
    """`/connection/uni_sse`"""
    forms = {_JSON: _events(JsonPushCodec())}
    return HttpStreamEndpoint(connections, entrance, "uni_sse", forms, is_one_way=True)
