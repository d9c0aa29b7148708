"""The clients of a torture run: each holds a conversation over connections that it drops at random moments."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress

from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from tests.torture.conversation import Conversation, Rejected
from tests.torture.records import Log

COMMAND_TIMEOUT = 5.0  # seconds, as in the SDKs: a reply that takes longer is a reason to reconnect
RESUBSCRIBE_PAUSE = (0.1, 0.5)
MEAN_LIFETIME = 6.0  # seconds that a connection is kept; exponential, so that many are far shorter
BRIEF = 0.15  # share of the connections dropped within 50 ms: while connecting, joining or recovering


class Client:
    """`run` keeps the conversation going until cancelled; on every new connection a node is drawn anew.

    `watches`: whether it also opens channels of single orders, in the course of the run.
    """

    def __init__(
        self, conversation: Conversation, user_id: str, urls: Sequence[str], rng: random.Random, *, watches: bool
    ) -> None:
        self.name = conversation.name
        self.user_id = user_id
        self.watches = watches
        self.watched: set[str] = set()
        self.connections = 0
        self._conversation = conversation
        self._urls = urls
        self._rng = rng
        self._restless = True
        self._connection: _Connection | None = None

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                await self._live()
                failures = 0
            except (OSError, TimeoutError, WSError, Rejected):
                failures += 1
            await asyncio.sleep(self._rng.uniform(0, min(1.0, 0.1 * 2**failures)))

    def settle(self) -> None:
        """From now on drop no connection on purpose."""
        self._restless = False

    def watch(self, channel: str) -> None:
        self.watched.add(channel)
        frame = self._conversation.watch(channel)
        if self._connection is not None and frame:
            self._connection.send(frame)

    def is_current(self, heads: Mapping[str, int]) -> bool:
        return self._conversation.is_current(heads)

    def logs(self) -> list[Log]:
        return self._conversation.logs()

    def take_logs(self) -> list[Log]:
        """What was heard since the last time; it is not kept."""
        return self._conversation.take_logs()

    async def _live(self) -> None:
        transport, connection = await self._connect()
        if not isinstance(connection, _Connection):
            raise ConnectionResetError  # the node died between its handshake and this line
        self._connection = connection
        self.connections += 1
        try:
            connection.send(self._conversation.open())
            await connection.over(self._lifetime())
        finally:
            self._connection = None
            # Half of them say goodbye, half vanish like a phone in a tunnel.
            transport.disconnect(graceful=self._rng.random() < 0.5)
            await transport.wait_disconnected()

    async def _connect(self) -> tuple[WSTransport, WSListener | None]:
        """A handshake that is cancelled would leave its socket open: it is gone through with, and given up then."""
        url = self._rng.choice(self._urls)
        connecting = asyncio.ensure_future(ws_connect(lambda: _Connection(self._conversation, self._rng), url))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            with suppress(OSError, WSError):
                transport, _ = await connecting
                transport.disconnect(graceful=False)
                await transport.wait_disconnected()
            raise

    def _lifetime(self) -> float:
        if not self._restless:
            return float("inf")
        if self._rng.random() < BRIEF:
            return self._rng.uniform(0, 0.05)
        return self._rng.expovariate(1 / MEAN_LIFETIME)


class _Connection(WSListener):
    """One WebSocket of a conversation. `over` returns when it ended, whoever ended it."""

    def __init__(self, conversation: Conversation, rng: random.Random) -> None:
        self._conversation = conversation
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._last_reply = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, _transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            self._closed_by_server(frame)
        elif not self._ended.done():
            try:
                answer = self._conversation.receive(frame.get_payload_as_bytes())
            except Exception as error:  # noqa: BLE001 - on its way to the task that awaits `over`
                self._ended.set_exception(error)
                return
            self._after(answer)

    def on_ws_disconnected(self, _transport: WSTransport) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._ended.done():
            self._ended.set_result(None)

    def send(self, frame: bytes) -> None:
        if self._transport is not None and not self._ended.done():
            self._transport.send(WSMsgType.TEXT, frame)

    async def over(self, lifetime: float) -> None:
        deadline = self._loop.time() + lifetime
        while not self._ended.done() and self._loop.time() < deadline:
            await asyncio.wait([self._ended], timeout=min(1.0, deadline - self._loop.time()))
            if self._conversation.pending and self._loop.time() - self._last_reply > COMMAND_TIMEOUT:
                break
        if not self._ended.done():
            self._ended.set_result(None)
        await self._ended

    def _after(self, answer: bytes) -> None:
        self._last_reply = self._loop.time()
        if answer:
            self.send(answer)
        if self._conversation.refused and self._timer is None:
            self._timer = self._loop.call_later(self._rng.uniform(*RESUBSCRIBE_PAUSE), self._resubscribe)

    def _resubscribe(self) -> None:
        self._timer = None
        self.send(self._conversation.subscribe(tuple(self._conversation.refused)))

    def _closed_by_server(self, frame: WSFrame) -> None:
        code = int.from_bytes(frame.get_payload_as_bytes()[:2], "big")
        if 3500 <= code < 4000 or 4500 <= code < 5000:
            self._conversation.end(code)
        if not self._ended.done():
            self._ended.set_result(None)
