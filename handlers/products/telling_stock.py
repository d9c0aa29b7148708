"""Tells of the stock that orders leave. Each node looks every half second; whichever comes first does it for the
deployment, once a second. What is taken to be told goes in one transaction with the event that tells it, so nothing is
lost whoever dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from handlers.clock import utc_now
from handlers.events import Cause
from handlers.looking import keep_looking
from handlers.products import service
from handlers.work import Work

INTERVAL = timedelta(seconds=1)
_TELLING = 0.5  # of it, at most: thousands of products at once would make everybody else wait


class TellingStock:
    def __init__(self, work: Work) -> None:
        self._work = work

    async def run(self) -> None:
        pause = (1 - _TELLING) * INTERVAL.total_seconds()
        await keep_looking(self.tell, pause, 1.2 * pause, "stock_not_told_yet")

    async def tell(self, interval: timedelta = INTERVAL) -> bool:
        """Was there something to tell? Raises Unavailable; what was not told by then is told the next time."""
        portions = await self._work.write(lambda uow: service.claim_untold(uow, interval))
        for index, portion in enumerate(portions):
            if index:
                await asyncio.sleep(_TELLING * interval.total_seconds() / len(portions))
            await self._tell(portion)
        return bool(portions)

    async def _tell(self, portion: Sequence[UUID]) -> None:
        await self._work.write(lambda uow: service.tell_stock(uow, portion, Cause(utc_now())))
