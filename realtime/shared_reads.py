"""Pages of streams, each read once for all who want it at the time."""

from __future__ import annotations

import asyncio
from typing import Final, TypeAlias

from handlers.ports.streams import Page, Streams, StreamsAway

PAGE_LENGTH: Final = 1000
PAGE_BYTES: Final = 256 * 1024


_Wanted: TypeAlias = tuple[str, int | None, int | None]
"""A channel, and after or before which offset."""


class SharedReads:
    """A read belongs to `run`: who wants its page may go away without taking it from the others."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._tasks: asyncio.TaskGroup | None = None
        self._under_way: dict[_Wanted, asyncio.Future[Page]] = {}

    async def read(self, channel: str, after: int) -> Page:
        """The page that follows this offset, as it is now or was when somebody began to read it. Raises StreamsAway."""
        return await self._page((channel, after, None))

    async def read_back(self, channel: str, before: int) -> Page:
        """As `read`, the one that ends before this offset: newest first."""
        return await self._page((channel, None, before))

    async def _page(self, key: _Wanted) -> Page:
        page = self._under_way.get(key)
        if page is None:
            if self._tasks is None:
                raise StreamsAway
            page = self._under_way[key] = asyncio.get_running_loop().create_future()
            page.add_done_callback(_look)
            self._tasks.create_task(self._read(key, page))
        return await asyncio.shield(page)

    def forget(self, channel: str) -> None:
        """Its history was removed: what is being read is for those alone who wait for it already."""
        for key in [key for key in self._under_way if key[0] == channel]:
            del self._under_way[key]

    async def run(self) -> None:
        """Read what is wanted, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None

    async def _read(self, key: _Wanted, page: asyncio.Future[Page]) -> None:
        channel, after, before = key
        most = {"limit": PAGE_LENGTH, "max_bytes": PAGE_BYTES}
        try:
            if after is None:
                found = await self._streams.read_back(channel, before=before, **most)
            else:
                found = await self._streams.read(channel, after=after, **most)
        except Exception as error:  # noqa: BLE001 - a bug here is the misfortune of who waits, not of the node
            page.set_exception(error)
        else:
            page.set_result(found)
        finally:
            if self._under_way.get(key) is page:
                del self._under_way[key]
            if not page.done():
                page.set_exception(StreamsAway())


def _look(page: asyncio.Future[Page]) -> None:
    """At an error that nobody waits for any more, or asyncio reports it."""
    page.exception()
