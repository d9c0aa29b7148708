"""The JSON bodies of what orders come to. `OrderStatsBody` is also the `data` of the event `orders.counted`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field

from handlers.orders.model import Status
from handlers.orders.schemas import Money
from handlers.ports.domain import Snapshot
from handlers.schemas import Body, Currency, Instant, Moment, StreamBody
from handlers.stats.model import Count, Span, Tally

Orders = Annotated[int, Field(ge=0)]


class StatusCountBody(Body):
    """Orders that are of this status now, and what they come to."""

    status: Status
    orders: Orders
    total: Money

    @classmethod
    def of(cls, count: Count) -> Self:
        return cls(status=count.status, orders=count.orders, total=count.total)


class TallyBody(Body):
    """Of all orders of a currency; `revenue` is of those that are paid for."""

    currency: Currency
    orders: Orders
    revenue: Money
    by_status: list[StatusCountBody]

    @classmethod
    def of(cls, tally: Tally) -> TallyBody:
        return TallyBody(
            currency=tally.currency,
            orders=tally.orders,
            revenue=tally.revenue,
            by_status=[StatusCountBody.of(count) for count in tally.by_status],
        )


class SpanTallyBody(TallyBody):
    """Of the orders of a currency that were placed in the span that begins then."""

    begins_at: Moment

    @classmethod
    def of(cls, tally: Tally) -> SpanTallyBody:
        return cls(**dict(TallyBody.of(tally)), begins_at=tally.begins_at)


class PointBody(Body):
    """Orders that were placed in the span that begins then, and what is paid for of them."""

    begins_at: Moment
    currency: Currency
    orders: Orders
    revenue: Money

    @classmethod
    def of(cls, tally: Tally) -> Self:
        return cls(begins_at=tally.begins_at, currency=tally.currency, orders=tally.orders, revenue=tally.revenue)


class OrderStatsBody(Body):
    """What a dashboard shows. Spans are in UTC, oldest first; one without an order is left out. `version` grows: keep
    what has the highest."""

    version: Annotated[int, Field(ge=0)]
    at: Moment
    totals: Annotated[list[TallyBody], Field(description="Of all orders there are")]
    minutes: Annotated[list[PointBody], Field(description="Of the last hour")]
    hours: Annotated[list[PointBody], Field(description="Of the last day")]
    days: Annotated[list[PointBody], Field(description="Of the last thirty days")]

    @classmethod
    def of(cls, version: int, at: datetime, tallies: Iterable[Tally]) -> OrderStatsBody:
        found = list(tallies)

        def points(span: Span) -> list[PointBody]:
            return [PointBody.of(tally) for tally in found if tally.span is span]

        return cls(
            version=version,
            at=at,
            totals=[TallyBody.of(tally) for tally in found if tally.span is Span.EVER],
            minutes=points(Span.MINUTE),
            hours=points(Span.HOUR),
            days=points(Span.DAY),
        )


class LiveOrderStatsBody(OrderStatsBody):
    """What a dashboard shows, with the stream that tells how it goes on."""

    stream: StreamBody

    @classmethod
    def at_position(cls, snapshot: Snapshot[OrderStatsBody]) -> LiveOrderStatsBody:
        return cls.trusted(**dict(snapshot.state), stream=StreamBody.of(snapshot))


class SeriesQuery(Body):
    """Which spans: by default the last 60 minutes, 24 hours or 30 days."""

    per: Annotated[Literal["minute", "hour", "day"], Field(description="Minutes of the last week, hours of a year")]
    since: Annotated[Instant | None, Field(description="Begin with the span of then")] = None
    before: Annotated[Instant | None, Field(description="Only spans that began earlier")] = None
