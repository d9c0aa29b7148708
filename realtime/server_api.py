"""The server API: what a backend may tell and ask the real-time server. Methods and fields are those of Centrifugo's
HTTP API, so its libraries work against it; docs/server-api.md is our text of it. Knows no transport.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, TypeAlias, TypeVar

import orjson
from pydantic import BaseModel, JsonValue, ValidationError

from handlers.audience import Kind, UnknownChannel, parse_channel
from handlers.clock import utc_now
from handlers.ports.domain import Position
from handlers.ports.streams import Publication, StreamsAway
from realtime import census
from realtime.bus import BusAway
from realtime.control import Control, Enroll, Expel, Kick, Renew
from realtime.hub import Hub
from realtime.namespaces import ChannelOptions, Namespaces
from realtime.nodes import Nodes
from realtime.presence import PresenceAway
from realtime.presence_keeper import PresenceKeeper
from realtime.protocol.codes import Disconnect, Error
from realtime.protocol.messages import Span
from realtime.publisher import Draft, Publisher, PublisherBusy, Version
from realtime.server_requests import (
    BatchRequest,
    BroadcastRequest,
    ChannelRequest,
    ChannelsRequest,
    ConnectionsRequest,
    Content,
    DisconnectRequest,
    HistoryRequest,
    PublishRequest,
    RefreshRequest,
    Request,
    SubscribeRequest,
    UnsubscribeRequest,
)
from realtime.survey import NodesSilent, Survey

Result: TypeAlias = dict[str, object]
M = TypeVar("M", bound=BaseModel)

_SOURCE: Final = "api"
_IN_PARALLEL: Final = 64


class ApiError(Exception):
    """The method was refused, or failed. `place` is what of the request is bad, where that can be told."""

    def __init__(self, error: Error, place: str = "") -> None:
        super().__init__(f"{error.message}: {place}" if place else error.message)
        self.error = error

    @property
    def shown(self) -> Result:
        return {"code": self.error.code, "message": str(self)}


@dataclass(frozen=True, slots=True)
class _Method:
    read: type[Request]
    answer: Callable[..., Awaitable[Result]]


class ServerApi:
    """Whoever may call it may do everything: who that is, the transport has to know.

    `history_limit` is the most publications that one answer has.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        publisher: Publisher,
        hub: Hub,
        keeper: PresenceKeeper,
        control: Control,
        nodes: Nodes,
        survey: Survey,
        *,
        history_limit: int,
    ) -> None:
        self._control = control
        self._nodes = nodes
        self._survey = survey
        self._namespaces = namespaces
        self._keeper = keeper
        self._publisher = publisher
        self._hub = hub
        self._history_limit = history_limit
        self._methods: Mapping[str, _Method] = {
            "publish": _Method(PublishRequest, self._publish),
            "broadcast": _Method(BroadcastRequest, self._broadcast),
            "history": _Method(HistoryRequest, self._history),
            "history_remove": _Method(ChannelRequest, self._history_remove),
            "subscribe": _Method(SubscribeRequest, self._subscribe),
            "unsubscribe": _Method(UnsubscribeRequest, self._unsubscribe),
            "disconnect": _Method(DisconnectRequest, self._disconnect),
            "refresh": _Method(RefreshRequest, self._refresh),
            "connections": _Method(ConnectionsRequest, self._connections),
            "channels": _Method(ChannelsRequest, self._channels),
            "info": _Method(Request, self._info),
            "presence": _Method(ChannelRequest, self._members),
            "presence_stats": _Method(ChannelRequest, self._member_count),
        }

    def knows(self, method: str) -> bool:
        return method == "batch" or method in self._methods

    async def call(self, method: str, body: object) -> Result:
        """The result of a method that is known. Raises ApiError."""
        if method == "batch":
            return await self._batch(_read(BatchRequest, body))
        known = self._methods[method]
        try:
            return await known.answer(_read(known.read, body))
        except UnknownChannel:
            raise ApiError(Error.UNKNOWN_CHANNEL) from None
        except PublisherBusy:
            raise ApiError(Error.TOO_MANY_REQUESTS) from None
        except (StreamsAway, BusAway, PresenceAway, NodesSilent):
            raise ApiError(Error.INTERNAL) from None

    async def _publish(self, request: PublishRequest) -> Result:
        return await self._publish_to(request.channel, request)

    async def _publish_to(self, channel: str, content: Content) -> Result:
        options = self._namespaces.of(channel)
        if options.is_domain and parse_channel(channel).kind is not Kind.PERSONAL:
            # What is said there has happened in the domain, or comes as an event.
            raise ApiError(Error.PERMISSION_DENIED)
        position = await self._publisher.publish(_draft(channel, content, options), options)
        return {} if position is None else {"offset": position.offset, "epoch": position.epoch}

    async def _broadcast(self, request: BroadcastRequest) -> Result:
        """Each by itself: one channel's error is not the others'."""
        content = request.model_dump(exclude={"channels"}, exclude_unset=True)
        commands: list[dict[str, JsonValue]] = [{"publish": {"channel": name, **content}} for name in request.channels]
        return {"responses": await _some_at_a_time(self._response, commands)}

    async def _response(self, command: dict[str, JsonValue]) -> Result:
        reply = await self._reply(command)
        return reply if "error" in reply else {"result": reply["publish"]}

    async def _history(self, request: HistoryRequest) -> Result:
        if not self._namespaces.of(request.channel).has_history:
            raise ApiError(Error.NOT_AVAILABLE)
        since = None if request.since is None else Position(request.since.offset, request.since.epoch)
        if request.reverse and since is not None and since.offset == 0:
            raise ApiError(Error.BAD_REQUEST)
        limit = self._history_limit if request.limit < 0 else min(request.limit, self._history_limit)
        page = await self._hub.history(request.channel, Span(limit, since, request.reverse))
        if page is None:
            raise ApiError(Error.UNRECOVERABLE_POSITION)
        publications = [_shown(publication) for publication in page.publications]
        return {"publications": publications, "offset": page.position.offset, "epoch": page.position.epoch}

    async def _history_remove(self, request: ChannelRequest) -> Result:
        options = self._namespaces.of(request.channel)
        if options.is_domain:
            raise ApiError(Error.PERMISSION_DENIED)  # clients resume from it
        if not options.has_history:
            raise ApiError(Error.NOT_AVAILABLE)
        await self._hub.remove_history(request.channel)
        return {}

    async def _subscribe(self, request: SubscribeRequest) -> Result:
        options = self._namespaces.of(request.channel)
        if 0 < request.expire_at <= utc_now().timestamp():
            raise ApiError(Error.BAD_REQUEST, "expire_at")
        since = request.recover_since
        overrides = {name: given.value for name, given in request.override if given}
        if since is not None and not (options.has_history and overrides.get("force_recovery", options.force_recovery)):
            raise ApiError(Error.NOT_AVAILABLE)  # who cannot resume cannot begin anywhere else either
        info = _given("info", request.info, request.b64info)
        data = _given("data", request.data, request.b64data)
        await self._control.tell(
            Enroll(
                request.whose,
                request.channel,
                info,
                overrides,
                None if since is None else since.offset,
                "" if since is None else since.epoch,
                data,
                request.expire_at,
            )
        )
        return {}

    async def _unsubscribe(self, request: UnsubscribeRequest) -> Result:
        self._namespaces.of(request.channel)
        await self._control.tell(Expel(request.whose, request.channel))
        return {}

    async def _disconnect(self, request: DisconnectRequest) -> Result:
        whose = replace(request.whose, spared=tuple(request.whitelist))
        await self._control.tell(Kick(whose, request.disconnect.code, request.disconnect.reason))
        return {}

    async def _refresh(self, request: RefreshRequest) -> Result:
        if request.expired:
            await self._control.tell(Kick(request.whose, Disconnect.EXPIRED.code, Disconnect.EXPIRED.reason))
        else:
            await self._control.tell(Renew(request.whose, request.expire_at))
        return {}

    async def _connections(self, request: ConnectionsRequest) -> Result:
        found = await self._survey.ask(census.CONNECTIONS, request.user)
        return {"connections": {client: about for answer in found for client, about in answer.items()}}

    async def _channels(self, request: ChannelsRequest) -> Result:
        counted: Counter[str] = Counter()
        for answer in await self._survey.ask(census.CHANNELS, request.pattern):
            counted.update(answer)
        return {"channels": {name: {"num_clients": count} for name, count in counted.items()}}

    async def _info(self, _: Request) -> Result:
        return {"nodes": [asdict(node) for node in self._nodes.all()]}

    async def _members(self, request: ChannelRequest) -> Result:
        self._require_presence(request.channel)
        members = await self._keeper.members(request.channel)
        return {"presence": {client: orjson.Fragment(member.info) for client, member in members.items()}}

    async def _member_count(self, request: ChannelRequest) -> Result:
        self._require_presence(request.channel)
        stats = await self._keeper.stats(request.channel)
        return {"num_clients": stats.clients, "num_users": stats.users}

    def _require_presence(self, channel: str) -> None:
        if not self._namespaces.of(channel).presence:
            raise ApiError(Error.NOT_AVAILABLE)

    async def _batch(self, request: BatchRequest) -> Result:
        if request.parallel:
            return {"replies": await _some_at_a_time(self._reply, request.commands)}
        return {"replies": [await self._reply(command) for command in request.commands]}

    async def _reply(self, command: dict[str, JsonValue]) -> Result:
        asked = {name: body for name, body in command.items() if body is not None}
        try:
            if len(asked) != 1:
                raise ApiError(Error.BAD_REQUEST)
            [(method, body)] = asked.items()
            if method not in self._methods:
                raise ApiError(Error.METHOD_NOT_FOUND)
            return {method: await self.call(method, body)}
        except ApiError as refused:
            return {"error": refused.shown}


async def _some_at_a_time(
    answer: Callable[[dict[str, JsonValue]], Awaitable[Result]], commands: Sequence[dict[str, JsonValue]]
) -> list[Result]:
    slots = asyncio.Semaphore(_IN_PARALLEL)

    async def one(command: dict[str, JsonValue]) -> Result:
        async with slots:
            return await answer(command)

    return await asyncio.gather(*map(one, commands))


def _given(field: str, value: JsonValue, encoded: str) -> str:
    """As one JSON value, empty for null."""
    found = _json_of(f"b64{field}", encoded) if encoded else _written(field, value)
    return "" if found == b"null" else found.decode()


def _read(model: type[M], body: object) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise ApiError(Error.BAD_REQUEST, ".".join(map(str, error.errors()[0]["loc"]))) from None


def _draft(channel: str, content: Content, options: ChannelOptions) -> Draft:
    if content.version and (content.skip_history or not options.has_history):
        raise ApiError(Error.NOT_AVAILABLE)
    version = Version(content.version, content.version_epoch) if content.version else None
    tags = orjson.dumps(content.tags) if content.tags else b""
    return Draft(
        channel,
        _data(content),
        _SOURCE,
        content.idempotency_key,
        tags=tags,
        version=version,
        skip_history=content.skip_history,
        as_delta=content.delta,
    )


def _data(content: Content) -> bytes:
    """One JSON value on one line, whichever way it came."""
    if content.b64data:
        return _json_of("b64data", content.b64data)
    if "data" not in content.model_fields_set:
        raise ApiError(Error.BAD_REQUEST, "data")
    return _written("data", content.data)


def _json_of(field: str, encoded: str) -> bytes:
    try:
        return _written(field, orjson.loads(base64.b64decode(encoded, validate=True)))
    except (binascii.Error, ValueError):
        raise ApiError(Error.BAD_REQUEST, field) from None


def _written(field: str, value: JsonValue) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        raise ApiError(Error.BAD_REQUEST, field) from None  # nests deeper than can be written again


def _shown(publication: Publication) -> Result:
    """Payloads are copied, never parsed."""
    shown: Result = {"data": orjson.Fragment(publication.data), "offset": publication.offset}
    if publication.info:
        shown["info"] = orjson.Fragment(publication.info)
    if publication.tags:
        shown["tags"] = orjson.Fragment(publication.tags)
    return shown
