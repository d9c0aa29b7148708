"""The JSON form: text frames of objects, one a line.

Reading is strict about types and blind to keys that we do not know. Writing follows what the SDKs were seen to need:
the key of a result is there even when the result is empty, an error has code and message, zero and empty fields are
left out. Payloads are copied in as they are: a stream's `data` is one JSON value on one line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import orjson

from handlers.ports.domain import Position
from handlers.ports.streams import ClientInfo, Publication
from realtime.protocol.codes import Closing, Disconnect, Unsubscribed
from realtime.protocol.filters import parsed
from realtime.protocol.fossil import delta
from realtime.protocol.messages import (
    DELTA,
    REJECT_UNRECOVERED,
    Accepted,
    App,
    Begun,
    Command,
    Connect,
    Connected,
    Ended,
    Failure,
    Garbled,
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
    Renewed,
    Reply,
    Result,
    Returned,
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

Object = Mapping[str, object]
T = TypeVar("T")

_UINT32: Final = 2**32 - 1
_UINT64: Final = 2**64 - 1


class JsonCodec:
    """A `Codec`."""

    form = "json"

    def decode(self, frame: bytes) -> list[Command]:
        lines = frame.removesuffix(b"\n").split(b"\n")
        return [_read(line) for line in lines]

    def encode(self, message: Message) -> bytes:
        match message:
            case Reply(id, result):
                return b'{"id":%d,%b}' % (
                    id,
                    _error(result) if isinstance(result, Failure) else _result(result),
                )
            case Ended(channel, why):
                return self._push(b'{"channel":%b,"unsubscribe":%b}' % (_quoted(channel), _reason(why)))
            case Begun(channel, joined):
                began = _object(_begun(joined))
                return self._push(b'{"channel":%b,"subscribe":%b}' % (_quoted(channel), began))
            case Renewed(ttl):
                return self._push(b'{"refresh":%b}' % _object(_expiry(ttl)))
            case Goodbye(why):
                return self._push(b'{"disconnect":%b}' % _reason(why))
            case Ping():
                return b"{}"

    def publication(self, channel: str, publication: Publication) -> bytes:
        return self._push(b'{"channel":%b,"pub":%b}' % (_quoted(channel), _publication(publication)))

    def compressed(self, channel: str, publication: Publication, base: bytes | None) -> bytes:
        difference = None if base is None else delta(base, publication.data, is_text=True)
        body = _publication(replace(publication, data=_quoted((difference or publication.data).decode())))
        if difference is not None:
            body = body[:-1] + b',"delta":true}'
        return self._push(b'{"channel":%b,"pub":%b}' % (_quoted(channel), body))

    def membership(self, channel: str, info: bytes, *, is_join: bool) -> bytes:
        kind = b"join" if is_join else b"leave"
        return self._push(b'{"channel":%b,"%b":{"info":%b}}' % (_quoted(channel), kind, info))

    def _push(self, push: bytes) -> bytes:
        return b'{"push":%b}' % push


class JsonPushCodec(JsonCodec):
    """For transports on which only the server speaks: bare pushes, of which the connect's result is the first.

    All that a client says is the request of a connect, without an envelope.
    """

    def decode(self, frame: bytes) -> list[Command]:
        return [_connect(1, _parse(frame))]

    def encode(self, message: Message) -> bytes:
        if isinstance(message, Reply) and isinstance(message.result, Connected):
            return self._push(b"{%b}" % _result(message.result))
        return super().encode(message)

    def _push(self, push: bytes) -> bytes:
        return push


# Reading.


class _HalfCharacter(ProtocolError):
    """JavaScript cuts a text between the halves of a character, and escapes what is left of it."""


def _read(line: bytes) -> Command:
    try:
        return _command(_parse(line))
    except _HalfCharacter:
        id_ = _unsigned(_parse(line, json.loads), "id")
        if id_ == 0:
            raise
        return Garbled(id_)


def _parse(line: bytes, loads: Callable[[bytes], object] = orjson.loads) -> Object:
    try:
        value = loads(line)
    except (ValueError, RecursionError) as error:
        raise (_HalfCharacter if "surrogate" in str(error) else ProtocolError)("not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError("not an object")
    return value


def _field(body: Object, key: str, kind: type[T], default: T) -> T:
    """`kind` to the letter: a bool is no int. null counts as absent, as it does in the schema's other form."""
    value = body.get(key)
    if value is None:
        return default
    if type(value) is not kind:
        raise ProtocolError(f"{key} has the wrong type")
    return value


def _unsigned(body: Object, key: str, top: int = _UINT32) -> int:
    value = _field(body, key, int, 0)
    if not 0 <= value <= top:
        raise ProtocolError(f"{key} is out of range")
    return value


def _channel(body: Object) -> str:
    channel = _field(body, "channel", str, "")
    if not channel:
        raise ProtocolError("no channel")
    return channel


def _since(body: Object) -> Position | None:
    position = Position(_unsigned(body, "offset", _UINT64), _field(body, "epoch", str, ""))
    return position if _field(body, "recover", bool, False) else None


def _connect(id_: int, body: Object) -> Command:
    since: dict[str, Position] = {}
    for channel, sub in _field(body, "subs", dict, {}).items():
        if not isinstance(sub, dict):
            raise ProtocolError("subs has the wrong type")
        if (position := _since(sub)) is not None:
            since[channel] = position
    app = App(_field(body, "name", str, ""), _field(body, "version", str, ""))
    return Connect(id_, _field(body, "token", str, ""), since, app)


def _subscribe(id_: int, body: Object) -> Command:
    filter_, is_filter_bad = parsed(body.get("tf"))
    return Subscribe(
        id_,
        _channel(body),
        _since(body),
        token=_field(body, "token", str, ""),
        wants_position=_field(body, "positioned", bool, False),
        wants_recovery=_field(body, "recoverable", bool, False),
        wants_join_leave=_field(body, "join_leave", bool, False),
        reject_unrecovered=bool(_field(body, "flag", int, 0) & REJECT_UNRECOVERED),
        is_plain=_field(body, "type", int, 0) == 0,
        wants_delta=_field(body, "delta", str, "") == DELTA,
        filter=filter_,
        is_filter_bad=is_filter_bad,
    )


def _publish(id_: int, body: Object) -> Command:
    return Publish(id_, _channel(body), _payload(body), is_plain=_field(body, "type", int, 0) == 0)


def _payload(body: Object) -> bytes:
    try:
        return orjson.dumps(body["data"]) if "data" in body else b""
    except TypeError:
        raise ProtocolError("data nests deeper than can be written again") from None


def _history(id_: int, body: Object) -> Command:
    channel, since = _channel(body), None
    if body.get("since") is not None:
        position = _field(body, "since", dict, {})
        since = Position(_unsigned(position, "offset", _UINT64), _field(position, "epoch", str, ""))
    return History(id_, channel, Span(_field(body, "limit", int, 0), since, _field(body, "reverse", bool, False)))


def _unspoken(id_: int, _: Object) -> Command:
    return Unspoken(id_)


# Where a command has several of these keys the first one counts.
_METHODS: Final[Mapping[str, Callable[[int, Object], Command]]] = {
    "connect": _connect,
    "ping": _unspoken,
    "subscribe": _subscribe,
    "unsubscribe": lambda id_, body: Unsubscribe(id_, _channel(body)),
    "publish": _publish,
    "presence": lambda id_, body: Presence(id_, _channel(body)),
    "presence_stats": lambda id_, body: PresenceStats(id_, _channel(body)),
    "history": _history,
    "rpc": lambda id_, body: Rpc(id_, _field(body, "method", str, ""), _payload(body)),
    "send": lambda _id, _body: Send(),
    "refresh": lambda id_, body: Refresh(id_, _field(body, "token", str, "")),
    "sub_refresh": lambda id_, body: SubRefresh(id_, _channel(body), _field(body, "token", str, "")),
}


def _command(command: Object) -> Command:
    id_ = _unsigned(command, "id")
    if id_ == 0 and command.get("send") is None:
        return Pong()
    for method, read in _METHODS.items():
        if command.get(method) is not None:
            return read(id_, _field(command, method, dict, {}))
    raise ProtocolError("no known method")


# Writing.


def _quoted(text: str) -> bytes:
    return orjson.dumps(text)


def _object(fields: Iterable[bytes]) -> bytes:
    return b"{%b}" % b",".join(fields)


def _error(error: Failure) -> bytes:
    temporary = b',"temporary":true' if error.temporary else b""
    return b'"error":{"code":%d,"message":%b%b}' % (error.code, _quoted(error.message), temporary)


def _result(result: Result) -> bytes:
    match result:
        case Connected():
            return b'"connect":' + _object(_connected(result))
        case Subscribed() | Listening():
            return b'"subscribe":' + _object(_subscribed(result))
        case Refreshed():
            return b'"refresh":' + _object(_identity(result))
        case HistoryPage(position, publications):
            found = b",".join(map(_publication, publications))
            head = b'"epoch":%b,"offset":%d' % (_quoted(position.epoch), position.offset)
            return b'"history":{"publications":[%b],%b}' % (found, head)
        case Members(infos):
            members = _object(b"%b:%b" % (_quoted(client), info) for client, info in infos.items())
            return b'"presence":{"presence":%b}' % members
        case MemberCount(clients, users):
            return b'"presence_stats":{"num_clients":%d,"num_users":%d}' % (clients, users)
        case SubRefreshed(ttl):
            return b'"sub_refresh":' + _object(_expiry(ttl))
        case Accepted():
            return b'"publish":{}'
        case Returned(data):
            return b'"rpc":{"data":%b}' % data
        case Left():
            return b'"unsubscribe":{}'


def _identity(result: Connected | Refreshed) -> list[bytes]:
    return [b'"client":%b,"version":%b' % (_quoted(result.client), _quoted(result.version)), *_expiry(result.ttl)]


def _expiry(ttl: int) -> list[bytes]:
    return [b'"expires":true,"ttl":%d' % ttl] if ttl else []


def _reason(why: Disconnect | Closing | Unsubscribed) -> bytes:
    return b'{"code":%d,"reason":%b}' % (why.code, _quoted(why.reason))


def _connected(result: Connected) -> list[bytes]:
    fields = [*_identity(result), b'"ping":%d' % result.ping]
    if result.owes_pongs:
        fields.append(b'"pong":true')
    if result.route is not None:
        fields.append(b'"session":%b,"node":%b' % (_quoted(result.route.session), _quoted(result.route.node)))
    if result.subs:
        subs = (b"%b:%b" % (_quoted(name), _object(_subscribed(sub))) for name, sub in result.subs.items())
        fields.append(b'"subs":' + _object(subs))
    return fields


def _subscribed(result: Subscribed | Listening) -> list[bytes]:
    common = _expiry(result.ttl) + ([b'"data":' + result.data] if result.data else [])
    if isinstance(result, Listening):
        return common
    fields = [*common, b'"positioned":true,"epoch":' + _quoted(result.position.epoch)]
    if result.is_recoverable:
        # An SDK that misses it never asks for recovery again.
        fields.append(b'"recoverable":true')
    if result.position.offset:
        fields.append(b'"offset":%d' % result.position.offset)
    if result.was_recovering:
        fields.append(b'"was_recovering":true')
    if result.recovered:
        fields.append(b'"recovered":true')
    if result.is_delta:
        fields.append(b'"delta":true')
    if result.publications:
        fields.append(b'"publications":[%b]' % _missed.encoded(result.publications, is_delta=result.is_delta))
    return fields


def _begun(joined: Subscribed | Listening) -> list[bytes]:
    """The push has no place for what was missed."""
    if isinstance(joined, Subscribed):
        joined = replace(joined, was_recovering=False, recovered=False, publications=())
    return _subscribed(joined)


class _Missed:
    """What clients missed, encoded. After an outage many missed the same: the latest is kept, for who is next."""

    def __init__(self) -> None:
        self._latest: tuple[Sequence[Publication], bool] = ([], False)
        self._encoded = b""

    def encoded(self, publications: Sequence[Publication], *, is_delta: bool) -> bytes:
        wanted = (publications, is_delta)
        if wanted != self._latest:  # quick, as they are the very objects of the channel's memory
            # Where differences are spoken a document is text, also a whole one.
            shown = map(_as_text, publications) if is_delta else publications
            self._latest, self._encoded = wanted, b",".join(map(_publication, shown))
        return self._encoded


_missed: Final = _Missed()


def _as_text(publication: Publication) -> Publication:
    return replace(publication, data=_quoted(publication.data.decode()))


def client_info(info: ClientInfo) -> bytes:
    """As it stands in a publication, a join and a leave."""
    fields = [b'"user":%b,"client":%b' % (_quoted(info.user), _quoted(info.client))]
    if info.conn_info:
        fields.append(b'"conn_info":' + info.conn_info)
    if info.chan_info:
        fields.append(b'"chan_info":' + info.chan_info)
    return _object(fields)


def _publication(publication: Publication) -> bytes:
    fields = [b'"data":' + publication.data]
    if publication.offset:
        fields.append(b'"offset":%d' % publication.offset)
    if publication.info:
        fields.append(b'"info":' + publication.info)
    if publication.tags:
        fields.append(b'"tags":' + publication.tags)
    return _object(fields)
