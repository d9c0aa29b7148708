"""The use cases of what orders come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from handlers.actor import Actor
from handlers.audience import order_stats
from handlers.errors import Fault, Malformed
from handlers.events import MAX_EVENT_BYTES, ORDERS, Cause, Event, OwnType
from handlers.ports.domain import Snapshot, UnitOfWork
from handlers.stats.model import Span, Tally, Window, tallies
from handlers.stats.schemas import OrderStatsBody

MOST_SPANS = 400


async def summary(uow: UnitOfWork, actor: Actor, now: datetime) -> Snapshot[OrderStatsBody]:
    """What a dashboard shows, to the last order. Raises Forbidden for customers."""
    actor.require_staff()
    channel = order_stats()
    position = await uow.positions.position(channel)
    return Snapshot(await _summary(uow, await uow.stats.version(), now), channel, position)


async def series(
    uow: UnitOfWork, actor: Actor, span: Span, now: datetime, *, since: datetime | None, before: datetime | None
) -> Sequence[Tally]:
    """What was placed in each span of these, oldest first; without those in which nothing was.

    Raises Forbidden for customers, Malformed for more than MOST_SPANS.
    """
    actor.require_staff()
    end = now if before is None else before
    begin = span.begin(Window.shown(end).since(span) if since is None else since)
    if end - begin > MOST_SPANS * span.length:
        raise Malformed(faults=[Fault("/since", "out_of_range", f"At most {MOST_SPANS} spans at a time")])
    return tallies(await uow.stats.series(span, max(begin, Window.kept(now).since(span)), end))


async def add_up(uow: UnitOfWork, cause: Cause, interval: timedelta) -> bool:
    """Add up what has changed, and tell the dashboards; False when nothing has, or that was done within `interval`."""
    version = await uow.stats.claim(interval)
    if version is None:
        return False
    await uow.stats.add_up(Window.kept(cause.now))
    told = await _summary(uow, version, cause.now)
    await uow.outbox.add(_event(told, cause))
    return True


def _event(told: OrderStatsBody, cause: Cause) -> Event:
    """That fits into what the broker carries: with very many currencies without minutes, then hours, then days."""
    event = Event.own(OwnType.ORDERS_COUNTED, ORDERS, told, cause)
    for spans in ("minutes", "hours", "days"):
        if len(event.encode()) <= MAX_EVENT_BYTES:
            break
        told = told.model_copy(update={spans: []})
        event = replace(event, data=told)
    return event


async def _summary(uow: UnitOfWork, version: int, now: datetime) -> OrderStatsBody:
    return OrderStatsBody.of(version, now, tallies(await uow.stats.recent(Window.shown(now))))
