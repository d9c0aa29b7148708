"""Reading what the bus lost. Bus messages may go missing, the last one too; the streams in PostgreSQL have them all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog

from handlers.ports.domain import Position
from handlers.ports.streams import Streams, StreamsAway
from realtime.backoff import Backoff
from realtime.bus import Bus
from realtime.channel import Channel
from realtime.channels import Channels
from realtime.metrics import RealtimeMetrics
from realtime.pacing import Pacing
from realtime.shared_reads import PAGE_BYTES, PAGE_LENGTH

log = structlog.get_logger(__name__)

# Messages of two publishers may overtake each other by about this much; the missing one is then on its way.
_PATIENCE: Final = 0.005
_LATE: Final = 0.1  # seconds that a message may be on its way
_CONCURRENCY: Final = 8
_TOGETHER: Final = 500  # channels in one look at the heads
_LONGEST_WAIT: Final = 2.0


class Repairs:
    """Keeps live channels at their streams' heads. Intervals are seconds between looks at the head of each."""

    def __init__(
        self,
        channels: Channels,
        pacing: Pacing,
        streams: Streams,
        bus: Bus,
        metrics: RealtimeMetrics,
        *,
        interval: float,
        interval_without_bus: float,
    ) -> None:
        self._channels = channels
        self._pacing = pacing
        self._streams = streams
        self._bus = bus
        self._metrics = metrics
        self._interval = interval
        self._interval_without_bus = interval_without_bus
        self._due: deque[Channel] = deque()  # each at most once: `awaits_repair`
        self._woken = asyncio.Event()

    def want(self, channel: Channel) -> None:
        """Something about this channel is missing: read it, unless it arrives by itself within some milliseconds."""
        if not channel.awaits_repair:
            channel.awaits_repair = True
            asyncio.get_running_loop().call_later(_PATIENCE, self._enqueue, channel)

    async def bring_up(self, channel: Channel) -> bool:
        """Read until the channel is at its head, or reset it if it cannot get there. Raises StreamsAway.

        True if it read what had not come by the bus.
        """
        has_missed = False
        self._pacing.release(channel)
        while not channel.is_gone:
            heard, clearings = channel.heard, channel.clearings
            page = await self._streams.read(channel.name, after=channel.last, limit=PAGE_LENGTH, max_bytes=PAGE_BYTES)
            if channel.is_gone:
                break
            last = channel.last
            if not self._channels.absorb(channel, page, clearings=clearings):
                if page.top.epoch == channel.epoch and await self._goes_on(channel):
                    continue
                self._channels.reset(channel)
                break
            has_missed = has_missed or channel.last > last
            if channel.last < page.top.offset:
                continue
            if channel.heard <= max(heard, channel.last):
                # What was spoken of before this read and is not there now will never be.
                channel.heard = channel.last
                break
        return has_missed

    async def _goes_on(self, channel: Channel) -> bool:
        """Whether the bus brings what the stream has no longer: it may be behind by more than a short history keeps."""
        last = channel.last
        await asyncio.sleep(_LATE)
        return not channel.is_gone and channel.last > last

    async def run(self) -> None:
        """Look at the heads and repair, until cancelled."""
        slots = asyncio.Semaphore(_CONCURRENCY)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_heads())
            while True:
                await self._woken.wait()
                while self._due:
                    await slots.acquire()
                    tasks.create_task(self._repair(self._due.popleft(), slots))
                self._woken.clear()

    def _compare(self, channel: Channel, before: Position, head: Position) -> None:
        if head.epoch == before.epoch and head.offset < before.offset:
            # The same epoch, yet less than was published: the database lost its end.
            self._channels.reset(channel)
            return
        if head.epoch != before.epoch:
            channel.is_suspect = True
        if head.offset > channel.last:
            self._pacing.release(channel)
        channel.heard = max(channel.heard, head.offset)
        if channel.is_behind:
            self.want(channel)

    def _enqueue(self, channel: Channel) -> None:
        self._due.append(channel)
        self._woken.set()

    async def _repair(self, channel: Channel, slots: asyncio.Semaphore) -> None:
        backoff = Backoff(cap=_LONGEST_WAIT)
        try:
            while channel.is_behind and not channel.is_gone:
                try:
                    if await self.bring_up(channel):
                        self._metrics.gaps_repaired.inc()
                except StreamsAway:
                    await asyncio.sleep(backoff.delay())
        finally:
            channel.awaits_repair = False
            slots.release()

    async def _watch_heads(self) -> None:
        """A round lasts an interval: some channels at a time, and the loop is free in between."""
        loop = asyncio.get_running_loop()
        was_connected = False
        while True:
            is_connected = self._bus.is_connected
            # What was lost about when the bus came is looked for at once.
            is_calm = is_connected and was_connected
            opened = self._channels.opened()
            if is_connected and not was_connected:
                # Whoever removed a history may have told us in vain, and no head tells of that.
                for channel in opened:
                    self._channels.clear(channel)
            was_connected = is_connected
            looks = [opened[at : at + _TOGETHER] for at in range(0, len(opened), _TOGETHER)] or [()]
            pause = (self._interval if is_calm else self._interval_without_bus) / len(looks)
            due = loop.time()
            for channels in looks:
                due += pause
                await self._look(channels)
                await self._wait(due, is_connected)

    async def _look(self, channels: Sequence[Channel]) -> None:
        """Compare these with their streams' heads, in one query."""
        before = {channel.name: (channel, channel.position) for channel in channels if not channel.is_gone}
        if not before:
            return
        try:
            moved = await self._streams.moved({name: position for name, (_, position) in before.items()})
        except StreamsAway:
            log.warning("heads_unknown")
            return
        for name, head in moved.items():
            channel, position = before[name]
            if not channel.is_gone:
                self._compare(channel, position, head)

    async def _wait(self, until: float, was_connected: bool) -> None:
        """Until a moment of the loop's time, or until the bus comes or goes."""
        loop = asyncio.get_running_loop()
        while loop.time() < until and self._bus.is_connected == was_connected:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(min(until - loop.time(), self._interval_without_bus))
