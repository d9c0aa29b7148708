"""The relay: moves what committed transactions left in the outbox to the broker. One is active in a deployment.

A removal comes after the broker's confirmation, so an event is published at least once; the fan-out drops doubles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import structlog

from handlers.ports.broker import Broker, BrokerAway
from handlers.ports.outbox import Leadership, Outbox, OutboxAway, OutboxRow
from realtime.backoff import Backoff
from realtime.metrics import RealtimeMetrics

log = structlog.get_logger(__name__)

BATCH_ROWS = 500
SMALLEST_BATCH = 20
WAVE_BYTES = 4 * 1024 * 1024  # in flight together; an event has at most 256 KiB
POLL_SECONDS = 0.25  # rows are announced; this is for an announcement that was lost
STUCK_SECONDS = 10.0  # rows are there and none leaves: another node may have a way to the broker
PAUSE_SECONDS = 2.0  # after giving the lead up, so that another node takes it


class _Stuck(Exception):
    """No progress for too long: let another node lead."""


class Relay:
    def __init__(self, outbox: Outbox, broker: Broker, metrics: RealtimeMetrics) -> None:
        self._outbox = outbox
        self._broker = broker
        self._metrics = metrics

    async def run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                async with self._outbox.lead() as leadership:
                    await self._lead(leadership, backoff)
            except OutboxAway as away:
                log.warning("relay_lost_outbox", cause=type(away.__cause__).__name__)
                await asyncio.sleep(backoff.delay())
            except _Stuck:
                log.warning("relay_gave_up_lead", stuck_seconds=STUCK_SECONDS)
                await asyncio.sleep(PAUSE_SECONDS + backoff.delay())

    async def _lead(self, leadership: Leadership, since_loss: Backoff) -> None:
        self._metrics.relay_leads.set(1)
        try:
            await _Lead(leadership, self._broker, self._metrics, since_loss).relay()
        finally:
            self._metrics.relay_leads.set(0)


class _Lead:
    """One leadership, from winning it to losing it."""

    def __init__(self, leadership: Leadership, broker: Broker, metrics: RealtimeMetrics, since_loss: Backoff) -> None:
        self._leadership = leadership
        self._broker = broker
        self._metrics = metrics
        self._since_loss = since_loss
        self._backoff = Backoff(cap=2.0)  # well below STUCK_SECONDS: several tries before giving up
        self._limit = SMALLEST_BATCH
        self._published: list[int] = []  # rows that the broker has, removed with the next read
        self._waiting_since: float | None = None  # when the oldest rows were first seen, if none has left since
        self._is_enduring = False

    async def relay(self) -> None:
        while True:
            rows = await self._leadership.pending(self._limit, published=self._published)
            self._since_loss.reset()  # not before: a standby can be led, and read by nobody who removes
            self._published = []
            if not rows:
                self._waiting_since = None
            elif self._waiting_since is None:
                self._waiting_since = asyncio.get_running_loop().time()
            # A full batch means that more are waiting: read further each time, and small reads when all is calm.
            are_more = len(rows) == self._limit
            self._limit = min(BATCH_ROWS, self._limit * 2) if are_more else SMALLEST_BATCH
            if await self._send_all(rows) and not are_more:
                # What was published is removed with the next read, so calm orders cost one read each and not two.
                await self._leadership.wait(POLL_SECONDS)

    async def _send_all(self, rows: Sequence[OutboxRow]) -> bool:
        for wave in waves(rows):
            if not await self._send(wave):
                return False
        return True

    async def _send(self, wave: Sequence[OutboxRow]) -> bool:
        """Publish one wave and note what is durable. False unless that is all of it: then read again."""
        try:
            durable = await self._broker.publish([row.message for row in wave])
        except BrokerAway as away:
            await self._endure(away)
            return False
        self._waiting_since = None
        self._is_enduring = False
        self._backoff.reset()
        self._published += [row.id for row in wave[:durable]]
        self._metrics.relayed.inc(durable)
        log.debug("events_relayed", event_ids=[row.message.id for row in wave[:durable]])
        return durable == len(wave)

    async def _endure(self, away: BrokerAway) -> None:
        if not self._is_enduring:
            self._is_enduring = True  # one line for each outage, not one for each try
            log.warning("relay_waits_for_broker", cause=str(away))
        if self._waiting_since is not None and asyncio.get_running_loop().time() - self._waiting_since > STUCK_SECONDS:
            raise _Stuck
        await asyncio.sleep(self._backoff.delay())


def waves(rows: Sequence[OutboxRow]) -> Iterator[Sequence[OutboxRow]]:
    """Cut `rows` into runs in which each subject occurs once.

    What is in flight together may be taken in part: were a later event of a subject taken and an earlier one
    refused, the earlier one would arrive after it.
    """
    wave: list[OutboxRow] = []
    subjects: set[str] = set()
    size = 0
    for row in rows:
        if row.message.subject in subjects or (wave and size + len(row.message.body) > WAVE_BYTES):
            yield wave
            wave, subjects, size = [], set(), 0
        wave.append(row)
        subjects.add(row.message.subject)
        size += len(row.message.body)
    if wave:
        yield wave
