from __future__ import annotations

import orjson
import pytest

from handlers.ports.domain import Position
from handlers.ports.streams import Publication
from realtime.protocol.json_codec import JsonCodec
from realtime.protocol.messages import Connect, Garbled, HistoryPage, Pong, ProtocolError, Reply, Subscribe, Subscribed

codec = JsonCodec()
DEEP = b"[" * 300 + b"]" * 300  # can be read, but not written again


def test_null_and_keys_that_nobody_knows_count_as_absent() -> None:
    assert codec.decode(b'{"id":2,"subscribe":{"channel":"c","offset":null,"new":[]}}') == [Subscribe(2, "c")]


def test_a_frame_may_hold_several_commands_and_end_in_a_newline() -> None:
    assert codec.decode(b'{}\n{"id":1,"connect":{}}\n') == [Pong(), Connect(1, "")]


@pytest.mark.parametrize(
    "frame",
    [
        b"\n",
        b"[]",
        b"1",
        b"{",
        b"\xff",
        b"{}\n\n{}",
        b'{"id":"1","connect":{}}',
        b'{"id":true,"connect":{}}',
        b'{"id":-1,"connect":{}}',
        b'{"id":4294967296,"connect":{}}',
        b'{"id":1.0,"connect":{}}',
        b'{"id":1,"connect":[]}',
        b'{"id":1,"connect":{"token":1}}',
        b'{"id":1,"connect":{"subs":[]}}',
        b'{"id":1,"connect":{"subs":{"a":1}}}',
        b'{"id":1,"subscribe":{"channel":"c","recover":1}}',
        b'{"id":1,"subscribe":{"channel":"c","offset":-1}}',
        b'{"id":1,"history":{"channel":"c","limit":"1"}}',
        b'{"id":1,"history":{"channel":"c","since":1}}',
        b'{"id":1,"history":{"channel":"c","since":{"offset":-1}}}',
        b'{"id":1,"history":{"channel":"c","reverse":1}}',
        b'{"id":1,"rpc":{"method":1}}',
        b'{"id":1,"rpc":{"method":"m","data":%b}}' % DEEP,
        b'{"id":1,"publish":{"channel":"c","data":%b}}' % DEEP,
        b'{"id":1,"unheard_of":{}}',
        b"[" * 5000,
    ],
)
def test_what_no_client_sends_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(frame)


@pytest.mark.parametrize("text", [rb"\ud83d", rb"\ude00 behind", rb"\ud83d\ud83d", rb"\ud83dx"])
def test_half_a_character_garbles_one_command(text: bytes) -> None:
    other = b'{"id":6,"publish":{"channel":"c","data":1}}'
    frame = b'{"id":5,"publish":{"channel":"c","data":{"text":"%b"}}}\n%b' % (text, other)

    assert codec.decode(frame) == [Garbled(5), *codec.decode(other)]


@pytest.mark.parametrize(
    "frame", [rb'{"send":{"data":"\ud83d"}}', rb'["\ud83d"]', rb'{"id":-1,"a":"\ud83d"}', rb'{"id":1,"\ud83d']
)
def test_half_a_character_in_what_has_no_id_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(frame)


def test_an_empty_page_of_history_has_all_its_keys() -> None:
    """The other form cannot say so: there, what is empty is absent."""
    page = Reply(6, HistoryPage(Position(0, "e")))
    assert orjson.loads(codec.encode(page)) == {"id": 6, "history": {"publications": [], "epoch": "e", "offset": 0}}


def test_a_message_is_one_line() -> None:
    payload = Publication(2, b'{"a": 1}', 7)
    message = Reply(4, Subscribed(Position(1, "two\nlines"), True, True, [payload]))
    assert b"\n" not in codec.encode(message)


def test_what_several_clients_missed_is_written_as_each_of_them_takes_it() -> None:
    """The second time it is the same objects: what was written for one is kept for the next."""
    missed = [Publication(2, b'{"a":1}', 7), Publication(3, b"[2]", 8)]

    def shown(*, is_delta: bool) -> object:
        reply = Reply(4, Subscribed(Position(1, "e"), True, True, missed, is_delta=is_delta))
        return orjson.loads(codec.encode(reply))["subscribe"]["publications"]

    whole: list[object] = [{"a": 1}, [2]]
    text: list[object] = ['{"a":1}', "[2]"]
    for is_delta, data in [(False, whole), (False, whole), (True, text), (False, whole)]:
        assert shown(is_delta=is_delta) == [{"data": data[0], "offset": 2}, {"data": data[1], "offset": 3}]
