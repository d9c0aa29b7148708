"""The Protobuf form: binary frames of messages, each behind its length. The schema is client.proto.

The same messages as in the JSON form, field by field, and the same payloads: JSON, in `bytes` fields. What the schema
cannot express cannot be wrong, so reading checks only what is left: ranges, and that a channel has a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any, Final

import orjson
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Part
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed

from handlers.ports.domain import Position
from handlers.ports.streams import Publication
from realtime.protocol import client_pb2 as pb
from realtime.protocol.codes import Error
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

# What parsing raises for bytes that are no messages; the last two for lengths that end early or are absurd.
_NO_MESSAGE: Final = (DecodeError, ValueError, EOFError, OverflowError)


class ProtobufCodec:
    """A `Codec`."""

    form = "protobuf"

    def decode(self, frame: bytes) -> list[Command]:
        try:
            commands = [_command(part) for part in _parts(frame)]
        except _NO_MESSAGE:
            raise ProtocolError("not Protobuf") from None
        if not commands:
            raise ProtocolError("empty")
        return commands

    def encode(self, message: Message) -> bytes:
        match message:
            case Reply(id, result):
                return _written(_reply(id, result))
            case Ended(channel, why):
                ended = pb.Unsubscribe(code=why.code, reason=why.reason)
                return _written(pb.Reply(push=pb.Push(channel=channel, unsubscribe=ended)))
            case Begun(channel, joined):
                return _written(pb.Reply(push=pb.Push(channel=channel, subscribe=_begun(joined))))
            case Renewed(ttl):
                return _written(pb.Reply(push=pb.Push(refresh=pb.Refresh(expires=ttl > 0, ttl=ttl))))
            case Goodbye(why):
                disconnect = pb.Disconnect(code=why.code, reason=why.reason)
                return _written(pb.Reply(push=pb.Push(disconnect=disconnect)))
            case Ping():
                return _written(pb.Reply())

    def publication(self, channel: str, publication: Publication) -> bytes:
        return _written(pb.Reply(push=pb.Push(channel=channel, pub=_publication(publication))))

    def compressed(self, channel: str, publication: Publication, base: bytes | None) -> bytes:
        difference = None if base is None else delta(base, publication.data)
        pub = _publication(publication)
        if difference is not None:
            pub.data, pub.delta = difference, True
        return _written(pb.Reply(push=pb.Push(channel=channel, pub=pub)))

    def membership(self, channel: str, info: bytes, *, is_join: bool) -> bytes:
        who = _client_info(info)
        if is_join:
            return _written(pb.Reply(push=pb.Push(channel=channel, join=pb.Join(info=who))))
        return _written(pb.Reply(push=pb.Push(channel=channel, leave=pb.Leave(info=who))))


# Reading.


def _parts(frame: bytes) -> Iterator[pb.Command]:
    rest = BytesIO(frame)
    while (part := parse_length_prefixed(pb.Command, rest)) is not None:
        yield part


def _named(channel: str) -> str:
    if not channel:
        raise ProtocolError("no channel")
    return channel


def _since(request: pb.SubscribeRequest) -> Position | None:
    return Position(request.offset, request.epoch) if request.recover else None


def _connect(id_: int, request: pb.ConnectRequest) -> Command:
    since = {channel: position for channel, sub in request.subs.items() if (position := _since(sub)) is not None}
    return Connect(id_, request.token, since, App(request.name, request.version))


def _subscribe(id_: int, request: pb.SubscribeRequest) -> Command:
    filter_, is_filter_bad = parsed(_node(request.tf) if request.HasField("tf") else None)
    return Subscribe(
        id_,
        _named(request.channel),
        _since(request),
        token=request.token,
        wants_position=request.positioned,
        wants_recovery=request.recoverable,
        wants_join_leave=request.join_leave,
        reject_unrecovered=bool(request.flag & REJECT_UNRECOVERED),
        is_plain=request.type == 0,
        wants_delta=request.delta == DELTA,
        filter=filter_,
        is_filter_bad=is_filter_bad,
    )


def _node(node: pb.FilterNode) -> dict[str, object]:
    """As in the other form."""
    own: dict[str, object] = {"op": node.op, "key": node.key, "cmp": node.cmp, "val": node.val}
    return own | {"vals": list(node.vals), "nodes": [_node(part) for part in node.nodes]}


def _publish(id_: int, request: pb.PublishRequest) -> Command:
    return Publish(id_, _named(request.channel), _payload(request.data), is_plain=request.type == 0)


def _payload(data: bytes) -> bytes:
    """On one line, for JSON clients hear it as well; empty if it is no JSON, or nests deeper than can be written."""
    try:
        return orjson.dumps(orjson.loads(data))
    except (orjson.JSONDecodeError, TypeError):
        return b""


def _history(id_: int, request: pb.HistoryRequest) -> Command:
    since = Position(request.since.offset, request.since.epoch) if request.HasField("since") else None
    return History(id_, _named(request.channel), Span(request.limit, since, request.reverse))


def _unspoken(id_: int, _: object) -> Command:
    return Unspoken(id_)


# Where a command has several of these fields the first one counts.
_METHODS: Final[Mapping[str, Callable[[int, Any], Command]]] = {
    "connect": _connect,
    "ping": _unspoken,
    "subscribe": _subscribe,
    "unsubscribe": lambda id_, request: Unsubscribe(id_, _named(request.channel)),
    "publish": _publish,
    "presence": lambda id_, request: Presence(id_, _named(request.channel)),
    "presence_stats": lambda id_, request: PresenceStats(id_, _named(request.channel)),
    "history": _history,
    "rpc": lambda id_, request: Rpc(id_, request.method, request.data),
    "send": lambda _id, _request: Send(),
    "refresh": lambda id_, request: Refresh(id_, request.token),
    "sub_refresh": lambda id_, request: SubRefresh(id_, _named(request.channel), request.token),
}


def _command(command: pb.Command) -> Command:
    if command.id == 0 and not command.HasField("send"):
        return Pong()
    for method, read in _METHODS.items():
        if command.HasField(method):
            return read(command.id, getattr(command, method))
    raise ProtocolError("no known method")


# Writing.


def _written(reply: Part) -> bytes:
    output = BytesIO()
    serialize_length_prefixed(reply, output)
    return output.getvalue()


def _reply(id_: int, result: Result | Failure) -> pb.Reply:
    # Given as an argument, a result is there even when it is empty; clients look for it.
    match result:
        case Error() | Refusal():
            error = pb.Error(code=result.code, message=result.message, temporary=result.temporary)
            return pb.Reply(id=id_, error=error)
        case Connected():
            return pb.Reply(id=id_, connect=_connected(result))
        case Subscribed() | Listening():
            return pb.Reply(id=id_, subscribe=_subscribed(result))
        case Refreshed(client, version, ttl):
            refreshed = pb.RefreshResult(client=client, version=version, expires=ttl > 0, ttl=ttl)
            return pb.Reply(id=id_, refresh=refreshed)
        case HistoryPage(position, publications):
            found = map(_publication, publications)
            page = pb.HistoryResult(publications=found, epoch=position.epoch, offset=position.offset)
            return pb.Reply(id=id_, history=page)
        case Members(infos):
            members = {client: _client_info(info) for client, info in infos.items()}
            return pb.Reply(id=id_, presence=pb.PresenceResult(presence=members))
        case MemberCount(clients, users):
            return pb.Reply(id=id_, presence_stats=pb.PresenceStatsResult(num_clients=clients, num_users=users))
        case SubRefreshed(ttl):
            return pb.Reply(id=id_, sub_refresh=pb.SubRefreshResult(expires=ttl > 0, ttl=ttl))
        case Accepted():
            return pb.Reply(id=id_, publish=pb.PublishResult())
        case Returned(data):
            return pb.Reply(id=id_, rpc=pb.RPCResult(data=data))
        case Left():
            return pb.Reply(id=id_, unsubscribe=pb.UnsubscribeResult())


def _connected(result: Connected) -> pb.ConnectResult:
    return pb.ConnectResult(
        client=result.client,
        version=result.version,
        expires=result.ttl > 0,
        ttl=result.ttl,
        ping=result.ping,
        pong=result.owes_pongs,
        session="" if result.route is None else result.route.session,
        node="" if result.route is None else result.route.node,
        subs={channel: _subscribed(sub) for channel, sub in result.subs.items()},
    )


def _subscribed(result: Subscribed | Listening) -> pb.SubscribeResult:
    if isinstance(result, Listening):
        return pb.SubscribeResult(expires=result.ttl > 0, ttl=result.ttl, data=result.data)
    return pb.SubscribeResult(
        expires=result.ttl > 0,
        ttl=result.ttl,
        data=result.data,
        recoverable=result.is_recoverable,
        positioned=True,
        epoch=result.position.epoch,
        offset=result.position.offset,
        was_recovering=result.was_recovering,
        delta=result.is_delta,
        recovered=result.recovered,
        publications=map(_publication, result.publications),
    )


def _begun(joined: Subscribed | Listening) -> pb.Subscribe:
    if isinstance(joined, Listening):
        return pb.Subscribe(data=joined.data)
    where = joined.position
    return pb.Subscribe(
        recoverable=joined.is_recoverable, positioned=True, epoch=where.epoch, offset=where.offset, data=joined.data
    )


def _publication(publication: Publication) -> pb.Publication:
    info = _client_info(publication.info) if publication.info else None
    tags = orjson.loads(publication.tags) if publication.tags else None
    return pb.Publication(data=publication.data, offset=publication.offset, info=info, tags=tags)


def _client_info(info: bytes) -> pb.ClientInfo:
    """Of the JSON form, in which it is kept."""
    fields = orjson.loads(info)
    payloads = {key: orjson.dumps(fields[key]) for key in ("conn_info", "chan_info") if key in fields}
    return pb.ClientInfo(user=fields["user"], client=fields["client"], **payloads)
