"""One live client of one channel, for tests that wait for what it hears."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from tests.services.orderwire import Orderwire
from tests.torture.conversation import Conversation
from tests.torture.records import Publication


class Feed:
    """Everything it heard stands in `heard`, in order; it never reconnects, so that a lost socket is seen."""

    def __init__(self, conversation: Conversation, channel: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._channel = channel
        self._conversation = conversation
        self._socket = socket

    @property
    def is_open(self) -> bool:
        return not self._socket.closed

    @property
    def heard(self) -> list[Publication]:
        entries = (entry for log in self._conversation.logs() if log.channel == self._channel for entry in log.entries)
        return [entry for entry in entries if isinstance(entry, Publication)]

    async def until(self, order_id: str) -> None:
        """Return once an event of this order was heard. Raises ConnectionError when the server closes."""
        while order_id not in {publication.change.order_id for publication in self.heard}:
            await self.receive()

    async def receive(self) -> None:
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise ConnectionError(f"closed with {self._socket.close_code}")
        if answer := self._conversation.receive(message.data.encode()):
            await self._socket.send_str(answer.decode())


@asynccontextmanager
async def subscribed(session: aiohttp.ClientSession, node: Orderwire, token: str, channel: str) -> AsyncIterator[Feed]:
    """A client that has joined."""
    conversation = Conversation("feed", token, [channel])
    async with session.ws_connect(node.websocket_url) as socket:
        feed = Feed(conversation, channel, socket)
        await socket.send_str(conversation.open().decode())
        while conversation.pending:
            await feed.receive()
        yield feed
