"""One suite over both forms of the client protocol: the same commands are read, and the same messages are said."""

from __future__ import annotations

from io import BytesIO

import orjson
import pytest
from google.protobuf.proto import serialize_length_prefixed
from hypothesis import given
from hypothesis import strategies as st

from handlers.ports.domain import Position
from handlers.ports.streams import ClientInfo, Publication
from realtime.protocol import client_pb2 as pb
from realtime.protocol.codes import Closing, Disconnect, Error, Unsubscribed
from realtime.protocol.filters import Combination, Condition
from realtime.protocol.json_codec import client_info
from realtime.protocol.messages import (
    Accepted,
    App,
    Begun,
    Command,
    Connect,
    Connected,
    Ended,
    Goodbye,
    History,
    HistoryPage,
    Left,
    Listening,
    MemberCount,
    Members,
    Message,
    Ping,
    Pong,
    Presence,
    PresenceStats,
    ProtocolError,
    Publish,
    Refresh,
    Refreshed,
    Refusal,
    Renewed,
    Reply,
    Returned,
    Route,
    Rpc,
    Send,
    Span,
    SubRefresh,
    SubRefreshed,
    Subscribe,
    Subscribed,
    Unspoken,
    Unsubscribe,
)
from tests.peers import PEERS, PROTOBUF, JsonPeer, Object, Peer

EMPTY: Object = {}


peers = st.sampled_from(PEERS)


@pytest.mark.parametrize(
    ("said", "command"),
    [
        ({"connect": {"token": "t"}, "id": 1}, Connect(1, "t")),
        ({"id": 1, "connect": {"name": "js", "version": "5"}}, Connect(1, "", app=App("js", "5"))),
        (
            {"id": 1, "connect": {"subs": {"#1": {"recover": True, "offset": 4, "epoch": "e"}, "#2": {}}}},
            Connect(1, "", {"#1": Position(4, "e")}),
        ),
        ({"id": 2, "subscribe": {"channel": "c", "flag": 1}}, Subscribe(2, "c")),
        ({"id": 2, "subscribe": {"channel": "c", "recover": True}}, Subscribe(2, "c", Position(0, ""))),
        (
            {"id": 2, "subscribe": {"channel": "c", "recover": True, "offset": 2**63, "epoch": "e"}},
            Subscribe(2, "c", Position(2**63, "e")),
        ),
        ({"id": 2, "subscribe": {"channel": "c", "token": "t"}}, Subscribe(2, "c", token="t")),
        ({"id": 2, "subscribe": {"channel": "c", "flag": 3}}, Subscribe(2, "c", reject_unrecovered=True)),
        ({"id": 2, "subscribe": {"channel": "c", "type": 1}}, Subscribe(2, "c", is_plain=False)),
        ({"id": 2, "subscribe": {"channel": "c", "tf": {"key": "a"}}}, Subscribe(2, "c", is_filter_bad=True)),
        ({"id": 2, "subscribe": {"channel": "c", "tf": {}}}, Subscribe(2, "c", is_filter_bad=True)),
        (
            {
                "id": 2,
                "subscribe": {
                    "channel": "c",
                    "tf": {
                        "op": "or",
                        "nodes": [{"key": "a", "cmp": "in", "vals": ["x"]}, {"key": "a", "cmp": "eq", "val": "y"}],
                    },
                },
            },
            Subscribe(2, "c", filter=Combination("or", (Condition("a", "in", ("x",)), Condition("a", "eq", ("y",))))),
        ),
        ({"id": 3, "unsubscribe": {"channel": "c"}}, Unsubscribe(3, "c")),
        ({"id": 4294967295, "refresh": {"token": "t"}}, Refresh(4294967295, "t")),
        ({"id": 4, "sub_refresh": {"channel": "c", "token": "t"}}, SubRefresh(4, "c", "t")),
        ({"id": 5, "publish": {"channel": "c", "data": {"a": [1]}}}, Publish(5, "c", b'{"a":[1]}')),
        ({"id": 5, "publish": {"channel": "c"}}, Publish(5, "c", b"")),
        ({"id": 5, "publish": {"channel": "c", "data": None}}, Publish(5, "c", b"null")),
        ({"id": 5, "publish": {"channel": "c", "data": 1, "type": 1}}, Publish(5, "c", b"1", is_plain=False)),
        (
            {"id": 2, "subscribe": {"channel": "c", "positioned": True, "recoverable": True}},
            Subscribe(2, "c", wants_position=True, wants_recovery=True),
        ),
        ({"id": 5, "presence": {"channel": "c"}}, Presence(5, "c")),
        ({"id": 5, "presence_stats": {"channel": "c"}}, PresenceStats(5, "c")),
        ({"id": 2, "subscribe": {"channel": "c", "join_leave": True}}, Subscribe(2, "c", wants_join_leave=True)),
        ({"id": 5, "history": {"channel": "c"}}, History(5, "c", Span())),
        (
            {"id": 5, "history": {"channel": "c", "limit": -1, "since": {"offset": 4, "epoch": "e"}, "reverse": True}},
            History(5, "c", Span(-1, Position(4, "e"), is_reverse=True)),
        ),
        (
            {"id": 5, "history": {"channel": "c", "limit": 2, "since": {}, "reverse": False}},
            History(5, "c", Span(2, Position(0, ""))),
        ),
        ({"id": 5, "rpc": {"method": "m", "data": {"a": ["ü\n", 1]}}}, Rpc(5, "m", '{"a":["ü\\n",1]}'.encode())),
        ({"id": 5, "rpc": {"method": "m", "data": None}}, Rpc(5, "m", b"null")),
        ({"id": 5, "rpc": {"method": "m"}}, Rpc(5, "m", b"")),
        ({"id": 5, "rpc": {}}, Rpc(5, "", b"")),
        ({"id": 5, "ping": {}}, Unspoken(5)),
        ({"id": 5, "refresh": {}, "subscribe": {"channel": "c"}}, Subscribe(5, "c")),
        ({"send": {"data": 1}}, Send()),
        ({}, Pong()),
        ({"id": 0, "connect": {}}, Pong()),
    ],
)
def test_a_command_is_read(peer: Peer, said: Object, command: Command) -> None:
    assert peer.codec.decode(peer.say([said])) == [command]


def test_a_frame_may_hold_several_commands(peer: Peer) -> None:
    assert peer.codec.decode(peer.say([{}, {"id": 1, "connect": {}}])) == [Pong(), Connect(1, "")]


@pytest.mark.parametrize(
    "said",
    [
        {"id": 1},
        {"id": 1, "subscribe": {}},
        {"id": 1, "subscribe": {"channel": ""}},
        {"id": 1, "unsubscribe": {}},
        {"id": 1, "publish": {"data": 1}},
        {"id": 1, "presence": {}},
        {"id": 1, "presence_stats": {}},
        {"id": 1, "history": {}},
        {"id": 1, "sub_refresh": {"token": "t"}},
    ],
)
def test_a_command_that_no_client_sends_is_a_protocol_error(peer: Peer, said: Object) -> None:
    with pytest.raises(ProtocolError):
        peer.codec.decode(peer.say([said]))


def test_an_empty_frame_is_a_protocol_error(peer: Peer) -> None:
    with pytest.raises(ProtocolError):
        peer.codec.decode(b"")


@pytest.mark.parametrize(
    ("message", "understood"),
    [
        (Ping(), EMPTY),
        (Reply(3, Left()), {"id": 3, "unsubscribe": EMPTY}),
        (
            Reply(3, Members({"c": b'{"user":"42","client":"c","conn_info":{"a":1}}'})),
            {"id": 3, "presence": {"presence": {"c": {"user": "42", "client": "c", "conn_info": {"a": 1}}}}},
        ),
        (Reply(3, MemberCount(2, 1)), {"id": 3, "presence_stats": {"num_clients": 2, "num_users": 1}}),
        (Reply(3, Accepted()), {"id": 3, "publish": EMPTY}),
        (Reply(3, Returned(b'{"a":[1,null]}')), {"id": 3, "rpc": {"data": {"a": [1, None]}}}),
        (Reply(3, Returned(b"null")), {"id": 3, "rpc": {"data": None}}),
        (
            Reply(3, Refusal(503, "unavailable", temporary=True)),
            {"id": 3, "error": {"code": 503, "message": "unavailable", "temporary": True}},
        ),
        (Reply(3, Refusal(409, "out_of_stock")), {"id": 3, "error": {"code": 409, "message": "out_of_stock"}}),
        (Reply(3, Listening()), {"id": 3, "subscribe": EMPTY}),
        (Reply(3, Listening(ttl=60)), {"id": 3, "subscribe": {"expires": True, "ttl": 60}}),
        (
            Reply(3, Subscribed(Position(2, "e"), ttl=60)),
            {
                "id": 3,
                "subscribe": {
                    "expires": True,
                    "ttl": 60,
                    "recoverable": True,
                    "positioned": True,
                    "epoch": "e",
                    "offset": 2,
                },
            },
        ),
        (Reply(3, SubRefreshed(60)), {"id": 3, "sub_refresh": {"expires": True, "ttl": 60}}),
        (Reply(3, SubRefreshed(0)), {"id": 3, "sub_refresh": EMPTY}),
        (
            Reply(3, Subscribed(Position(2, "e"), is_recoverable=False)),
            {"id": 3, "subscribe": {"positioned": True, "epoch": "e", "offset": 2}},
        ),
        (
            Reply(1, Connected("c", "v", 0, 25, {"#1": Listening()})),
            {"id": 1, "connect": {"client": "c", "version": "v", "ping": 25, "pong": True, "subs": {"#1": EMPTY}}},
        ),
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
            Reply(6, HistoryPage(Position(7, "e"), [Publication(7, b'"b"', 1), Publication(6, b'"a"', 1)])),
            {
                "id": 6,
                "history": {
                    "publications": [{"data": "b", "offset": 7}, {"data": "a", "offset": 6}],
                    "epoch": "e",
                    "offset": 7,
                },
            },
        ),
        (
            Begun("c", Subscribed(Position(2, "e"))),
            {
                "push": {
                    "channel": "c",
                    "subscribe": {"recoverable": True, "positioned": True, "epoch": "e", "offset": 2},
                }
            },
        ),
        (Begun("c", Listening()), {"push": {"channel": "c", "subscribe": EMPTY}}),
        (Renewed(9), {"push": {"refresh": {"expires": True, "ttl": 9}}}),
        (Renewed(0), {"push": {"refresh": EMPTY}}),
        (Goodbye(Disconnect.SHUTDOWN), {"push": {"disconnect": {"code": 3001, "reason": "shutdown"}}}),
        (Goodbye(Closing(4000, "enough")), {"push": {"disconnect": {"code": 4000, "reason": "enough"}}}),
        (
            Reply(1, Connected("c", "v", 0, 25, {}, owes_pongs=False, route=Route("s", "n"))),
            {"id": 1, "connect": {"client": "c", "version": "v", "ping": 25, "session": "s", "node": "n"}},
        ),
        (
            Ended('a"b', Unsubscribed.INSUFFICIENT_STATE),
            {"push": {"channel": 'a"b', "unsubscribe": {"code": 2500, "reason": "insufficient state"}}},
        ),
    ],
)
def test_a_message_has_the_keys_that_sdks_need(peer: Peer, message: Message, understood: object) -> None:
    assert peer.understand(peer.codec.encode(message)) == [understood]


@given(peers, st.text(min_size=1), st.integers(1, 2**63), st.recursive(st.none() | st.text(), st.lists))
def test_a_payload_is_copied_as_it_is(peer: Peer, channel: str, offset: int, data: object) -> None:
    raw = orjson.dumps(data)
    encoded = peer.codec.publication(channel, Publication(offset, raw, 0))
    assert raw in encoded
    assert peer.understand(encoded) == [{"push": {"channel": channel, "pub": {"data": data, "offset": offset}}}]


def test_a_protobuf_publication_that_nests_deeper_than_json_is_written_has_no_data() -> None:
    deep = pb.PublishRequest(channel="c", data=b"[" * 300 + b"]" * 300)
    frame = BytesIO()
    serialize_length_prefixed(pb.Command(id=5, publish=deep), frame)

    assert PROTOBUF.codec.decode(frame.getvalue()) == [Publish(5, "c", b"")]


def test_a_publication_tells_who_published_it_and_its_tags(peer: Peer) -> None:
    info = client_info(ClientInfo("42", "c", conn_info=b'{"name":"A"}', chan_info=b"7"))
    encoded = peer.codec.publication("c", Publication(0, b"1", 0, info, b'{"lang":"en"}'))

    [understood] = peer.understand(encoded)

    pub = understood["push"]["pub"]
    assert pub["info"] == {"user": "42", "client": "c", "conn_info": {"name": "A"}, "chan_info": 7}
    assert pub["tags"] == {"lang": "en"}
    assert "offset" not in pub


@pytest.mark.parametrize("is_join", [True, False])
def test_a_join_and_a_leave_say_whose(peer: Peer, is_join: bool) -> None:
    info = client_info(ClientInfo("42", "c"))
    [understood] = peer.understand(peer.codec.membership("room", info, is_join=is_join))

    kind = "join" if is_join else "leave"
    assert understood == {"push": {"channel": "room", kind: {"info": {"user": "42", "client": "c"}}}}


@given(peers, st.lists(st.sampled_from([Ping(), Reply(3, Left()), Reply(4, Error.NOT_AVAILABLE)]), min_size=1))
def test_messages_can_be_told_apart_when_they_are_written_together(peer: Peer, messages: list[Message]) -> None:
    """As streams of bytes carry them; a line or a length of its own says where each ends."""
    separator = b"\n" if isinstance(peer, JsonPeer) else b""
    together = separator.join(map(peer.codec.encode, messages))
    assert len(peer.understand(together)) == len(messages)


_noise = st.binary(max_size=300) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(
    lambda value: repr(value).encode()
)


@given(peers, _noise)
def test_no_frame_raises_anything_but_a_protocol_error(peer: Peer, frame: bytes) -> None:
    try:
        assert peer.codec.decode(frame)
    except ProtocolError:
        return


@given(st.data())
def test_a_frame_that_was_damaged_on_its_way_raises_nothing_but_a_protocol_error(data: st.DataObject) -> None:
    peer = data.draw(peers)
    said: list[Object] = [
        {"id": 1, "connect": {"token": "t" * 200}},
        {"id": 2, "subscribe": {"channel": "c", "flag": 1}},
    ]
    frame = bytearray(peer.say(said))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    try:
        assert peer.codec.decode(cut)
    except ProtocolError:
        return
