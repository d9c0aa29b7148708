"""Orders that stay unpaid expire, and so do drafts. Each node looks for them; whichever locks one first lets it expire,
in a transaction of its own, so it happens once and survives the death of any node."""

from __future__ import annotations

import structlog

from handlers.clock import utc_now
from handlers.events import Cause
from handlers.looking import keep_looking
from handlers.orders import service
from handlers.rules import Rules
from handlers.work import Work

log = structlog.get_logger(__name__)

LONGEST_PAUSE = 10.0  # seconds between two looks
SHORTEST_PAUSE = 0.5
PART = 100  # of the time that an order may stay unpaid or a draft, by which it may be late


class Expiry:
    def __init__(self, work: Work, rules: Rules) -> None:
        self._work = work
        parts = [time.total_seconds() / PART for time in (rules.unpaid_for, rules.draft_for) if time is not None]
        self._pause = max(SHORTEST_PAUSE, min([LONGEST_PAUSE, *parts]))

    async def run(self) -> None:
        await keep_looking(self.expire, 0.8 * self._pause, self._pause, "expiry_postponed")

    async def expire(self) -> int:
        """Let all orders expire that are due, and return how many this node has. Raises Unavailable."""
        count = 0
        while await self._work.write(lambda uow: service.expire_next(uow, Cause(utc_now()))):
            count += 1
        if count:
            log.info("orders_expired", count=count)
        return count
