"""One client: its session, and the hands that carry the session's effects out. Knows no transport."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import wraps
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

import structlog

from handlers.commands import CommandRefused, UnknownCommand
from handlers.events import LifeCycleType
from handlers.ports.domain import Position
from realtime.channel import Encoding
from realtime.client_tokens import Grant
from realtime.commands import Commands
from realtime.flusher import Flusher
from realtime.identities import Identities
from realtime.key_set import KeysAway
from realtime.life_cycle import LifeCycle
from realtime.metrics import RealtimeMetrics
from realtime.operations import Operations
from realtime.protocol.codes import Closing, Disconnect, Error, Unsubscribed
from realtime.protocol.messages import (
    App,
    Begun,
    Connected,
    Failure,
    Listening,
    Message,
    Refusal,
    Reply,
    Returned,
    Subscribed,
)
from realtime.session import Session
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
    Perform,
    Refused,
    Rejected,
    Say,
)
from realtime.wire import Wire

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Bytes that the socket has not taken yet. Beyond asyncio's mark, so that waiting for it to drain waits.
_BEHIND: Final = 64 * 1024
# A client that is catching up and takes nothing for this long is slow.
_CATCH_UP_PATIENCE: Final = 10.0


def _guarded(
    work: Callable[Concatenate[Connection, P], Awaitable[None]],
) -> Callable[Concatenate[Connection, P], Coroutine[None, None, None]]:
    """A connection's task that fails is one client's misfortune, not everybody's."""

    @wraps(work)
    async def guarded(connection: Connection, /, *arguments: P.args, **named: P.kwargs) -> None:
        try:
            await work(connection, *arguments, **named)
        except Exception:
            log.exception("connection_failed", client=connection.client)
            connection.close(Disconnect.SERVER_ERROR)

    return guarded


class ClientEncoding(Encoding, Protocol):
    def message(self, message: Message) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every connection of a node shares. `clock` is monotonic seconds; `spawn` owns the task it starts."""

    flusher: Flusher
    operations: Operations
    commands: Commands | None
    identities: Identities
    metrics: RealtimeMetrics
    life_cycle: LifeCycle | None
    options: ClientOptions
    clock: Callable[[], float]
    utc_now: Callable[[], datetime]
    spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None] | None]
    rescheduled: Callable[[Connection], None]


class Connection:
    """A `Subscriber`. `bucket` is where the timer wheel has it; `transport` is the name of its way in."""

    __slots__ = (
        "_caught_up",
        "_held",
        "_is_welcomed",
        "_session",
        "_shared",
        "_tasks",
        "_welcoming",
        "bucket",
        "encoding",
        "pending",
        "transport",
        "wire",
    )

    def __init__(
        self, session: Session, wire: Wire, encoding: ClientEncoding, shared: Surroundings, transport: str
    ) -> None:
        self._session = session
        self.wire = wire
        self._shared = shared
        self._tasks: set[asyncio.Task[None]] | None = None
        # By channel, while the client is behind.
        self._held: dict[str, bytes] | None = None
        # Set while somebody waits for it.
        self._caught_up: asyncio.Future[None] | None = None
        self.encoding = encoding
        self.transport = transport
        self.pending: list[bytes] = []
        self.bucket: int | None = None
        self._is_welcomed = False
        # While its first channels are joined.
        self._welcoming: asyncio.Future[None] | None = None

    @property
    def due(self) -> float:
        return self._session.due

    def receive(self, frame: bytes) -> None:
        self._perform(self._session.receive(frame, self._shared.clock()))

    async def ready(self) -> None:
        """Return when the client may say more. A transport that waits for this before it reads on makes TCP hold back
        who says too much, and need not close it."""
        if self._session.is_behind:
            self._caught_up = asyncio.get_running_loop().create_future()
            await self._caught_up

    def tick(self) -> None:
        self._perform(self._session.tick(self._shared.clock()))

    @property
    def user(self) -> str | None:
        return self._session.user

    @property
    def client(self) -> str:
        return self._session.client

    @property
    def session(self) -> str:
        return "" if self._session.route is None else self._session.route.session

    @property
    def form(self) -> str:
        return self._session.form

    @property
    def app(self) -> App:
        return self._session.app

    @property
    def channels(self) -> frozenset[str]:
        return self._session.channels

    def enroll(self, channel: str, grant: Grant, since: Position | None, expire_at: int) -> None:
        lifetime = self._until(expire_at)
        if lifetime > 0:
            self._perform(self._session.enroll(channel, replace(grant, lifetime=lifetime), since))

    def expel(self, channel: str, why: Unsubscribed) -> None:
        self._perform(self._session.expel(channel, why))

    def renew(self, expire_at: int) -> None:
        lifetime = self._until(expire_at)
        if lifetime <= 0:
            self.close(Disconnect.EXPIRED)
        else:
            self._perform(self._session.renew(lifetime, self._shared.clock()))

    def _until(self, moment: int) -> float:
        """Seconds from now to this Unix time; 0 is never."""
        return moment - self._shared.utc_now().timestamp() if moment else math.inf

    def close(self, why: Disconnect | Closing) -> None:
        self._perform(self._session.close(why))

    def dropped(self, channel: str) -> None:
        self._leave(channel)
        self._perform(self._session.dropped(channel))

    def overflowed(self) -> None:
        self._shared.metrics.drops.labels("slow_client").inc()
        self.close(Disconnect.SLOW)

    def hold(self, channel: str, frame: bytes) -> bool:
        if self._held is not None:
            self._held[channel] = frame
        elif self.wire.buffered > _BEHIND:
            self._held = {channel: frame}
            self._start(self._release())
        else:
            return False
        return True

    @_guarded
    async def _release(self) -> None:
        """When the client has taken most of what was sent to it, send what was held."""
        try:
            await self.wire.drain()
        except ConnectionError:
            self.detach()
            return
        held, self._held = self._held, None
        for frame in (held or {}).values():
            self._shared.flusher.give(self, frame)

    async def writable(self, *, is_more: bool) -> None:
        if is_more and self._welcoming is not None:
            await asyncio.shield(self._welcoming)
        self._shared.flusher.flush(self)
        while True:
            buffered = self.wire.buffered
            try:
                async with asyncio.timeout(_CATCH_UP_PATIENCE):
                    return await self.wire.drain()
            except TimeoutError:
                if self.wire.buffered >= buffered:
                    return self.close(Disconnect.SLOW)
            except ConnectionError:
                return self.detach()

    def detach(self) -> None:
        """Hear nothing more, ask nothing more. Idempotent."""
        for channel in self._session.channels:
            self._leave(channel)
        for task in self._tasks or ():
            task.cancel()
        self.pending.clear()
        self._held = None

    def _leave(self, channel: str) -> None:
        self._shared.operations.leave(self, channel)
        if self._held is not None:
            self._held.pop(channel, None)

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Say(message):
                    self._say(message)
                case Authenticate(token):
                    if self._shared.identities.wants_key(token):
                        self._start(self._identify_with_key(token))
                    else:
                        self._answer(self._identify(token))
                case Authorize():
                    self._start(self._authorize(effect))
                case Join():
                    if not self._is_welcomed and self._welcoming is None:
                        # What its first channels bring comes after the reply to its connect.
                        self._welcoming = asyncio.get_running_loop().create_future()
                        self.wire.hold()
                    self._start(self._join(effect))
                case Perform():
                    self._start(self._carry_out(effect))
                case Call():
                    self._start(self._call(effect))
                case Leave(channel):
                    self._leave(channel)
                case Close(why):
                    self._close(why)
        self._shared.rescheduled(self)
        if self._caught_up is not None and not self._session.is_behind:
            if not self._caught_up.done():  # whoever waited may have been cancelled
                self._caught_up.set_result(None)
            self._caught_up = None

    def _say(self, message: Message) -> None:
        early = self._released()
        match message:
            case Reply(_, (Error() | Refusal()) as error):
                self._shared.metrics.errors.labels(str(error.code)).inc()
            case Reply(_, Connected()):
                self._is_welcomed = True
                self._tell(LifeCycleType.CLIENT_CONNECTED, {"transport": self.transport, "protocol": self.form})
        self._shared.flusher.answer(self, self.encoding.message(message))
        if early and self._is_welcomed:  # who is turned away has left its channels
            self._shared.flusher.answer(self, early)
        if isinstance(message, Begun) and isinstance(message.joined, Subscribed):
            for publication in message.joined.publications:  # SDKs look for none in that push
                self._shared.flusher.answer(self, self.encoding.publication(message.channel, publication))

    def _released(self) -> bytes:
        """What was written too early; from now on it is on time."""
        welcoming, self._welcoming = self._welcoming, None
        if welcoming is None:
            return b""
        welcoming.set_result(None)
        self._shared.flusher.flush(self)
        return self.wire.release()

    def _close(self, why: Disconnect | Closing) -> None:
        self._shared.metrics.closes.labels(str(why.code)).inc()
        log.info("connection_closed", client=self._session.client, code=why.code)
        if why is not Disconnect.SLOW:
            self._shared.flusher.flush(self)
        self._part(why)
        self.detach()
        self._released()
        self.wire.end(why)

    def gone(self) -> None:
        """Nothing of the connection is left."""
        self.detach()
        self._part(None)

    def _part(self, why: Disconnect | Closing | None) -> None:
        """`why` is None when it was the client that went."""
        if self._is_welcomed:
            self._is_welcomed = False
            code = None if why is None else why.code
            self._tell(LifeCycleType.CLIENT_DISCONNECTED, {"code": code})

    def _tell(self, type_: LifeCycleType, about: Mapping[str, object]) -> None:
        if self._shared.life_cycle is not None:
            app = {"app_name": self.app.name, "app_version": self.app.version}
            who = {"client": self.client, "user": self.user}
            self._shared.life_cycle.tell(type_, self.client, {**who, **app, **about})

    def _identify(self, token: str) -> Identified | Rejected:
        return self._shared.identities.identify(token, self._shared.utc_now())

    @_guarded
    async def _identify_with_key(self, token: str) -> None:
        try:
            await self._shared.identities.fetch_key(token)
        except KeysAway:
            self._answer(Refused(Error.INTERNAL))
        else:
            self._answer(self._identify(token))

    @_guarded
    async def _authorize(self, question: Authorize) -> None:
        now = self._shared.utc_now()
        result = await self._attempt(
            question.channel, self._shared.operations.authorize(self, self._session.client, question, now)
        )
        self._answer(Refused(result) if isinstance(result, Error) else result)

    def _answer(self, answer: Answer) -> None:
        self._perform(self._session.answered(answer, self._shared.clock()))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._shared.spawn(work)
        if task is None:
            self.close(Disconnect.SHUTDOWN)
            return
        if self._tasks is None:
            self._tasks = set()
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._tasks is not None:
            self._tasks.discard(task)
            self._tasks = self._tasks or None  # most connections are mostly idle

    @_guarded
    async def _join(self, question: Join) -> None:
        has_replied = False

        def reply(joined: Subscribed | Listening) -> None:
            nonlocal has_replied
            has_replied = True
            self._answer(joined)

        error = await self._attempt(
            question.channel, self._shared.operations.join(self, self._session.client, question, reply)
        )
        if error is not None and has_replied:
            self.close(Disconnect.SERVER_ERROR)
        elif error is not None:
            self._answer(Refused(error))

    @_guarded
    async def _carry_out(self, question: Perform) -> None:
        work = self._shared.operations.perform(self, self._session.client, question)
        result = await self._attempt(question.command.channel, work)
        outcome = Refused(result) if isinstance(result, Error) else result
        self._perform(self._session.finished(question.command.id, outcome))

    @_guarded
    async def _call(self, question: Call) -> None:
        result = await self._returned(question)
        self._perform(self._session.finished(question.id, result if isinstance(result, Returned) else Refused(result)))

    async def _returned(self, question: Call) -> Returned | Failure:
        if self._shared.commands is None:
            return Error.NOT_AVAILABLE
        try:
            return Returned(await self._shared.commands.call(question.actor, question.method, question.data))
        except UnknownCommand:
            return Error.METHOD_NOT_FOUND
        except CommandRefused as refused:
            return Refusal(refused.code, refused.message, refused.temporary)
        except Exception:
            log.exception("call_failed", client=self._session.client, method=question.method)
            return Error.INTERNAL

    async def _attempt(self, channel: str, work: Coroutine[None, None, T]) -> T | Error:
        try:
            return await work
        except Exception:
            # A bug here is one client's misfortune, not everybody's.
            log.exception("command_failed", client=self._session.client, channel=channel)
            return Error.INTERNAL
