"""Every number that the client protocol knows, as tables. docs/protocol.md shows the same; a test compares the two."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Error(Enum):
    """What a command can be answered with. Clients retry when it is temporary, and after 109 with a new token."""

    INTERNAL = 100, "internal server error", True
    UNKNOWN_CHANNEL = 102, "unknown channel"
    PERMISSION_DENIED = 103, "permission denied"
    METHOD_NOT_FOUND = 104, "method not found"
    ALREADY_SUBSCRIBED = 105, "already subscribed"
    LIMIT_EXCEEDED = 106, "limit exceeded"
    BAD_REQUEST = 107, "bad request"
    NOT_AVAILABLE = 108, "not available"
    TOKEN_EXPIRED = 109, "token expired"
    EXPIRED = 110, "expired"
    TOO_MANY_REQUESTS = 111, "too many requests", True
    UNRECOVERABLE_POSITION = 112, "unrecoverable position"

    def __init__(self, code: int, message: str, temporary: bool = False) -> None:
        self.code = code
        self.message = message
        self.temporary = temporary


@dataclass(frozen=True, slots=True)
class Closing:
    """A close for somebody else's reason: a code from 3000 to 4999, and words."""

    code: int
    reason: str


class Disconnect(Enum):
    """Why the server closes a connection. Clients come back after 3000-3499 and stay away after 3500-3999.

    A reason is words, never empty: an SDK reconnects for ever on an empty one, and reads one that parses as JSON.
    """

    SHUTDOWN = 3001, "shutdown"
    SERVER_ERROR = 3004, "internal server error"
    EXPIRED = 3005, "connection expired"
    SLOW = 3008, "slow"
    INSUFFICIENT_STATE = 3010, "insufficient state"
    FORCE_RECONNECT = 3011, "force reconnect"
    NO_PONG = 3012, "no pong"
    TOO_MANY_REQUESTS = 3013, "too many requests"
    INVALID_TOKEN = 3500, "invalid token"
    BAD_REQUEST = 3501, "bad request"
    STALE = 3502, "stale"
    FORCE_NO_RECONNECT = 3503, "force disconnect"
    PERMISSION_DENIED = 3507, "permission denied"
    NOT_AVAILABLE = 3508, "not available"

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason


def closing_for(code: int) -> Disconnect:
    """How a connection that cannot be answered is told of this error."""
    return _CLOSINGS.get(code, Disconnect.SERVER_ERROR)


_CLOSINGS = {
    Error.TOKEN_EXPIRED.code: Disconnect.EXPIRED,
    Error.EXPIRED.code: Disconnect.EXPIRED,
    Error.TOO_MANY_REQUESTS.code: Disconnect.TOO_MANY_REQUESTS,
    Error.PERMISSION_DENIED.code: Disconnect.PERMISSION_DENIED,
}


class Unsubscribed(Enum):
    """Why the server ends one subscription. From 2500 on clients subscribe again at once, without waiting."""

    BY_SERVER = 2000, "server unsubscribe"
    INSUFFICIENT_STATE = 2500, "insufficient state"
    EXPIRED = 2501, "subscription expired"

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
