"""Orders to all nodes about somebody's connections, wherever they are: by the bus, so at most once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Protocol

import orjson
import structlog

from handlers.ports.domain import Position
from realtime.bus import Bus, BusAway, Order
from realtime.client_tokens import Grant
from realtime.protocol.codes import Closing, Unsubscribed

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Whose:
    """Connections of a user; with `client` or `session` that one alone. `spared` are clients that are left alone."""

    user: str
    client: str = ""
    session: str = ""
    spared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kick:
    whose: Whose
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Enroll:
    """Subscribe them to a channel. `info` and `data` are one JSON value or empty. `expire_at` is when it ends, Unix
    time in seconds; 0: it does not. Without an `offset` it begins at the head."""

    whose: Whose
    channel: str
    info: str = ""
    overrides: Mapping[str, bool] = field(default_factory=dict)
    offset: int | None = None
    epoch: str = ""
    data: str = ""
    expire_at: int = 0


@dataclass(frozen=True, slots=True)
class Expel:
    """End their subscription to a channel."""

    whose: Whose
    channel: str


@dataclass(frozen=True, slots=True)
class Renew:
    """They live until this moment, Unix time in seconds; 0: for ever."""

    whose: Whose
    expire_at: int


Command = Kick | Enroll | Expel | Renew

KIND: Final = "control"
_KINDS: Final[Mapping[str, type[Command]]] = {"kick": Kick, "enroll": Enroll, "expel": Expel, "renew": Renew}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


class Subject(Protocol):
    """A connection as an order sees it."""

    @property
    def user(self) -> str | None:
        """None while it has not said who it is."""
        ...

    @property
    def client(self) -> str: ...

    @property
    def session(self) -> str:
        """Empty where commands travel on the connection itself."""
        ...

    def close(self, why: Closing) -> None: ...

    def enroll(self, channel: str, grant: Grant, since: Position | None, expire_at: int) -> None: ...

    def expel(self, channel: str, why: Unsubscribed) -> None: ...

    def renew(self, expire_at: int) -> None: ...


class Control:
    """`connections` gives those of this node."""

    def __init__(self, bus: Bus, connections: Callable[[], Iterable[Subject]]) -> None:
        self._bus = bus
        self._connections = connections

    async def tell(self, command: Command) -> None:
        """Every node, this one too. Raises BusAway."""
        body = orjson.dumps({"kind": _NAMES[type(command)], **asdict(command)})
        if not await self._bus.publish([Order(KIND, body)]):
            raise BusAway

    def obey(self, body: bytes) -> None:
        command = _read(body)
        if command is None:
            return
        for subject in [each for each in self._connections() if _is_meant(command.whose, each)]:
            _carry_out(command, subject)


def _read(body: bytes) -> Command | None:
    """None for an order that a newer version gave; what it says beside what is known here is passed over."""
    said = orjson.loads(body)
    kind = _KINDS.get(said["kind"])
    if kind is None:
        log.warning("order_unknown", kind=said["kind"])
        return None
    whose = said.pop("whose")
    return kind(Whose(**_known(Whose, whose) | {"spared": tuple(whose["spared"])}), **_known(kind, said))


def _known(kind: type[Command | Whose], said: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: said[each.name] for each in fields(kind) if each.name in said}


def _is_meant(whose: Whose, subject: Subject) -> bool:
    if subject.user != whose.user or subject.client in whose.spared:
        return False
    return whose.client in {"", subject.client} and whose.session in {"", subject.session}


def _carry_out(command: Command, subject: Subject) -> None:
    match command:
        case Kick(_, code, reason):
            subject.close(Closing(code, reason))
        case Enroll():
            since = None if command.offset is None else Position(command.offset, command.epoch)
            grant = Grant(command.info.encode(), overrides=command.overrides, data=command.data.encode())
            subject.enroll(command.channel, grant, since, command.expire_at)
        case Expel():
            subject.expel(command.channel, Unsubscribed.BY_SERVER)
        case Renew():
            subject.renew(command.expire_at)
