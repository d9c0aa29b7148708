from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.ports.domain import Position
from handlers.ports.streams import Publication
from realtime.protocol.codes import Error, Unsubscribed
from realtime.protocol.json_codec import JsonCodec
from realtime.protocol.messages import (
    Command,
    Connect,
    Connected,
    Ended,
    Left,
    Message,
    Ping,
    Pong,
    ProtocolError,
    Refresh,
    Refreshed,
    Reply,
    Send,
    SubRefresh,
    Subscribe,
    Subscribed,
    Unspoken,
    Unsubscribe,
)

codec = JsonCodec()


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b'{"connect":{"token":"t","name":"js"},"id":1}', Connect(1, "t")),
        (
            b'{"id":1,"connect":{"subs":{"#1":{"recover":true,"offset":4,"epoch":"e"},"#2":{}}}}',
            Connect(1, "", {"#1": Position(4, "e")}),
        ),
        (b'{"id":2,"subscribe":{"channel":"c","flag":1}}', Subscribe(2, "c")),
        (b'{"id":2,"subscribe":{"channel":"c","recover":true}}', Subscribe(2, "c", Position(0, ""))),
        (b'{"id":2,"subscribe":{"channel":"c","flag":3}}', Subscribe(2, "c", reject_unrecovered=True)),
        (b'{"id":2,"subscribe":{"channel":"c","type":1}}', Subscribe(2, "c", is_plain=False)),
        (b'{"id":2,"subscribe":{"channel":"c","tf":{"key":"a"}}}', Subscribe(2, "c", is_filtered=True)),
        (b'{"id":2,"subscribe":{"channel":"c","offset":null,"new":[]}}', Subscribe(2, "c")),
        (b'{"id":3,"unsubscribe":{"channel":"c"}}', Unsubscribe(3, "c")),
        (b'{"id":4294967295,"refresh":{"token":"t"}}', Refresh(4294967295, "t")),
        (b'{"id":4,"sub_refresh":{"channel":"c","token":"t"}}', SubRefresh(4, "c", "t")),
        (b'{"id":5,"publish":{"channel":"c","data":[1]}}', Unspoken(5)),
        (b'{"id":5,"rpc":{"method":"m"}}', Unspoken(5)),
        (b'{"id":5,"refresh":{},"subscribe":{"channel":"c"}}', Subscribe(5, "c")),
        (b'{"send":{"data":1}}', Send()),
        (b"{}", Pong()),
        (b'{"id":0,"connect":{}}', Pong()),
    ],
)
def test_a_command_is_read(line: bytes, command: Command) -> None:
    assert codec.decode(line) == [command]


def test_a_frame_may_hold_several_commands_and_end_in_a_newline() -> None:
    assert codec.decode(b'{}\n{"id":1,"connect":{}}\n') == [Pong(), Connect(1, "")]


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\n",
        b"[]",
        b"1",
        b"{",
        b"\xff",
        b"{}\n\n{}",
        b'{"id":1}',
        b'{"id":"1","connect":{}}',
        b'{"id":true,"connect":{}}',
        b'{"id":-1,"connect":{}}',
        b'{"id":4294967296,"connect":{}}',
        b'{"id":1.0,"connect":{}}',
        b'{"id":1,"connect":[]}',
        b'{"id":1,"connect":{"token":1}}',
        b'{"id":1,"connect":{"subs":[]}}',
        b'{"id":1,"connect":{"subs":{"a":1}}}',
        b'{"id":1,"subscribe":{}}',
        b'{"id":1,"subscribe":{"channel":""}}',
        b'{"id":1,"subscribe":{"channel":"c","recover":1}}',
        b'{"id":1,"subscribe":{"channel":"c","offset":-1}}',
        b'{"id":1,"history":{}}',
        b'{"id":1,"unheard_of":{}}',
        b"[" * 5000,
    ],
)
def test_what_no_client_sends_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(frame)


EMPTY: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("message", "written"),
    [
        (Ping(), EMPTY),
        (Reply(3, Left()), {"id": 3, "unsubscribe": EMPTY}),
        (
            Reply(3, Error.INTERNAL),
            {"id": 3, "error": {"code": 100, "message": "internal server error", "temporary": True}},
        ),
        (Reply(3, Error.NOT_AVAILABLE), {"id": 3, "error": {"code": 108, "message": "not available"}}),
        (
            Reply(1, Connected("c", "v", 900, 25, {"#1": Subscribed(Position(0, "e"))})),
            {
                "id": 1,
                "connect": {
                    "client": "c",
                    "version": "v",
                    "expires": True,
                    "ttl": 900,
                    "ping": 25,
                    "pong": True,
                    "subs": {"#1": {"recoverable": True, "positioned": True, "epoch": "e"}},
                },
            },
        ),
        (
            Reply(2, Refreshed("c", "v", 9)),
            {"id": 2, "refresh": {"client": "c", "version": "v", "expires": True, "ttl": 9}},
        ),
        (
            Reply(4, Subscribed(Position(1, "e"), True, True, [Publication(2, b'{"a": 1}', 7)])),
            {
                "id": 4,
                "subscribe": {
                    "recoverable": True,
                    "positioned": True,
                    "epoch": "e",
                    "offset": 1,
                    "was_recovering": True,
                    "recovered": True,
                    "publications": [{"data": {"a": 1}, "offset": 2}],
                },
            },
        ),
        (
            Ended('a"b', Unsubscribed.INSUFFICIENT_STATE),
            {"push": {"channel": 'a"b', "unsubscribe": {"code": 2500, "reason": "insufficient state"}}},
        ),
    ],
)
def test_a_message_is_written_with_the_keys_that_sdks_need(message: Message, written: object) -> None:
    encoded = codec.encode(message)
    assert b"\n" not in encoded
    assert orjson.loads(encoded) == written


@given(st.text(), st.integers(1, 2**63), st.recursive(st.none() | st.text() | st.integers(-9, 9), st.lists))
def test_a_payload_is_copied_as_it_is(channel: str, offset: int, data: object) -> None:
    raw = orjson.dumps(data)
    encoded = codec.publication(channel, Publication(offset, raw, 0))
    assert raw in encoded
    assert orjson.loads(encoded) == {"push": {"channel": channel, "pub": {"data": data, "offset": offset}}}


@given(
    st.binary(max_size=300) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(repr).map(str.encode)
)
def test_no_frame_raises_anything_but_a_protocol_error(frame: bytes) -> None:
    try:
        codec.decode(frame)
    except ProtocolError:
        return
