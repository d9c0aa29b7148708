"""What comes by the bus goes to whom it concerns: publications and joins to the hub, orders by their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

import realtime.control
import realtime.emulation
import realtime.hub
import realtime.nodes
import realtime.survey
from realtime.bus import Order, decode
from realtime.control import Control
from realtime.emulation import Emulation
from realtime.hub import Hub
from realtime.metrics import RealtimeMetrics
from realtime.nodes import Nodes
from realtime.survey import Survey

log = structlog.get_logger(__name__)


class Inbox:
    def __init__(
        self, hub: Hub, control: Control, nodes: Nodes, survey: Survey, emulation: Emulation, metrics: RealtimeMetrics
    ) -> None:
        self._hub = hub
        self._metrics = metrics
        self._orders: Mapping[str, Callable[[bytes], None]] = {
            realtime.control.KIND: control.obey,
            realtime.nodes.KIND: nodes.hear,
            realtime.survey.QUESTION: survey.hear_question,
            realtime.survey.ANSWER: survey.hear_answer,
            realtime.emulation.KIND: emulation.hear,
            realtime.hub.FORGET: hub.forget,
        }

    def receive(self, message: bytes) -> None:
        """A message from the bus. One that nobody could have sent is counted and dropped."""
        try:
            items = list(decode(message, self._hub.hears))
        except ValueError:
            self._metrics.drops.labels("bus_message").inc()
            log.warning("bus_message_dropped", size=len(message))
            return
        self._hub.hear(item for item in items if not isinstance(item, Order))
        for item in items:
            if isinstance(item, Order):
                self._pass_on(item)

    def _pass_on(self, order: Order) -> None:
        take = self._orders.get(order.kind)
        if take is None:
            log.warning("order_unknown", kind=order.kind)  # a newer version's
            return
        try:
            take(order.body)
        except Exception:
            # One order is lost, as any may be; the node goes on.
            log.exception("order_failed", kind=order.kind)
