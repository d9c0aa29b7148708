"""Tells other services which clients connect and which channels are occupied: as events, by way of the broker.

At most once: what cannot be handed to the broker waits, so much of it, and what a node that is killed had not handed
over is lost. For counting and looking, not for accounting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final

import structlog

from handlers.clock import utc_now
from handlers.events import SOURCE, Event, LifeCycleType
from handlers.ids import new_id
from handlers.ports.broker import Broker, BrokerAway, Message
from realtime.backoff import Backoff
from realtime.metrics import RealtimeMetrics

log = structlog.get_logger(__name__)

_TOGETHER: Final = 200
_MOST_WAITING: Final = 50_000


class LifeCycle:
    def __init__(self, broker: Broker, metrics: RealtimeMetrics) -> None:
        self._broker = broker
        self._metrics = metrics
        self._waiting: deque[Message] = deque()
        self._woken = asyncio.Event()

    def tell(self, type_: LifeCycleType, subject: str, data: Mapping[str, object]) -> None:
        """Something happened now to this client or channel, the `subject`."""
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft()
            self._metrics.drops.labels("life_cycle_event").inc()
        now = utc_now()
        event = Event(str(new_id(now)), SOURCE, type_, subject, now, data)
        self._waiting.append(Message(event.id, event.type, subject, event.encode()))
        self._woken.set()

    async def run(self) -> None:
        """Publish, in order, until cancelled."""
        backoff = Backoff(cap=5.0)
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._waiting:
                try:
                    await self._publish_some()
                    backoff.reset()
                except BrokerAway:
                    log.warning("life_cycle_waits_for_broker", waiting=len(self._waiting))
                    await asyncio.sleep(backoff.delay())

    async def _publish_some(self) -> None:
        some = [self._waiting[at] for at in range(min(len(self._waiting), _TOGETHER))]
        durable = await self._broker.publish(some)
        for message in some[:durable]:
            if self._waiting and self._waiting[0] is message:  # not dropped meanwhile
                self._waiting.popleft()
