"""What clients and server say to each other, as values. Payloads are bytes that nobody here looks into.

Names and meanings are those of the Centrifuge bidirectional protocol, version 2; docs/protocol.md is our text of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from handlers.ports.domain import Position
from handlers.ports.streams import Publication
from realtime.protocol.codes import Closing, Disconnect, Error, Unsubscribed
from realtime.protocol.filters import Filter

DELTA: Final = "fossil"
"""The one kind of difference that is spoken."""

REJECT_UNRECOVERED: Final = 2
"""A bit of a subscribe command's `flag`. Bit 1 offers channel compaction, which is not spoken."""


class ProtocolError(ValueError):
    """A frame that no client of this protocol sends."""


@dataclass(frozen=True, slots=True)
class App:
    """The program that the client is. Whatever it said, so for people to read, not to decide by."""

    name: str = ""
    version: str = ""


NO_APP: Final = App()


@dataclass(frozen=True, slots=True)
class Connect:
    """`since`: where the client is in the channels that the server subscribed it to before."""

    id: int
    token: str
    since: Mapping[str, Position] = field(default_factory=dict)
    app: App = NO_APP


@dataclass(frozen=True, slots=True)
class Refresh:
    id: int
    token: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """`since` is None when no recovery is asked for; `reject_unrecovered` wants error 112 rather than a fresh start.

    `is_plain` is false for kinds of subscription that are not spoken (map, shared poll) and `is_filter_bad` true
    with a filter that is none. `wants_position`, `wants_recovery` and `wants_join_leave` ask for what the
    channel's options do not force, `wants_delta` for publications as differences.
    """

    id: int
    channel: str
    since: Position | None = None
    token: str = ""
    wants_position: bool = False
    wants_recovery: bool = False
    wants_join_leave: bool = False
    reject_unrecovered: bool = False
    is_plain: bool = True
    wants_delta: bool = False
    filter: Filter | None = None
    is_filter_bad: bool = False


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    id: int
    channel: str


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of a stream: at most `limit` publications (0: only the position; below 0: as many as are given at
    once), after `since`, oldest first; `is_reverse`: before it, newest first. Without `since` from the end that it
    begins with."""

    limit: int = 0
    since: Position | None = None
    is_reverse: bool = False


@dataclass(frozen=True, slots=True)
class History:
    id: int
    channel: str
    span: Span


@dataclass(frozen=True, slots=True)
class Publish:
    """`data` is one JSON value on one line, or empty if the client sent none. `is_plain` is false for one into a
    map."""

    id: int
    channel: str
    data: bytes
    is_plain: bool = True


@dataclass(frozen=True, slots=True)
class Presence:
    """Who is in the channel?"""

    id: int
    channel: str


@dataclass(frozen=True, slots=True)
class PresenceStats:
    """How many are in the channel?"""

    id: int
    channel: str


@dataclass(frozen=True, slots=True)
class Rpc:
    """Call a method of the application. `data` is what the client sent for it; empty if it sent nothing."""

    id: int
    method: str
    data: bytes


@dataclass(frozen=True, slots=True)
class SubRefresh:
    id: int
    channel: str
    token: str


@dataclass(frozen=True, slots=True)
class Unspoken:
    """A command of the protocol that is always answered with error 108."""

    id: int


@dataclass(frozen=True, slots=True)
class Garbled:
    """A command with half a character in its text, which no JSON in UTF-8 can say; always answered with error 107."""

    id: int


@dataclass(frozen=True, slots=True)
class Send:
    """A message without a reply; nothing here takes one."""


@dataclass(frozen=True, slots=True)
class Pong:
    pass


Command = (
    Connect
    | Refresh
    | Subscribe
    | Unsubscribe
    | Publish
    | History
    | Presence
    | PresenceStats
    | Rpc
    | SubRefresh
    | Unspoken
    | Garbled
    | Send
    | Pong
)


COMMAND_NAMES: Final[Mapping[type[Command], str]] = {
    Connect: "connect",
    Refresh: "refresh",
    Subscribe: "subscribe",
    Unsubscribe: "unsubscribe",
    Publish: "publish",
    History: "history",
    Presence: "presence",
    PresenceStats: "presence_stats",
    Rpc: "rpc",
    SubRefresh: "sub_refresh",
    Unspoken: "ping",
    Garbled: "publish",  # most likely
    Send: "send",
}
"""Of those that are counted: a pong answers to something."""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """`position` is the channel's; with `recovered` the one asked for: `publications` lead on from there. A
    channel that `is_latest` has nothing before its latest publication that could be missed.

    `is_delta`: publications come as differences, these ones as whole documents to begin with. `ttl`: whole seconds
    until the subscription needs another token, 0 if it does not. `data` is what the backend says with it, or empty.
    """

    position: Position
    was_recovering: bool = False
    recovered: bool = False
    publications: Sequence[Publication] = ()
    is_recoverable: bool = True
    is_latest: bool = False
    is_delta: bool = False
    ttl: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Listening:
    """Subscribed without a position: the client hears what comes, and cannot resume."""

    ttl: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Route:
    """Where commands can be sent that do not travel on the connection itself. `session` is the client's secret."""

    session: str
    node: str


@dataclass(frozen=True, slots=True)
class Connected:
    """`ttl` is in whole seconds until the token must have been refreshed, 0 if it need not be; `ping` the seconds
    between pings, which the client answers if it `owes_pongs`."""

    client: str
    version: str
    ttl: int
    ping: int
    subs: Mapping[str, Subscribed | Listening]
    owes_pongs: bool = True
    route: Route | None = None


@dataclass(frozen=True, slots=True)
class Refreshed:
    client: str
    version: str
    ttl: int


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """`position` is the stream's head at the moment of reading."""

    position: Position
    publications: Sequence[Publication] = ()


@dataclass(frozen=True, slots=True)
class SubRefreshed:
    ttl: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """Published."""


@dataclass(frozen=True, slots=True)
class Members:
    """Who is in a channel: by client, a JSON object about it."""

    infos: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class MemberCount:
    clients: int
    users: int


@dataclass(frozen=True, slots=True)
class Returned:
    """What a method returned: one JSON value on one line."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Left:
    """Not subscribed, or no longer."""


Result = (
    Connected
    | Subscribed
    | Listening
    | Left
    | Refreshed
    | SubRefreshed
    | Accepted
    | HistoryPage
    | Members
    | MemberCount
    | Returned
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error of the application's own, beside the protocol's in `Error`; clients retry when it is temporary."""

    code: int
    message: str
    temporary: bool = False


Failure = Error | Refusal


@dataclass(frozen=True, slots=True)
class Reply:
    id: int
    result: Result | Failure


@dataclass(frozen=True, slots=True)
class Ended:
    """A push: the server ended this subscription."""

    channel: str
    why: Unsubscribed


@dataclass(frozen=True, slots=True)
class Begun:
    """A push: the server subscribed the client."""

    channel: str
    joined: Subscribed | Listening


@dataclass(frozen=True, slots=True)
class Renewed:
    """A push: the connection lives for another `ttl` whole seconds, for ever with 0."""

    ttl: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """A push, and the last: the connection ends. Where the transport has a close of its own, that says it."""

    why: Disconnect | Closing


@dataclass(frozen=True, slots=True)
class Ping:
    pass


Message = Reply | Begun | Ended | Renewed | Goodbye | Ping


class Codec(Protocol):
    """How messages become bytes and frames become commands. Stateless; one instance serves every connection."""

    @property
    def form(self) -> str:
        """json or protobuf."""
        ...

    def decode(self, frame: bytes) -> Sequence[Command]:
        """The commands of one frame, in order, at least one. Raises ProtocolError, and nothing else."""
        ...

    def encode(self, message: Message) -> bytes: ...

    def publication(self, channel: str, publication: Publication) -> bytes:
        """The push of a publication. Its `data` is copied, never parsed."""
        ...

    def compressed(self, channel: str, publication: Publication, base: bytes | None) -> bytes:
        """The push of a publication to a subscriber that takes differences, and has `base`, if it has anything."""
        ...

    def membership(self, channel: str, info: bytes, *, is_join: bool) -> bytes:
        """The push that tells that somebody joined or left; `info` is a JSON object about them."""
        ...
