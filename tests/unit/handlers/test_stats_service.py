from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice, product
from string import ascii_uppercase

import pytest

from handlers.actor import Role
from handlers.errors import Forbidden, Malformed
from handlers.events import MAX_EVENT_BYTES, OwnType
from handlers.orders.model import Status
from handlers.stats import service
from handlers.stats.model import Count, Span
from tests.doubles import CAUSE, NOW, MemoryUnitOfWork, an_actor

STAFF, CUSTOMER = an_actor(Role.STAFF), an_actor()
SECOND = timedelta(seconds=1)
EVER = Count(Span.EVER, NOW - timedelta(days=9000), "EUR", Status.PAID, 7, 700)
MINUTE = Count(Span.MINUTE, Span.MINUTE.begin(NOW), "EUR", Status.PLACED, 1, 100)


@pytest.fixture
def uow() -> MemoryUnitOfWork:
    return MemoryUnitOfWork()


async def test_what_was_added_up_is_told_with_the_version_that_it_made(uow: MemoryUnitOfWork) -> None:
    uow.stats.counts = [EVER, MINUTE]
    uow.stats.has_changed = True

    assert await service.add_up(uow, CAUSE, SECOND)

    (event,) = uow.outbox.events
    assert (event.type, event.subject, event.time, event.recipient) == (
        OwnType.ORDERS_COUNTED,
        "orders",
        CAUSE.now,
        None,
    )
    assert event.data.version == 1
    assert [(tally.orders, tally.revenue) for tally in event.data.totals] == [(7, 700)]
    assert [(point.orders, point.revenue) for point in event.data.minutes] == [(1, 0)]
    assert (event.data.hours, event.data.days) == ([], [])


@pytest.mark.parametrize(("currencies", "empty"), [(2, set()), (40, {"minutes"}), (600, {"minutes", "hours", "days"})])
async def test_what_is_told_of_very_many_currencies_can_be_delivered(
    uow: MemoryUnitOfWork, currencies: int, empty: set[str]
) -> None:
    begin = MINUTE.begins_at
    names = ["".join(letters) for letters in islice(product(ascii_uppercase, repeat=3), currencies)]
    spans = {Span.EVER: 1, Span.MINUTE: 60, Span.HOUR: 24, Span.DAY: 30}
    counts = [
        Count(span, begin - number * SECOND, name, Status.PAID, 12, 10**6)
        for span, many in spans.items()
        for number in range(many)
        for name in names
    ]
    uow.stats.counts, uow.stats.has_changed = counts, True

    await service.add_up(uow, CAUSE, SECOND)

    (event,) = uow.outbox.events
    assert len(event.encode()) <= MAX_EVENT_BYTES
    assert {spans for spans in ("minutes", "hours", "days") if not getattr(event.data, spans)} == empty
    assert len(event.data.totals) == currencies


async def test_of_nothing_new_nothing_is_told(uow: MemoryUnitOfWork) -> None:
    assert not await service.add_up(uow, CAUSE, SECOND)
    assert uow.outbox.events == []


async def test_a_dashboard_loads_what_it_is_told_later(uow: MemoryUnitOfWork) -> None:
    uow.stats.counts = [EVER, MINUTE]
    uow.stats.has_changed = True
    await service.add_up(uow, CAUSE, SECOND)

    snapshot = await service.summary(uow, STAFF, CAUSE.now)

    assert snapshot.channel == "stats:orders"
    assert snapshot.state == uow.outbox.events[0].data


async def test_it_is_for_staff(uow: MemoryUnitOfWork) -> None:
    with pytest.raises(Forbidden):
        await service.summary(uow, CUSTOMER, NOW)
    with pytest.raises(Forbidden):
        await service.series(uow, CUSTOMER, Span.DAY, NOW, since=None, before=None)


def minutes(*ages: int) -> list[Count]:
    return [
        Count(Span.MINUTE, Span.MINUTE.begin(NOW) - timedelta(minutes=age), "EUR", Status.PAID, 1, 1) for age in ages
    ]


@pytest.mark.parametrize(
    ("since", "before", "ages"),
    [
        (None, None, [59, 1, 0]),
        (NOW - timedelta(minutes=1), None, [1, 0]),
        (NOW - timedelta(minutes=60), NOW, [60, 59, 1]),
        (None, NOW - timedelta(seconds=1), [60, 59, 1]),
        (NOW, NOW - timedelta(minutes=1), []),
    ],
)
async def test_a_series_begins_with_the_span_of_then_and_by_default_is_an_hour_of_minutes(
    uow: MemoryUnitOfWork, since: datetime | None, before: datetime | None, ages: list[int]
) -> None:
    uow.stats.counts = minutes(61, 60, 59, 1, 0)
    found = await service.series(uow, STAFF, Span.MINUTE, NOW + SECOND, since=since, before=before)
    assert [tally.begins_at for tally in found] == [count.begins_at for count in minutes(*ages)]


async def test_a_series_has_four_hundred_spans_at_most(uow: MemoryUnitOfWork) -> None:
    since = Span.DAY.begin(NOW)
    await service.series(uow, STAFF, Span.DAY, NOW, since=since, before=since + timedelta(days=400))
    with pytest.raises(Malformed) as refused:
        await service.series(uow, STAFF, Span.DAY, NOW, since=since, before=since + timedelta(days=400) + SECOND)
    assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [("/since", "out_of_range")]


async def test_of_what_is_not_kept_nothing_is_shown(uow: MemoryUnitOfWork) -> None:
    week = 7 * 24 * 60
    uow.stats.counts = minutes(week + 1, week)
    found = await service.series(
        uow, STAFF, Span.MINUTE, NOW, since=NOW - timedelta(minutes=week + 5), before=NOW - timedelta(minutes=week - 5)
    )
    assert [tally.begins_at for tally in found] == [count.begins_at for count in minutes(week)]
