"""What clients do with channels: whether they may, and doing it. The domain judges its own, `namespaces` the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

from handlers.audience import UnknownChannel
from handlers.clock import utc_now
from handlers.errors import Unavailable
from handlers.ports.streams import ClientInfo, StreamsAway
from realtime.admission import Admission
from realtime.bus import BusAway
from realtime.capabilities import Operation
from realtime.channel import Subscriber
from realtime.channels import passing
from realtime.client_tokens import NOTHING, ClientTokens, Grant, TokenMismatch
from realtime.credentials import Credentials
from realtime.hub import Hub
from realtime.key_set import KeysAway
from realtime.namespaces import USER_BOUNDARY, ChannelOptions, Namespaces, permits
from realtime.presence import Member, PresenceAway
from realtime.presence_keeper import PresenceKeeper
from realtime.protocol import messages as commands
from realtime.protocol.codes import Disconnect, Error
from realtime.protocol.json_codec import client_info
from realtime.protocol.messages import (
    Accepted,
    History,
    HistoryPage,
    Listening,
    MemberCount,
    Members,
    Publish,
    Subscribe,
    Subscribed,
)
from realtime.publisher import Draft, Publisher, PublisherBusy
from realtime.session_effects import Authorize, Carried, Join, Perform, Refused
from realtime.tokens import TokenExpired, TokenInvalid

T = TypeVar("T")

_SOURCE: Final = "client"


class Operations:
    """`insecure`: every client may do everything with configured channels (a setting for development)."""

    def __init__(
        self,
        namespaces: Namespaces,
        admission: Admission,
        hub: Hub,
        publisher: Publisher,
        keeper: PresenceKeeper,
        tokens: ClientTokens,
        *,
        insecure: bool,
    ) -> None:
        self._namespaces = namespaces
        self._admission = admission
        self._hub = hub
        self._publisher = publisher
        self._keeper = keeper
        self._tokens = tokens
        self._insecure = insecure
        # Of those subscriptions that others can see.
        self._members: dict[tuple[Subscriber, str], tuple[Member, ChannelOptions]] = {}
        # Of those whose token says something about the subscriber in the channel.
        self._grants: dict[tuple[Subscriber, str], Grant] = {}

    async def join(
        self, subscriber: Subscriber, client: str, question: Join, reply: Callable[[Subscribed | Listening], None]
    ) -> Error | Disconnect | None:
        """Subscribe, or return why not. `reply` is called as `Hub.join` says."""
        return await _or_error(self._join(subscriber, client, question, reply))

    def leave(self, subscriber: Subscriber, channel: str) -> None:
        """Nothing is delivered from now on, and the others see it. Idempotent."""
        self._hub.leave(subscriber, channel)
        self._grants.pop((subscriber, channel), None)
        entered = self._members.pop((subscriber, channel), None)
        if entered is not None:
            self._keeper.leave(channel, *entered)

    async def authorize(
        self, subscriber: Subscriber, client: str, question: Authorize, now: datetime
    ) -> Grant | Refused:
        """What a new token for a channel gives a client that hears it, from now on."""
        try:
            granted = await self._granted(client, question.who, question.channel, question.token, now)
        except KeysAway:
            return Refused(Error.INTERNAL)
        if isinstance(granted, Grant):
            if (subscriber, question.channel) in self._grants:  # it may have left while the key was looked up
                self._grants[subscriber, question.channel] = granted
            return granted
        return Refused(Error.EXPIRED if granted is Error.TOKEN_EXPIRED else granted)

    async def perform(self, subscriber: Subscriber, client: str, question: Perform) -> Carried | Error:
        """The command's result, or why there is none."""
        return await _or_error(self._perform(subscriber, client, question))

    async def _join(
        self, subscriber: Subscriber, client: str, question: Join, reply: Callable[[Subscribed | Listening], None]
    ) -> Error | Disconnect | None:
        who, channel, request = question.who, question.channel, question.request
        options = self._namespaces.of(channel)
        grant = await self._admit(client, question, options)
        if not isinstance(grant, Grant):
            return grant
        options = replace(options, **grant.overrides)
        if (
            request is not None
            and request.filter is not None
            and (request.wants_delta or not options.allow_tags_filter)
        ):
            return Error.BAD_REQUEST  # a difference is to what came before, which a filter may have kept back

        def welcome(joined: Subscribed | Listening) -> None:
            # First the entry: the session may leave in answer to the reply.
            self._enter(subscriber, client, question, options, grant)
            if options.exclude_publisher:
                self._hub.spare(subscriber, channel, client)
            if options.conflate:
                self._hub.conflate(channel)
            if options.write_delay:
                self._hub.pace(channel, options.write_delay)
            joined = self._compressed(subscriber, question, options, replace(joined, ttl=grant.ttl, data=grant.data))
            reply(self._narrowed(subscriber, question, joined))

        if not options.has_history:
            self._hub.listen(subscriber, channel)
            welcome(Listening())
            return None
        may_ask = (
            options.is_domain
            or Operation.HISTORY in grant.allow
            or self._permits(options, Operation.HISTORY, channel, who, is_subscriber=True)
        )
        shown = _Shown.of(options, request if may_ask else None)
        since = question.since if shown.is_recoverable else None
        latest_within = options.history_ttl if options.is_cache and shown.is_recoverable else None
        await self._hub.join(
            subscriber,
            channel,
            since,
            lambda joined: welcome(shown.of_this(joined)),
            latest_within=latest_within,
            filter_=None if request is None else request.filter,
        )
        return None

    def _compressed(
        self, subscriber: Subscriber, question: Join, options: ChannelOptions, joined: Subscribed | Listening
    ) -> Subscribed | Listening:
        wants = question.request is not None and question.request.wants_delta
        if not wants or not options.takes_deltas or isinstance(joined, Listening):
            return joined
        self._hub.compress(subscriber, question.channel, always=options.delta_publish)
        return replace(joined, is_delta=True)

    def _narrowed(
        self, subscriber: Subscriber, question: Join, joined: Subscribed | Listening
    ) -> Subscribed | Listening:
        """The reply to a subscriber, who is from now on sent what its filter, if it has one, lets through."""
        filter_ = None if question.request is None else question.request.filter
        if filter_ is None:
            return joined
        self._hub.narrow(subscriber, question.channel, filter_)
        if isinstance(joined, Listening):
            return joined
        return replace(joined, publications=passing(filter_, joined.publications))

    async def _admit(self, client: str, question: Join, options: ChannelOptions) -> Grant | Error | Disconnect:
        """Into the domain's channels nobody comes by a token, and nobody is put whom the domain would not let in."""
        who, channel, request = question.who, question.channel, question.request
        is_own = channel == f"{USER_BOUNDARY}{who.user}" and request is None
        if not options.is_domain and request is None:
            return question.grant
        if not options.is_domain and request is not None and request.token:
            return await self._granted(client, who, channel, request.token, utc_now())
        if is_own or await self._may_hear(who, channel, options):
            return question.grant
        return Error.PERMISSION_DENIED

    async def _granted(
        self, client: str, who: Credentials, channel: str, token: str, now: datetime
    ) -> Grant | Error | Disconnect:
        await self._tokens.fetch_key(token)
        try:
            return self._tokens.subscription(token, now, channel=channel, user=who.user, client=client)
        except TokenExpired:
            return Error.TOKEN_EXPIRED
        except TokenInvalid:
            return Error.PERMISSION_DENIED
        except TokenMismatch:
            return Disconnect.INVALID_TOKEN

    def _enter(
        self, subscriber: Subscriber, client: str, question: Join, options: ChannelOptions, grant: Grant
    ) -> None:
        """Let the others see the subscriber, and the subscriber see them, as far as the channel's options go."""
        channel, who = question.channel, question.who
        if grant is not NOTHING:
            self._grants[subscriber, channel] = grant
        if options.presence or options.join_leave:
            member = Member(client, who.user, client_info(ClientInfo(who.user, client, who.info, grant.info)))
            self._members[subscriber, channel] = (member, options)
            self._keeper.enter(channel, member, options)
        wants = question.request is not None and question.request.wants_join_leave
        may_ask = wants and (
            Operation.PRESENCE in grant.allow
            or self._permits(options, Operation.PRESENCE, channel, who, is_subscriber=True)
        )
        if options.join_leave and (options.force_push_join_leave or may_ask):
            self._hub.watch(subscriber, channel)

    async def _perform(self, subscriber: Subscriber, client: str, question: Perform) -> Carried | Error:
        match question.command:
            case Publish():
                return await self._publish(subscriber, client, question, question.command)
            case History():
                return await self._history(subscriber, question, question.command)
            case commands.Presence() | commands.PresenceStats():
                return await self._present(subscriber, question, question.command)

    async def _publish(
        self, subscriber: Subscriber, client: str, question: Perform, command: Publish
    ) -> Accepted | Error:
        channel, options = command.channel, self._namespaces.of(command.channel)
        # What is said in the domain's channels has happened in the domain.
        if options.is_domain or not self._may_perform(subscriber, question, Operation.PUBLISH, options):
            return Error.PERMISSION_DENIED
        grant = self._grants.get((subscriber, channel), NOTHING)
        info = ClientInfo(question.who.user, client, question.who.info, grant.info)
        await self._publisher.publish(Draft(channel, command.data, _SOURCE, info=client_info(info)), options)
        return Accepted()

    async def _history(self, subscriber: Subscriber, question: Perform, command: History) -> HistoryPage | Error:
        channel, options = command.channel, self._namespaces.of(command.channel)
        if not options.has_history:
            return Error.NOT_AVAILABLE
        if options.is_domain:
            may_read = question.is_subscriber or await self._may_hear(question.who, channel, options)
        else:
            may_read = self._may_perform(subscriber, question, Operation.HISTORY, options)
        if not may_read:
            return Error.PERMISSION_DENIED
        page = await self._hub.history(channel, command.span)
        return Error.UNRECOVERABLE_POSITION if page is None else page

    async def _present(
        self, subscriber: Subscriber, question: Perform, command: commands.Presence | commands.PresenceStats
    ) -> Members | MemberCount | Error:
        channel, options = command.channel, self._namespaces.of(command.channel)
        if not options.presence:
            return Error.NOT_AVAILABLE
        if not self._may_perform(subscriber, question, Operation.PRESENCE, options):
            return Error.PERMISSION_DENIED
        if isinstance(command, commands.PresenceStats):
            stats = await self._keeper.stats(channel)
            return MemberCount(stats.clients, stats.users)
        members = await self._keeper.members(channel)
        return Members({client: member.info for client, member in members.items()})

    def _may_perform(
        self, subscriber: Subscriber, question: Perform, operation: Operation, options: ChannelOptions
    ) -> bool:
        channel = question.command.channel
        if operation in self._grants.get((subscriber, channel), NOTHING).allow:
            return True
        return self._permits(options, operation, channel, question.who, is_subscriber=question.is_subscriber)

    async def _may_hear(self, who: Credentials, channel: str, options: ChannelOptions) -> bool:
        """In the domain who may hear a channel may read what it was too."""
        if not options.is_domain:
            return self._permits(options, Operation.SUBSCRIBE, channel, who, is_subscriber=False)
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
    except (Unavailable, StreamsAway, BusAway, PresenceAway, KeysAway):
        return Error.INTERNAL
