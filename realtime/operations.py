"""What clients do with channels: whether they may, and doing it. The domain judges its own, `namespaces` the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from handlers.audience import UnknownChannel
from handlers.errors import Unavailable
from handlers.ports.streams import ClientInfo, StreamsAway
from realtime.admission import Admission
from realtime.channel import Subscriber
from realtime.credentials import Credentials
from realtime.hub import Hub
from realtime.namespaces import ChannelOptions, Namespaces, Operation, permits
from realtime.protocol.codes import Error
from realtime.protocol.json_codec import client_info
from realtime.protocol.messages import Accepted, History, HistoryPage, Listening, Publish, Subscribe, Subscribed
from realtime.publisher import BusAway, Draft, Publisher, PublisherBusy
from realtime.session import Join, Perform

T = TypeVar("T")

_SOURCE: Final = "client"


class Operations:
    """`insecure`: every client may do everything with configured channels (a setting for development)."""

    def __init__(
        self, namespaces: Namespaces, admission: Admission, hub: Hub, publisher: Publisher, *, insecure: bool
    ) -> None:
        self._namespaces = namespaces
        self._admission = admission
        self._hub = hub
        self._publisher = publisher
        self._insecure = insecure

    async def join(
        self, subscriber: Subscriber, question: Join, reply: Callable[[Subscribed | Listening], None]
    ) -> Error | None:
        """Subscribe, or return why not. `reply` is called as `Hub.join` says."""
        return await _or_error(self._join(subscriber, question, reply))

    async def perform(self, client: str, question: Perform) -> Accepted | HistoryPage | Error:
        """The command's result, or why there is none."""
        return await _or_error(self._perform(client, question))

    async def _join(
        self, subscriber: Subscriber, question: Join, reply: Callable[[Subscribed | Listening], None]
    ) -> Error | None:
        who, channel, request = question.who, question.channel, question.request
        options = self._namespaces.of(channel)
        if request is not None and not await self._may(who, Operation.SUBSCRIBE, channel, options):
            return Error.PERMISSION_DENIED
        if not options.has_history:
            self._hub.listen(subscriber, channel)
            reply(Listening())
            return None
        may_ask = options.is_domain or self._permits(options, Operation.HISTORY, channel, who, is_subscriber=True)
        shown = _Shown.of(options, request if may_ask else None)
        since = question.since if shown.is_recoverable else None
        await self._hub.join(subscriber, channel, since, lambda joined: reply(shown.of_this(joined)))
        return None

    async def _perform(self, client: str, question: Perform) -> Accepted | HistoryPage | Error:
        match question.command:
            case Publish():
                return await self._publish(client, question.who, question.command, question.is_subscriber)
            case History():
                return await self._history(question.who, question.command, question.is_subscriber)

    async def _publish(self, client: str, who: Credentials, command: Publish, is_subscriber: bool) -> Accepted | Error:
        channel, options = command.channel, self._namespaces.of(command.channel)
        # What is said in the domain's channels has happened in the domain.
        if options.is_domain or not self._permits(
            options, Operation.PUBLISH, channel, who, is_subscriber=is_subscriber
        ):
            return Error.PERMISSION_DENIED
        info = client_info(ClientInfo(who.user, client, who.info))
        await self._publisher.publish(Draft(channel, command.data, _SOURCE, info=info), options)
        return Accepted()

    async def _history(self, who: Credentials, command: History, is_subscriber: bool) -> HistoryPage | Error:
        channel, options = command.channel, self._namespaces.of(command.channel)
        if not options.has_history:
            return Error.NOT_AVAILABLE
        if not await self._may(who, Operation.HISTORY, channel, options, is_subscriber=is_subscriber):
            return Error.PERMISSION_DENIED
        page = await self._hub.history(channel, command.span)
        return Error.UNRECOVERABLE_POSITION if page is None else page

    async def _may(
        self,
        who: Credentials,
        operation: Operation,
        channel: str,
        options: ChannelOptions,
        *,
        is_subscriber: bool = False,
    ) -> bool:
        """To hear a channel of the domain and to read what it was are the same right there."""
        if not options.is_domain:
            return self._permits(options, operation, channel, who, is_subscriber=is_subscriber)
        if is_subscriber:
            return True
        return who.actor is not None and await self._admission.may_join(who.actor, channel)

    def _permits(
        self, options: ChannelOptions, operation: Operation, channel: str, who: Credentials, *, is_subscriber: bool
    ) -> bool:
        return self._insecure or permits(options, operation, channel, who, is_subscriber=is_subscriber)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a subscriber is told of its position."""

    is_positioned: bool
    is_recoverable: bool

    @classmethod
    def of(cls, options: ChannelOptions, request: Subscribe | None) -> _Shown:
        """Without a `request` only what the options force."""
        is_recoverable = options.force_recovery or (request is not None and request.wants_recovery)
        wants_position = request is not None and request.wants_position
        return cls(is_recoverable or options.force_positioning or wants_position, is_recoverable)

    def of_this(self, joined: Subscribed) -> Subscribed | Listening:
        return replace(joined, is_recoverable=self.is_recoverable) if self.is_positioned else Listening()


async def _or_error(work: Awaitable[T]) -> T | Error:
    try:
        return await work
    except UnknownChannel:
        return Error.UNKNOWN_CHANNEL
    except PublisherBusy:
        return Error.TOO_MANY_REQUESTS
    except (Unavailable, StreamsAway, BusAway):
        return Error.INTERNAL
