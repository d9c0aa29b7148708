"""The bus within one process, for tests: the buses of several nodes share a `MemoryExchange`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from realtime.bus import Item, Receiver, encode

QUEUE_SIZE = 10_000  # messages that one receiver may be behind; beyond, they are lost, as a bus may lose them


class MemoryExchange:
    def __init__(self) -> None:
        self._listening: set[asyncio.Queue[bytes]] = set()

    def bus(self) -> MemoryBus:
        """One node's end."""
        return MemoryBus(self._listening)


class MemoryBus:
    """Variant of `realtime.bus.Bus`. While cut off it loses what is published, as a node does that lost Redis."""

    def __init__(self, listening: set[asyncio.Queue[bytes]]) -> None:
        self._listening = listening
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUE_SIZE)
        self._is_running = False
        self._is_cut = False

    @property
    def is_connected(self) -> bool:
        return self._is_running and not self._is_cut

    def cut(self) -> None:
        self._is_cut = True
        self._listening.discard(self._queue)

    def mend(self) -> None:
        self._is_cut = False
        if self._is_running:
            self._listening.add(self._queue)

    async def publish(self, items: Iterable[Item]) -> bool:
        if self._is_cut:
            return False
        message = encode(items)
        for queue in self._listening:
            if not queue.full():
                queue.put_nowait(message)
        return True

    async def run(self, receiver: Receiver) -> None:
        self._is_running = True
        if not self._is_cut:
            self._listening.add(self._queue)
        try:
            while True:
                receiver(await self._queue.get())
        finally:
            self._is_running = False
            self._listening.discard(self._queue)
