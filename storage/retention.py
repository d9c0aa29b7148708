"""What is too old goes: publications, event identities, answers to idempotency keys, sums of minutes and hours, streams
that nobody uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import structlog

from handlers.errors import Unavailable
from handlers.looking import keep_looking
from storage.pool import connect
from storage.queries import load
from storage.sqlstates import raising

if TYPE_CHECKING:
    from storage.pool import Connection

log = structlog.get_logger(__name__)

SQL = load("retention")

ANSWERS_KEPT = timedelta(hours=24)
MINUTES_KEPT = timedelta(days=8)  # of sums of orders; a day longer than they are added to and shown
HOURS_KEPT = timedelta(days=367)
UNUSED_STREAMS_KEPT = timedelta(days=30)
COMMAND_TIMEOUT = 30.0  # seconds for one batch
ROUNDS_PER_LOOK_AT_STREAMS = 60  # it reads the whole table, which has no index by age, for it is updated all the time


@dataclass(frozen=True, slots=True)
class RetentionOptions:
    """Ages and the interval are seconds. A stream is forgotten later than any of its identities; a publication's own
    time was fixed when it was appended."""

    url: str = field(repr=False)
    seen: float
    interval: float = 60.0
    batch: int = 5_000


class Retention:
    def __init__(self, options: RetentionOptions) -> None:
        self._options = options
        self._ages = {
            "publications": timedelta(0),
            "seen": timedelta(seconds=options.seen),
            "answers": ANSWERS_KEPT,
            "minutes": MINUTES_KEPT,
            "hours": HOURS_KEPT,
            "streams": max(UNUSED_STREAMS_KEPT, timedelta(seconds=options.seen)),
        }

    async def run(self) -> None:
        """Clean up every now and then; while PostgreSQL is away there is nothing to do."""
        rounds, interval = count(), self._options.interval
        await keep_looking(
            lambda: self.clean(with_streams=next(rounds) % ROUNDS_PER_LOOK_AT_STREAMS == 0),
            0.9 * interval,
            1.1 * interval,
            "retention_postponed",
        )

    async def clean(self, *, with_streams: bool = True) -> Mapping[str, int]:
        """Delete what is too old now and return how many rows of what; nothing while another node is at it.

        In batches, each its own transaction, so that no snapshot is held long. Raises Unavailable.
        """
        with raising(Unavailable):
            async with connect(
                self._options.url, name="orderwire retention", command_timeout=COMMAND_TIMEOUT
            ) as connection:
                if not await connection.fetchval(SQL["try_lock"]):
                    return {}
                deleted = {
                    table: await self._delete(connection, table, age)
                    for table, age in self._ages.items()
                    if with_streams or table != "streams"
                }
        if any(deleted.values()):
            log.info("retention_cleaned", **deleted)
        return deleted

    async def _delete(self, connection: Connection, table: str, age: timedelta) -> int:
        total = 0
        while True:
            deleted = _deleted(await connection.execute(SQL[table], age, self._options.batch))
            total += deleted
            if deleted < self._options.batch:
                return total


def _deleted(tag: str) -> int:
    """Of a command tag: `DELETE 17`."""
    return int(tag.rpartition(" ")[2])
