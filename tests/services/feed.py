"""One live client of one channel, for tests that wait for what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp

from tests.contract_document import check_frame
from tests.services.orderwire import Orderwire
from tests.torture.conversation import Conversation
from tests.torture.records import Publication


class Feed:
    """Everything it heard stands in `heard`, in order; it never reconnects, so that a lost socket is seen."""

    def __init__(self, conversation: Conversation, channel: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._channel = channel
        self._conversation = conversation
        self._socket = socket
        self._news = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return not self._socket.closed

    @property
    def heard(self) -> list[Publication]:
        entries = (entry for log in self._conversation.logs() if log.channel == self._channel for entry in log.entries)
        return [entry for entry in entries if isinstance(entry, Publication)]

    async def joined(self) -> None:
        await self._conversation_is(lambda: not self._conversation.pending)

    async def until(self, order_id: str) -> None:
        """Return once an event of this order was heard. Raises ConnectionError when the server closes."""
        await self._conversation_is(lambda: any(publication.change.id == order_id for publication in self.heard))

    async def listen(self) -> None:
        """Hear, and answer pings, until the socket is closed."""
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            check_frame(message.data)
            if answer := self._conversation.receive(message.data.encode()):
                await self._socket.send_str(answer.decode())
            self._news.set()
        await self._socket.close()
        self._news.set()

    async def _conversation_is(self, so_far: Callable[[], bool]) -> None:
        while not so_far():
            if self._socket.closed:
                raise ConnectionError(f"closed with {self._socket.close_code}")
            self._news.clear()
            await self._news.wait()


@asynccontextmanager
async def subscribed(session: aiohttp.ClientSession, node: Orderwire, token: str, channel: str) -> AsyncIterator[Feed]:
    """A client that has joined, and listens until the block ends."""
    conversation = Conversation("feed", token, [channel])
    async with session.ws_connect(node.websocket_url) as socket, asyncio.TaskGroup() as tasks:
        feed = Feed(conversation, channel, socket)
        await socket.send_str(conversation.open().decode())
        listening = tasks.create_task(feed.listen())
        await feed.joined()
        yield feed
        listening.cancel()
