"""Clients of both forms of the protocol, for tests that say and understand everything in the JSON form."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Final, Protocol

import aiohttp
import orjson
from google.protobuf import json_format
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed

from realtime.protocol import client_pb2 as pb
from realtime.protocol.json_codec import JsonCodec
from realtime.protocol.messages import Codec
from realtime.protocol.protobuf_codec import ProtobufCodec

Object = dict[str, Any]


class Peer(Protocol):
    """A client of one form. `codec` is the server's; `subprotocol` and `kind` are how the form travels by WebSocket."""

    codec: Codec
    subprotocol: str
    kind: aiohttp.WSMsgType

    def say(self, commands: Sequence[Object]) -> bytes: ...

    def understand(self, frame: bytes) -> list[Object]: ...


_PAYLOADS: Final = frozenset({"data", "conn_info", "chan_info"})


class JsonPeer:
    codec: Codec = JsonCodec()
    subprotocol = "centrifuge-json"
    kind = aiohttp.WSMsgType.TEXT

    def say(self, commands: Sequence[Object]) -> bytes:
        return b"\n".join(map(orjson.dumps, commands))

    def understand(self, frame: bytes) -> list[Object]:
        return [orjson.loads(line) for line in frame.split(b"\n")]


class ProtobufPeer:
    codec: Codec = ProtobufCodec()
    subprotocol = "centrifuge-protobuf"
    kind = aiohttp.WSMsgType.BINARY

    def say(self, commands: Sequence[Object]) -> bytes:
        frame = BytesIO()
        for command in commands:
            serialize_length_prefixed(json_format.ParseDict(self._opaque(command), pb.Command()), frame)
        return frame.getvalue()

    def understand(self, frame: bytes) -> list[Object]:
        rest, replies = BytesIO(frame), []
        while (reply := parse_length_prefixed(pb.Reply, rest)) is not None:
            replies.append(self._plain(json_format.MessageToDict(reply, preserving_proto_field_name=True)))
        return replies

    def _opaque(self, value: Any) -> Any:
        """Payloads as Protobuf's own JSON mapping wants bytes: in base64."""
        if isinstance(value, dict):
            return {
                key: base64.b64encode(orjson.dumps(item)).decode() if key in _PAYLOADS else self._opaque(item)
                for key, item in value.items()
            }
        return value

    def _plain(self, value: Any) -> Any:
        """The mapping writes 64-bit numbers as text."""
        if isinstance(value, Mapping):
            if value.get("delta") and isinstance(value.get("data"), str):
                return {**value, "data": base64.b64decode(value["data"]).decode(), "offset": int(value["offset"])}
            return {key: self._read(key, item) for key, item in value.items()}
        return [self._plain(item) for item in value] if isinstance(value, list) else value

    def _read(self, key: str, value: Any) -> Any:
        if key in _PAYLOADS:
            return orjson.loads(base64.b64decode(value))
        return int(value) if key == "offset" else self._plain(value)


JSON: Final[Peer] = JsonPeer()
PROTOBUF: Final[Peer] = ProtobufPeer()
PEERS: Final[Sequence[Peer]] = (JSON, PROTOBUF)
