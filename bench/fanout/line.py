"""One WebSocket connection on a blocking socket: opened, greeted, then left to its caller's own loop."""

from __future__ import annotations

import socket

from bench.fanout.dialects import Dialect
from bench.wire import text_frame

_PATIENCE = 20.0  # seconds


def open_line(port: int, speaks: Dialect, *, hears: bool) -> socket.socket:
    """Returns once the server has taken the hello. Raises ConnectionError, TimeoutError."""
    line = socket.create_connection(("127.0.0.1", port), _PATIENCE)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = (
        f"GET {speaks.path(hears=hears)} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    line.sendall("\r\n".join([*request, "", ""]).encode())
    heard = _until(line, b"\r\n\r\n", b"")
    if not heard.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(heard[:200].decode(errors="replace"))
    line.sendall(b"".join(map(text_frame, speaks.hello(hears=hears))))
    _until(line, speaks.answer(hears=hears), heard)
    line.setblocking(False)
    return line


def _until(line: socket.socket, mark: bytes, heard: bytes) -> bytes:
    while mark not in heard:
        more = line.recv(65536)
        if not more:
            raise ConnectionError(f"closed after {heard[-200:]!r}")
        heard += more
    return heard
