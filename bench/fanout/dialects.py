"""What a client of each server says to hear a channel and to publish into it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

CHANNEL = "bench:feed"
KEPT = "kept:feed"
"""The same with a history."""


class Dialect(Protocol):
    """`publish` is the text of one WebSocket message that has the server send `document`, a JSON object, to everyone
    who hears the channel. `answer` is found in what the server sends once a hello has been taken."""

    def path(self, *, hears: bool) -> str: ...

    def hello(self, *, hears: bool) -> Sequence[bytes]: ...

    def answer(self, *, hears: bool) -> bytes: ...

    def publish(self, number: int, document: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Centrifuge:
    """Orderwire, in the JSON form."""

    token: str
    channel: str = CHANNEL

    def path(self, *, hears: bool) -> str:
        return "/connection/websocket"

    def hello(self, *, hears: bool) -> Sequence[bytes]:
        connect = orjson.dumps({"id": 1, "connect": {"token": self.token}})
        return (connect, orjson.dumps({"id": 2, "subscribe": {"channel": self.channel}})) if hears else (connect,)

    def answer(self, *, hears: bool) -> bytes:
        return b'"subscribe"' if hears else b'"connect"'

    def publish(self, number: int, document: bytes) -> bytes:
        return b'{"id":%d,"publish":{"channel":"%b","data":%b}}' % (number + 2, self.channel.encode(), document)


class EngineIo:
    """Socket.IO, version 5 of its protocol over version 4 of Engine.IO's, on a WebSocket from the start."""

    def path(self, *, hears: bool) -> str:
        return f"/socket.io/?EIO=4&transport=websocket&hears={int(hears)}"

    def hello(self, *, hears: bool) -> Sequence[bytes]:
        return (b"40",)

    def answer(self, *, hears: bool) -> bytes:
        return b"40{"

    def publish(self, number: int, document: bytes) -> bytes:
        return b'42["publish",%b]' % document


class Plain:
    """A server of a few lines on a bare WebSocket library: what is said on /publish is sent to all of /hear."""

    def path(self, *, hears: bool) -> str:
        return "/hear" if hears else "/publish"

    def hello(self, *, hears: bool) -> Sequence[bytes]:
        return ()

    def answer(self, *, hears: bool) -> bytes:
        return b'"ready"'

    def publish(self, number: int, document: bytes) -> bytes:
        return document


def dialect(name: str, token: str) -> Dialect:
    """By name, as it is handed to another process. Raises KeyError."""
    known: dict[str, Dialect] = {
        "centrifuge": Centrifuge(token),
        "centrifuge-kept": Centrifuge(token, KEPT),
        "engine.io": EngineIo(),
        "plain": Plain(),
    }
    return known[name]
