"""One client's side of the protocol as a state machine: frames, answers and time in, effects out. No I/O.

    NEW --connect--> CONNECTING --welcome--> CONNECTED --> CLOSED
                          \\--error reply--> FAILED ------^

Commands are worked on in order. One that needs somebody's answer (who is this token? may they join?) is asked as an
effect, and the rest waits for `answered`. One that changes nothing of the session (publish, history, rpc …) is handed
out as an effect too, and `finished` tells what came of it; with a concurrency of 1 the rest waits for that as well,
except that publications into one channel do not wait for each other: whoever performs them keeps their order. Whoever
drives a session carries the effects out in order.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from handlers.audience import is_channel_name
from handlers.ports.domain import Position
from realtime.client_tokens import Grant, whole_seconds
from realtime.credentials import Credentials
from realtime.protocol.codes import Closing, Disconnect, Error, Unsubscribed, closing_for
from realtime.protocol.messages import (
    COMMAND_NAMES,
    NO_APP,
    App,
    Begun,
    Codec,
    Command,
    Connect,
    Connected,
    Ended,
    Failure,
    Garbled,
    History,
    Left,
    Listening,
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
    Route,
    Rpc,
    Send,
    SubRefresh,
    SubRefreshed,
    Subscribe,
    Subscribed,
    Unspoken,
    Unsubscribe,
)
from realtime.rate_limits import UNLIMITED, Meter, Meters, Verdict
from realtime.session_effects import (
    Answer,
    Authenticate,
    Authorize,
    Call,
    ClientOptions,
    Close,
    Effect,
    Identified,
    Join,
    Leave,
    Outcome,
    Perform,
    Refused,
    Rejected,
    Say,
)

_FREE: Final = Meters(UNLIMITED)


class _Phase(Enum):
    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class _Enroll:
    channel: str
    grant: Grant
    since: Position | None


@dataclass(frozen=True, slots=True)
class _Expel:
    channel: str
    why: Unsubscribed


@dataclass(frozen=True, slots=True)
class _TooMany:
    """Stands where the client sent a command more than it may."""

    command: Command


_Order = _Enroll | _Expel
"""What the server wants of a session; it waits its turn as what the client wants does."""


# Full ones that may wait behind a question: the first frame of an SDK has all that it subscribes to.
_WAITING_FRAMES: Final = 2

# Publications of one client into one channel that may be under way although it has a concurrency of 1.
_PUBLISHING: Final = 64

_APP_LENGTH: Final = 64  # characters that are kept of what a program calls itself

_Asking = Connect | Refresh | Subscribe | SubRefresh | _Enroll
# Those that change nothing of the session: several may be under way.
_Independent = Publish | History | Presence | PresenceStats | Rpc
_Waiting = Command | _TooMany | _Order


class Session:
    """`now` is monotonic seconds throughout; `random` returns [0, 1). Every method returns effects and never raises.

    After a Close every method returns nothing. `route` is given where commands do not travel on the connection itself;
    where it `is_one_way` there are none but the connect, nor pongs, and an error closes.
    """

    __slots__ = (
        "_asked", "_channels", "_codec", "_expires_at", "_flying", "_grants", "_meter", "_meters", "_next_ping",
        "_options", "_phase", "_pong_by", "_pongs_owed", "_publishing", "_random", "_server_side", "_stale_at",
        "_subs_end", "_user_meter", "_version", "_waiting", "_waiting_bytes", "_who", "app", "client", "is_one_way",
        "route",
    )  # fmt: skip

    def __init__(
        self,
        client: str,
        version: str,
        codec: Codec,
        options: ClientOptions,
        *,
        now: float,
        random: Callable[[], float],
        meters: Meters = _FREE,
        route: Route | None = None,
        is_one_way: bool = False,
    ) -> None:
        self.client = client
        self.app: App = NO_APP
        self.route = route
        self.is_one_way = is_one_way
        self._version = version
        self._codec = codec
        self._options = options
        self._random = random
        self._phase = _Phase.NEW
        self._who: Credentials | None = None
        self._channels: set[str] = set()
        # Of these the ones that the server chose; None while they are still to be joined.
        self._server_side: dict[str, Subscribed | Listening | None] = {}
        # What the connection's token says of those.
        self._grants: Mapping[str, Grant] = {}
        # When those end that live by a token of their own; made when needed.
        self._subs_end: dict[str, float] | None = None
        self._meters = meters
        self._meter = meters.connection()
        self._user_meter: Meter | None = None
        self._asked: _Asking | None = None
        self._flying = 0
        self._publishing = ""  # the channel into which all that are flying publish
        # With the size of its frame at the last command of each; made when needed: most connections are mostly idle.
        self._waiting: deque[tuple[_Waiting, int]] | None = None
        self._waiting_bytes = 0
        self._stale_at = now + options.stale_close_delay
        self._expires_at = math.inf
        self._next_ping = math.inf
        self._pong_by = math.inf
        self._pongs_owed = 0

    @property
    def user(self) -> str | None:
        """None before the client has said who it is."""
        return None if self._who is None else self._who.user

    @property
    def form(self) -> str:
        """Of the protocol: json or protobuf."""
        return self._codec.form

    @property
    def channels(self) -> frozenset[str]:
        """Subscribed, or being subscribed."""
        return frozenset(self._channels)

    @property
    def is_behind(self) -> bool:
        """More commands wait than one frame holds: best read nothing more from the client for now."""
        return self._waiting_bytes > self._options.message_size_limit

    @property
    def due(self) -> float:
        """When `tick` has something to do next; infinite when nothing is."""
        match self._phase:
            case _Phase.NEW | _Phase.FAILED:
                return self._stale_at
            case _Phase.CONNECTED:
                ends = min((self._expires_at, *(self._subs_end or {}).values()))
                return min(self._next_ping, self._pong_by, ends + self._options.expired_close_delay)
            case _Phase.CONNECTING | _Phase.CLOSED:
                return math.inf

    # What comes in.

    def receive(self, frame: bytes, now: float) -> list[Effect]:
        """A frame from the client."""
        if self._phase is _Phase.CLOSED:
            return []
        try:
            commands = self._codec.decode(frame)
        except ProtocolError:
            return self.close(Disconnect.BAD_REQUEST)
        for command in commands:
            if isinstance(command, Pong):
                if not self._pongs_owed:
                    return self.close(Disconnect.BAD_REQUEST)
                self._pongs_owed -= 1
                self._pong_by = math.inf
        counted = [self._counted(command, now) for command in commands if not isinstance(command, Pong)]
        if None in counted:
            return self.close(Disconnect.TOO_MANY_REQUESTS)
        self._enqueue([command for command in counted if command is not None], len(frame))
        effects = self._advance()
        if self._waiting_bytes > _WAITING_FRAMES * self._options.message_size_limit:
            effects += self.close(Disconnect.TOO_MANY_REQUESTS)
        return effects

    def answered(self, answer: Answer, now: float) -> list[Effect]:
        """The answer to the question that is open."""
        asked, self._asked = self._asked, None
        effects: list[Effect]
        match asked, answer:
            case None, _:
                return []
            case _, Refused(Disconnect() as why):
                effects = self.close(why)
            case Connect(), Identified():
                effects = self._identified(asked, answer, now)
            case Connect(), Subscribed() | Listening():
                effects = self._joined(asked, answer, now)
            case Connect(), Rejected.INVALID:
                effects = self.close(Disconnect.INVALID_TOKEN)
            case Connect(), Rejected.EXPIRED:
                effects = self._turn_away(asked, Error.TOKEN_EXPIRED)
            case Connect(), Refused(Error() as error):
                effects = self._turn_away(asked, error)
            case Refresh(), Identified():
                effects = self._refreshed(asked, answer, now)
            case Refresh(), Rejected():
                expired = answer is Rejected.EXPIRED
                effects = self.close(Disconnect.EXPIRED if expired else Disconnect.INVALID_TOKEN)
            case Refresh(id), Refused(Error() as error):
                effects = [Say(Reply(id, error))]
            case Subscribe(), Subscribed() | Listening():
                effects = self._subscribed(asked, answer, now)
            case _Enroll(), Subscribed() | Listening():
                self._server_side[asked.channel] = None
                if answer.ttl:
                    self._live_until(asked.channel, now + answer.ttl)
                effects = [Say(Begun(asked.channel, answer))]
            case _Enroll(), Refused():
                # Nobody asked for it on this connection: there is nobody to tell.
                self._channels.discard(asked.channel)
                effects = []
            case Subscribe(), Refused(Error() as error):
                self._channels.discard(asked.channel)
                effects = [Say(Reply(asked.id, error))]
            case SubRefresh(id, channel), Grant() if channel not in self._channels:
                effects = [Say(Reply(id, Error.PERMISSION_DENIED))]  # it ended while its token was looked at
            case SubRefresh(id, channel), Grant():
                self._live_until(channel, now + answer.lifetime)
                effects = [Say(Reply(id, SubRefreshed(answer.ttl)))]
            case SubRefresh(id), Refused(Error() as error):
                effects = [Say(Reply(id, error))]
            case _:
                effects = self.close(Disconnect.SERVER_ERROR)
        return effects + self._advance()

    def finished(self, number: int, outcome: Outcome) -> list[Effect]:
        """What came of the command of this number that was to be performed or called."""
        if self._flying == 0:
            return []
        self._flying -= 1
        match outcome:
            case Refused(Disconnect() as why):
                return self.close(why)
            case Refused(Error() | Refusal() as error):
                return [Say(Reply(number, error)), *self._advance()]
            case Refused():
                return self.close(Disconnect.SERVER_ERROR)
            case result:
                return [Say(Reply(number, result)), *self._advance()]

    def tick(self, now: float) -> list[Effect]:
        """Time has passed."""
        if now < self.due:
            return []
        if self._phase is not _Phase.CONNECTED:
            return self.close(Disconnect.STALE)
        if now >= self._expires_at + self._options.expired_close_delay:
            return self.close(Disconnect.EXPIRED)
        if now >= self._pong_by:
            if not self.is_behind:
                return self.close(Disconnect.NO_PONG)
            self._pong_by = now + self._patience  # it may have come, and stands behind what is not read yet
        if ended := self._ended(now):
            return [effect for channel in ended for effect in self._end(channel, Unsubscribed.EXPIRED)]
        if now < self._next_ping:
            return []
        # Also on a busy connection: the SDKs (all but one) count pings only as a sign of life.
        self._next_ping = now + self._options.ping_interval
        if not self.is_one_way:
            self._pongs_owed += 1
            self._pong_by = now + self._patience
        return [Say(Ping())]

    @property
    def _patience(self) -> float:
        """For a pong, seconds."""
        return min(self._options.pong_timeout, self._options.ping_interval)

    def dropped(self, channel: str) -> list[Effect]:
        """The server can no longer serve this subscription without a gap."""
        if self._phase is _Phase.CLOSED or channel not in self._channels:
            return []
        if channel in self._server_side:
            return self.close(Disconnect.INSUFFICIENT_STATE)
        self._forget(channel)
        return [Say(Ended(channel, Unsubscribed.INSUFFICIENT_STATE))]

    def enroll(self, channel: str, grant: Grant, since: Position | None) -> list[Effect]:
        """The server subscribes the client, and tells it; nothing happens if it hears the channel already."""
        return self._order(_Enroll(channel, grant, since))

    def expel(self, channel: str, why: Unsubscribed) -> list[Effect]:
        """The server ends a subscription, if there is one."""
        return self._order(_Expel(channel, why))

    def renew(self, lifetime: float, now: float) -> list[Effect]:
        """The server lets the connection live for so many seconds from now, or for ever with infinity."""
        if not self._takes_orders:
            return []
        self._expires_at = now + lifetime
        # Who is still to be welcomed is told so by that.
        return [Say(Renewed(self._ttl(now)))] if self._phase is _Phase.CONNECTED else []

    @property
    def _takes_orders(self) -> bool:
        """Also while its first channels are joined: whoever orders knows the user, and not how far the client is."""
        return self._who is not None and self._phase in {_Phase.CONNECTING, _Phase.CONNECTED}

    def _order(self, order: _Order) -> list[Effect]:
        if not self._takes_orders:
            return []
        self._enqueue([order], 0)
        return self._advance()

    def close(self, why: Disconnect | Closing) -> list[Effect]:
        """End the session, for a reason of its own or of whoever drives it."""
        if self._phase is _Phase.CLOSED:
            return []
        self._phase = _Phase.CLOSED
        self._asked = None
        self._flying = 0
        self._forget_waiting()
        return [Close(why)]

    # Commands.

    def _counted(self, command: Command, now: float) -> _Waiting | None:
        """The command, or what stands for one too many; None when the client does not stop sending them."""
        name = COMMAND_NAMES[type(command)]
        verdicts = [meter.take(name, now) for meter in (self._meter, self._user_meter) if meter is not None]
        if Verdict.EXCESSIVE in verdicts:
            return None
        return _TooMany(command) if Verdict.REFUSED in verdicts else command

    def _enqueue(self, commands: Sequence[_Waiting], size: int) -> None:
        if commands:
            self._waiting = self._waiting or deque()
            self._waiting.extend((command, 0) for command in commands[:-1])
            self._waiting.append((commands[-1], size))
            self._waiting_bytes += size

    def _advance(self) -> list[Effect]:
        effects: list[Effect] = []
        while self._waiting and self._may_begin(self._waiting[0][0]):
            command, size = self._waiting.popleft()
            self._waiting_bytes -= size
            effects += self._handle(command)
        if not self._waiting:
            self._waiting = None
        return effects

    def _may_begin(self, command: _Waiting) -> bool:
        if self._asked is not None:
            return False
        if self._options.concurrency > 1:
            return not isinstance(command, _Independent) or self._flying < self._options.concurrency
        if self._flying and isinstance(command, Publish) and command.channel == self._publishing:
            return self._flying < _PUBLISHING
        return self._flying == 0

    def _forget_waiting(self) -> None:
        self._waiting = None
        self._waiting_bytes = 0

    def _handle(self, command: _Waiting) -> list[Effect]:
        if isinstance(command, _TooMany):
            return self._refuse(command.command)
        if isinstance(command, Connect):
            return self._connect(command)
        if self._phase is not _Phase.CONNECTED:
            return self.close(Disconnect.BAD_REQUEST)
        match command:
            case Subscribe():
                return self._subscribe(command)
            case _Enroll():
                return self._take_in(command)
            case _Expel(channel, why):
                return self._end(channel, why) if channel in self._channels else []
            case Unsubscribe():
                return self._unsubscribe(command)
            case Publish():
                return self._publish(command)
            case History():
                return self._history(command)
            case Presence() | PresenceStats():
                return self._presence(command)
            case Rpc(_, method, data):
                actor = None if self._who is None else self._who.actor
                return self._begin(Call(command.id, actor, method, data))
            case Refresh(id, token):
                return self._ask(command, Authenticate(token)) if token else [Say(Reply(id, Error.BAD_REQUEST))]
            case SubRefresh():
                return self._sub_refresh(command)
            case Unspoken(id):
                return [Say(Reply(id, Error.NOT_AVAILABLE))]
            case Garbled(id):
                return [Say(Reply(id, Error.BAD_REQUEST))]
            case _:
                return self.close(Disconnect.NOT_AVAILABLE)

    def _ask(self, command: _Asking, question: Authenticate | Authorize | Join) -> list[Effect]:
        self._asked = command
        return [question]

    def _begin(self, work: Perform | Call) -> list[Effect]:
        match work:
            case Perform(_, Publish(_, channel)):
                self._publishing = channel
            case _:
                self._publishing = ""
        self._flying += 1
        return [work]

    def _refuse(self, command: Command) -> list[Effect]:
        match command:
            case Connect():
                return self._connect(command)  # the second one
            case Send() | Pong():
                return []
            case Unsubscribe():
                return self._unsubscribe(command)  # who is refused that comes again, with all of its channels
            case _:
                return [Say(Reply(command.id, Error.TOO_MANY_REQUESTS))]

    def _unsubscribe(self, command: Unsubscribe) -> list[Effect]:
        left: list[Effect] = [Leave(command.channel)] if command.channel in self._channels else []
        self._forget(command.channel)
        return [*left, Say(Reply(command.id, Left()))]

    def _connect(self, command: Connect) -> list[Effect]:
        # Where nobody is anonymous, no token is a mistake of the program, not a state that passes.
        is_nobody = not command.token and not self._options.admits_without_token
        if self._phase is not _Phase.NEW or is_nobody:
            return self.close(Disconnect.BAD_REQUEST)
        self._phase = _Phase.CONNECTING
        self.app = App(command.app.name[:_APP_LENGTH], command.app.version[:_APP_LENGTH])
        return self._ask(command, Authenticate(command.token))

    def _identified(self, command: Connect, identity: Identified, now: float) -> list[Effect]:
        if self._who is not None:
            return self.close(Disconnect.SERVER_ERROR)
        self._user_meter = self._meters.user(identity.who.user)
        if self._user_meter is not None and self._user_meter.take("connect", now) is not Verdict.ALLOWED:
            return self._turn_away(command, Error.TOO_MANY_REQUESTS)
        self._who = identity.who
        self._expires_at = now + identity.lifetime
        self._server_side = dict.fromkeys(identity.channels)
        self._grants = identity.channels
        self._channels.update(identity.channels)
        return self._join_or_welcome(command, now)

    def _joined(self, command: Connect, joined: Subscribed | Listening, now: float) -> list[Effect]:
        channel = next((name for name, sub in self._server_side.items() if sub is None), None)
        if channel is None:
            return self.close(Disconnect.SERVER_ERROR)
        self._server_side[channel] = joined
        return self._join_or_welcome(command, now)

    def _join_or_welcome(self, command: Connect, now: float) -> list[Effect]:
        """One channel after the other, and when the client is in all of them the reply."""
        if self._who is None:
            return self.close(Disconnect.SERVER_ERROR)
        joined: dict[str, Subscribed | Listening] = {}
        for channel, sub in self._server_side.items():
            if sub is None:
                grant = self._grants[channel]
                return self._ask(command, Join(self._who, channel, command.since.get(channel), grant=grant))
            joined[channel] = sub
        return self._welcome(command, joined, now)

    def _welcome(self, command: Connect, subs: Mapping[str, Subscribed | Listening], now: float) -> list[Effect]:
        self._phase = _Phase.CONNECTED
        self._server_side = dict.fromkeys(subs)
        interval = self._options.ping_interval
        # The first ping at random: clients that came together shall not all be pinged together for ever.
        self._next_ping = now + interval * (0.5 + self._random() / 2)
        welcome = Connected(
            self.client,
            self._version,
            self._ttl(now),
            max(1, math.ceil(interval)),
            subs,
            owes_pongs=not self.is_one_way,
            route=self.route,
        )
        return [Say(Reply(command.id, welcome))]

    def _turn_away(self, command: Connect, error: Failure) -> list[Effect]:
        """The client is expected to close; if it does not, it is stale."""
        if self.is_one_way:
            return self.close(closing_for(error.code))
        self._phase = _Phase.FAILED
        left: list[Effect] = [Leave(channel) for channel, sub in self._server_side.items() if sub is not None]
        self._server_side.clear()
        self._channels.clear()
        self._forget_waiting()
        return [*left, Say(Reply(command.id, error))]

    def _refreshed(self, command: Refresh, identity: Identified, now: float) -> list[Effect]:
        if self._who is None or identity.who.user != self._who.user:
            return self.close(Disconnect.INVALID_TOKEN)
        if identity.who != self._who or identity.channels != self._grants:
            # Another role, or other channels: what it may hear is judged anew by joining anew.
            return self.close(Disconnect.FORCE_RECONNECT)
        self._expires_at = now + identity.lifetime
        return [Say(Reply(command.id, Refreshed(self.client, self._version, self._ttl(now))))]

    def _subscribe(self, command: Subscribe) -> list[Effect]:
        error = self._why_not(command)
        if error is not None or self._who is None:
            return [Say(Reply(command.id, error or Error.INTERNAL))]
        self._channels.add(command.channel)
        return self._ask(command, Join(self._who, command.channel, command.since, command))

    def _take_in(self, order: _Enroll) -> list[Effect]:
        if self._who is None or order.channel in self._channels:
            return []
        self._channels.add(order.channel)
        return self._ask(order, Join(self._who, order.channel, order.since, grant=order.grant))

    def _why_not(self, command: Subscribe) -> Error | None:
        channel = command.channel
        if not is_channel_name(channel) or command.is_filter_bad:
            return Error.BAD_REQUEST
        if not command.is_plain:
            return Error.NOT_AVAILABLE
        if channel in self._channels:
            return Error.ALREADY_SUBSCRIBED
        own = self._channels - self._server_side.keys()
        return Error.LIMIT_EXCEEDED if len(own) >= self._options.channel_limit else None

    def _publish(self, command: Publish) -> list[Effect]:
        if self._who is None or not command.data or not is_channel_name(command.channel):
            return [Say(Reply(command.id, Error.BAD_REQUEST))]
        if not command.is_plain:
            return [Say(Reply(command.id, Error.NOT_AVAILABLE))]
        return self._begin(Perform(self._who, command, command.channel in self._channels))

    def _history(self, command: History) -> list[Effect]:
        span, channel = command.span, command.channel
        is_before_all = span.is_reverse and span.since is not None and span.since.offset == 0
        if self._who is None or is_before_all or not is_channel_name(channel):
            return [Say(Reply(command.id, Error.BAD_REQUEST))]
        most = self._options.history_max_publication_limit
        span = replace(span, limit=most if span.limit < 0 else min(span.limit, most))
        question = replace(command, span=span)
        return self._begin(Perform(self._who, question, channel in self._channels))

    def _presence(self, command: Presence | PresenceStats) -> list[Effect]:
        if self._who is None or not is_channel_name(command.channel):
            return [Say(Reply(command.id, Error.BAD_REQUEST))]
        return self._begin(Perform(self._who, command, command.channel in self._channels))

    def _sub_refresh(self, command: SubRefresh) -> list[Effect]:
        if self._who is None or command.channel not in self._channels:
            return [Say(Reply(command.id, Error.PERMISSION_DENIED))]
        if not command.token:
            return [Say(Reply(command.id, Error.BAD_REQUEST))]
        return self._ask(command, Authorize(self._who, command.channel, command.token))

    def _subscribed(self, command: Subscribe, joined: Subscribed | Listening, now: float) -> list[Effect]:
        # Where nobody can resume, who is refused would load the state again and again.
        has_missed = (
            isinstance(joined, Subscribed) and joined.was_recovering and not (joined.recovered or joined.is_latest)
        )
        if command.reject_unrecovered and has_missed:
            self._channels.discard(command.channel)
            return [Leave(command.channel), Say(Reply(command.id, Error.UNRECOVERABLE_POSITION))]
        if joined.ttl:
            self._live_until(command.channel, now + joined.ttl)
        return [Say(Reply(command.id, joined))]

    # Subscriptions that live by a token.

    def _live_until(self, channel: str, moment: float) -> None:
        self._subs_end = self._subs_end or {}
        self._subs_end[channel] = moment

    def _ended(self, now: float) -> list[str]:
        grace = self._options.expired_close_delay
        return [channel for channel, moment in (self._subs_end or {}).items() if now >= moment + grace]

    def _end(self, channel: str, why: Unsubscribed) -> list[Effect]:
        self._forget(channel)
        return [Leave(channel), Say(Ended(channel, why))]

    def _forget(self, channel: str) -> None:
        self._channels.discard(channel)
        self._server_side.pop(channel, None)
        if self._subs_end is not None:
            self._subs_end.pop(channel, None)

    def _ttl(self, now: float) -> int:
        return whole_seconds(self._expires_at - now)
