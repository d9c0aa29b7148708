"""Opening channels: learning where their streams are, many in one query, and each once for all who wait for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

import structlog

from handlers.ports.streams import Streams, StreamsAway
from realtime.channel import Channel
from realtime.channels import Channels
from realtime.repair import Repairs

log = structlog.get_logger(__name__)

_TOGETHER: Final = 500


class Openings:
    """One query at a time: what is wanted while it runs is gathered for the next. So a herd of channels costs a few
    queries, and a channel that comes alone waits for nothing.

    Bounded by the channels there are. While the streams are away nobody waits longer than one query takes to fail.
    """

    def __init__(self, channels: Channels, repairs: Repairs, streams: Streams) -> None:
        self._channels = channels
        self._repairs = repairs
        self._streams = streams
        self._due: deque[Channel] = deque()  # each once: it has its `opening`
        self._woken = asyncio.Event()

    async def open(self, channel: Channel) -> None:
        """Return when the channel is open, or gone. Raises StreamsAway."""
        if channel.is_open or channel.is_gone:
            return
        if channel.opening is None:
            channel.opening = asyncio.get_running_loop().create_future()
            self._due.append(channel)
            self._woken.set()
        if not await asyncio.shield(channel.opening):
            raise StreamsAway

    async def run(self) -> None:
        """Open what is wanted, until cancelled."""
        while True:
            await self._woken.wait()
            while self._due:
                await self._open_some()
            self._woken.clear()

    async def _open_some(self) -> None:
        due = list(islice(self._due, _TOGETHER))
        wanted = [channel.name for channel in due if not channel.is_gone]  # else everybody left it meanwhile
        try:
            heads = await self._streams.open(wanted)
        except StreamsAway:
            # Those who would be next learn it as well: each in its turn would wait for as long once more.
            self._settle(list(self._due), is_open=False)
            return
        except Exception:
            log.exception("opening_failed", channels=len(wanted))  # the misfortune of who waits, not of the node
            self._settle(due, is_open=False)
            return
        for channel in due:
            if not channel.is_gone:
                self._channels.begin(channel, heads[channel.name])
                if channel.is_behind:
                    self._repairs.want(channel)
        self._settle(due, is_open=True)

    def _settle(self, channels: Iterable[Channel], *, is_open: bool) -> None:
        """These, the first that are due, are through."""
        for channel in channels:
            self._due.popleft()
            if channel.opening is not None:
                channel.opening.set_result(is_open)
                channel.opening = None
