"""Adds up what orders come to. Each node looks every second; whichever comes first does it for the deployment, in one
transaction with the event that tells it, so nothing is counted twice whoever dies."""

from __future__ import annotations

from datetime import timedelta

from handlers.clock import utc_now
from handlers.events import Cause
from handlers.looking import keep_looking
from handlers.stats import service
from handlers.work import Work

INTERVAL = timedelta(seconds=1)


class AddingUp:
    def __init__(self, work: Work) -> None:
        self._work = work

    async def run(self) -> None:
        pause = INTERVAL.total_seconds()
        await keep_looking(self.add_up, pause, 1.2 * pause, "adding_up_postponed")

    async def add_up(self, interval: timedelta = INTERVAL) -> bool:
        """Was there something to add up? Raises Unavailable."""
        return await self._work.write(lambda uow: service.add_up(uow, Cause(utc_now()), interval))
