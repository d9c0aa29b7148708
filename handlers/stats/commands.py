"""The commands of what orders come to: parameters -> service -> result."""

from __future__ import annotations

from handlers.commands import Caller, command
from handlers.schemas import Listing, NoParameters
from handlers.stats import service
from handlers.stats.model import Span
from handlers.stats.schemas import LiveOrderStatsBody, SeriesQuery, SpanTallyBody


async def summary(caller: Caller, _: NoParameters) -> LiveOrderStatsBody:
    snapshot = await caller.read(lambda uow: service.summary(uow, caller.actor, caller.cause.now))
    return LiveOrderStatsBody.at_position(snapshot)


async def series(caller: Caller, query: SeriesQuery) -> Listing[SpanTallyBody]:
    found = await caller.read(
        lambda uow: service.series(
            uow, caller.actor, Span(query.per), caller.cause.now, since=query.since, before=query.before
        )
    )
    return Listing[SpanTallyBody](items=[SpanTallyBody.of(tally) for tally in found], next=None)


COMMANDS = (command("stats.orders", NoParameters, summary), command("stats.series", SeriesQuery, series))
