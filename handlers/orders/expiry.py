"""Orders that stay unpaid expire, and so do drafts. Each node looks for them; whichever locks one first lets it expire,
in a transaction of its own, so it happens once and survives the death of any node."""

from __future__ import annotations

from uuid import UUID

import structlog

from handlers.clock import utc_now
from handlers.errors import Unavailable
from handlers.events import Cause
from handlers.looking import keep_looking
from handlers.orders import service
from handlers.rules import Rules
from handlers.work import Work

log = structlog.get_logger(__name__)

LONGEST_PAUSE = 10.0  # seconds between two looks
SHORTEST_PAUSE = 0.5
MOST_FAILURES = 10  # of orders in one look; then it is not the orders that are at fault
PART = 100  # of the time that an order may stay unpaid or a draft, by which it may be late


class Expiry:
    def __init__(self, work: Work, rules: Rules) -> None:
        self._work = work
        parts = [time.total_seconds() / PART for time in (rules.unpaid_for, rules.draft_for) if time is not None]
        self._pause = max(SHORTEST_PAUSE, min([LONGEST_PAUSE, *parts]))

    async def run(self) -> None:
        await keep_looking(self.expire, 0.8 * self._pause, self._pause, "expiry_postponed")

    async def expire(self) -> int:
        """Let all orders expire that are due, and return how many this node has. Raises Unavailable, and whatever keeps
        many of them from it."""
        tried, failed = 0, set[UUID]()
        while await self._expire_next(failed):
            tried += 1
        if count := tried - len(failed):
            log.info("orders_expired", count=count)
        return count

    async def _expire_next(self, failed: set[UUID]) -> bool:
        """Was there one to try that has not `failed` before? Where this one does, it is noted there."""
        tried = failed.copy()
        try:
            return await self._work.write(lambda uow: service.expire_next(uow, Cause(utc_now()), tried))
        except Unavailable:
            raise
        except Exception:
            # One order that cannot expire, whatever has come upon it, keeps no other waiting. It is due again later.
            if tried == failed or len(tried) > MOST_FAILURES:
                raise
            log.exception("expiry_failed", order=str((tried - failed).pop()))
            failed |= tried
            return True
