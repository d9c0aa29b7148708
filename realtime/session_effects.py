"""What a session wants done and what it is told: the values between `realtime.session` and whoever drives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from handlers.actor import Actor
from handlers.ports.domain import Position
from realtime.client_tokens import NOTHING, Grant
from realtime.credentials import Credentials
from realtime.protocol.codes import Closing, Disconnect
from realtime.protocol.messages import (
    Accepted,
    Failure,
    History,
    HistoryPage,
    Listening,
    MemberCount,
    Members,
    Message,
    Presence,
    PresenceStats,
    Publish,
    Returned,
    Subscribe,
    Subscribed,
)


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Section [client] of the settings. Seconds, bytes, counts."""

    insecure: bool
    allow_anonymous_connect_without_token: bool
    allowed_origins: tuple[str, ...]
    ping_interval: float
    pong_timeout: float
    stale_close_delay: float
    expired_close_delay: float
    channel_limit: int
    concurrency: int
    queue_max_size: int
    message_size_limit: int
    connection_limit: int
    history_max_publication_limit: int

    @property
    def admits_without_token(self) -> bool:
        return self.insecure or self.allow_anonymous_connect_without_token


# Effects.


@dataclass(frozen=True, slots=True)
class Say:
    """Send this message to the client, after everything that was said before."""

    message: Message


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Answer with Identified or Rejected. The token is empty where none is needed and none was shown."""

    token: str


@dataclass(frozen=True, slots=True)
class Authorize:
    """What does `token` give the client in a channel that it hears? Answer with a Grant or Refused."""

    who: Credentials
    channel: str
    token: str


@dataclass(frozen=True, slots=True)
class Join:
    """Subscribe the client to `channel`; answer with Subscribed or Listening at the moment it is, or with Refused.

    Without a `request` it is the server that subscribes the client, which needs no admission; `grant` is then what the
    connection's token says of the channel.
    """

    who: Credentials
    channel: str
    since: Position | None
    request: Subscribe | None = None
    grant: Grant = NOTHING


@dataclass(frozen=True, slots=True)
class Perform:
    """Carry out `command`; `finished` wants its result or Refused. `is_subscriber`: the client hears the channel.

    The limit of a history's span is not below 0.
    """

    who: Credentials
    command: Publish | History | Presence | PresenceStats
    is_subscriber: bool


@dataclass(frozen=True, slots=True)
class Call:
    """Call `method` for the actor, None where the client has no account; `finished` wants Returned or Refused."""

    id: int
    actor: Actor | None
    method: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Leave:
    """The client no longer hears `channel`. No answer."""

    channel: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection; always the last effect of a session."""

    why: Disconnect | Closing


Effect = Say | Authenticate | Authorize | Join | Perform | Call | Leave | Close


# Answers.


@dataclass(frozen=True, slots=True)
class Identified:
    """`lifetime`: seconds until the token expires, infinite if it never does. `channels` are those that the server
    subscribes the client to."""

    who: Credentials
    lifetime: float
    channels: Mapping[str, Grant] = field(default_factory=dict)


class Rejected(Enum):
    INVALID = "invalid"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Refused:
    """`error` answers the command; a Disconnect ends the connection."""

    error: Failure | Disconnect


Carried = Accepted | HistoryPage | Members | MemberCount
Answer = Identified | Rejected | Grant | Subscribed | Listening | Refused
Outcome = Carried | Returned | Refused
