"""What comes by the bus goes to whom it concerns: publications and joins to the hub, orders to the connections."""

from __future__ import annotations

import structlog

from realtime.bus import Order, decode
from realtime.control import Control
from realtime.hub import Hub
from realtime.metrics import RealtimeMetrics

log = structlog.get_logger(__name__)


class Inbox:
    def __init__(self, hub: Hub, control: Control, metrics: RealtimeMetrics) -> None:
        self._hub = hub
        self._control = control
        self._metrics = metrics

    def receive(self, message: bytes) -> None:
        """A message from the bus. One that nobody could have sent is counted and dropped."""
        try:
            items = list(decode(message))
        except ValueError:
            self._metrics.drops.labels("bus_message").inc()
            log.warning("bus_message_dropped", size=len(message))
            return
        self._hub.hear(item for item in items if not isinstance(item, Order))
        for item in items:
            if isinstance(item, Order):
                self._control.obey(item)
