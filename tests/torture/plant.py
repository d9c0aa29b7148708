"""Faults planted into records that had none: a comparison that does not find each of them proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from tests.torture.records import (
    ORDERS_FEED,
    Change,
    Joined,
    Log,
    LogEntry,
    OrderRow,
    Publication,
    Records,
    Stream,
    Told,
)
from tests.torture.verdict import Kind, judge

_T = TypeVar("_T")


class Barren(Exception):
    """The records are too short to plant this fault into."""


@dataclass(frozen=True, slots=True)
class Plant:
    """`grow` returns the records with one fault of `kind` in them; raises Barren."""

    kind: Kind
    name: str
    grow: Callable[[Records], Records]


def selfcheck(records: Records) -> list[tuple[Plant, bool]]:
    """Plant each fault, one at a time, into records that have none and say whether it was found."""
    return [(plant, _is_found(plant, records)) for plant in PLANTS]


def _is_found(plant: Plant, records: Records) -> bool:
    try:
        planted = plant.grow(records)
    except Barren:
        return False
    return any(fault.kind is plant.kind for fault in judge(planted))


def _order_never_stored(records: Records) -> Records:
    lost = records.replies[len(records.replies) // 2].change.id
    return replace(records, orders=[row for row in records.orders if row.id != lost])


def _answered_change_rolled_back(records: Records) -> Records:
    victim = _middle([reply for reply in records.replies if reply.action != "place"])
    rows = [
        replace(row, version=victim.change.version - 1) if row.id == victim.change.id else row for row in records.orders
    ]
    return replace(records, orders=rows)


def _request_never_answered(records: Records) -> Records:
    return replace(records, unanswered=["key-of-nobody"])


def _event_lost(records: Records) -> Records:
    return _with_feed(records, lambda publications: publications[:-1] if len(publications) > 1 else [])


def _event_lost_from_personal_channel(records: Records) -> Records:
    stream = _middle([stream for stream in records.streams if stream.channel.startswith("#") and stream.publications])
    kept = _numbered(stream.publications[1:])
    return _with_stream(records, replace(stream, publications=kept, top=len(kept)))


def _event_of_a_payment_lost(records: Records) -> Records:
    row = _middle(records.payments)
    stream = next(stream for stream in records.streams if stream.channel in row.channels)
    kept = _numbered([publication for publication in stream.publications if publication.change.id != row.id])
    return _with_stream(records, replace(stream, publications=kept, top=len(kept)))


def _offset_missing(records: Records) -> Records:
    feed = _feed(records)
    cut = len(feed.publications) // 2
    return _with_stream(records, replace(feed, publications=feed.publications[:cut] + feed.publications[cut + 1 :]))


def _client_missed_one(records: Records) -> Records:
    return _with_log(records, lambda heard: [*heard[: len(heard) // 2], *heard[len(heard) // 2 + 1 :]])


def _client_missed_the_last(records: Records) -> Records:
    return _with_log(records, lambda heard: heard[:-1])


def _retry_placed_twice(records: Records) -> Records:
    row = _middle(records.orders)
    return replace(records, orders=[*records.orders, replace(row, id="00000000-0000-4000-8000-000000000002")])


def _one_order_for_two_keys(records: Records) -> Records:
    return replace(records, replies=[*records.replies, replace(_middle(records.replies), key="another-key")])


def _event_doubled(records: Records) -> Records:
    return _with_feed(records, lambda publications: [*publications, publications[len(publications) // 2]])


def _client_heard_twice(records: Records) -> Records:
    return _with_log(records, lambda heard: [*heard[: len(heard) // 2 + 1], *heard[len(heard) // 2 :]])


def _versions_swapped(records: Records) -> Records:
    def swap(publications: Sequence[Publication]) -> Sequence[Publication]:
        order_id = _middle([p.change.id for p in publications if p.change.version > 1])
        at = [index for index, publication in enumerate(publications) if publication.change.id == order_id]
        swapped = list(publications)
        swapped[at[0]], swapped[at[1]] = swapped[at[1]], swapped[at[0]]
        return swapped

    return _with_feed(records, swap)


def _client_heard_swapped(records: Records) -> Records:
    def swap(heard: Sequence[LogEntry]) -> Sequence[LogEntry]:
        middle = len(heard) // 2
        return [*heard[: middle - 1], heard[middle], heard[middle - 1], *heard[middle + 1 :]]

    return _with_log(records, swap)


def _event_of_a_rolled_back_order(records: Records) -> Records:
    ghost = Publication(0, "ghost", Change("00000000-0000-4000-8000-000000000001", 1), "placed")
    return _with_feed(records, lambda publications: [*publications, ghost])


def _event_on_a_strangers_channel(records: Records) -> Records:
    row = _middle(records.orders)
    strangers = [s for s in records.streams if s.channel.startswith("#") and s.channel not in row.channels]
    leaked = next(p for p in _feed(records).publications if p.change.id == row.id)
    stream = _middle(strangers)
    publications = _numbered([*stream.publications, leaked])
    return _with_stream(records, replace(stream, publications=publications, top=len(publications)))


def _client_heard_what_nobody_published(records: Records) -> Records:
    def forge(heard: Sequence[LogEntry]) -> Sequence[LogEntry]:
        last = heard[-1]
        assert isinstance(last, Publication)
        return [*heard[:-1], replace(last, event_id="forged")]

    return _with_log(records, forge)


def _client_sent_away_without_recovery(records: Records) -> Records:
    def insert(heard: Sequence[LogEntry]) -> Sequence[LogEntry]:
        middle = len(heard) // 2
        before = heard[middle - 1]
        assert isinstance(before, Publication)
        return [*heard[:middle], Joined(before.offset, _feed(records).epoch, recovered=False), *heard[middle:]]

    return _with_log(records, insert)


def _client_told_to_reload(records: Records) -> Records:
    return _with_log(records, lambda heard: [*heard, Told(2500)])


def _epoch_changed(records: Records) -> Records:
    feed = _feed(records)
    return _with_stream(records, replace(feed, epoch=feed.epoch + "x"))


def _stale_picture(records: Records) -> Records:
    """A row moved on without an event, as a change made beside the outbox would."""
    last = _feed(records).publications[-1].change.id
    return replace(records, orders=[replace(r, version=r.version + 1) if r.id == last else r for r in records.orders])


def _piece_vanished(records: Records) -> Records:
    stock = _middle(records.stock)
    return replace(records, stock=[replace(s, after=s.after - 1) if s is stock else s for s in records.stock])


def _cancelled_without_giving_back(records: Records) -> Records:
    row: OrderRow = _middle([row for row in records.orders if row.status != "cancelled"])
    return replace(records, orders=[replace(r, status="cancelled") if r is row else r for r in records.orders])


def _counted_twice(records: Records) -> Records:
    status = _middle(sorted(records.counted))
    return replace(records, counted={**records.counted, status: records.counted[status] + 1})


def _stock_not_told(records: Records) -> Records:
    stock = _middle([stock for stock in records.stock if stock.told is not None])
    return replace(records, stock=[replace(s, told=s.after + 1) if s is stock else s for s in records.stock])


PLANTS = (
    Plant(Kind.LOST, "an answered order is not stored", _order_never_stored),
    Plant(Kind.LOST, "an answered change was rolled back", _answered_change_rolled_back),
    Plant(Kind.LOST, "a request is never answered", _request_never_answered),
    Plant(Kind.LOST, "the last event is not in the stream", _event_lost),
    Plant(Kind.LOST, "an event is missing on a personal channel", _event_lost_from_personal_channel),
    Plant(Kind.LOST, "an event of a payment is not in the stream", _event_of_a_payment_lost),
    Plant(Kind.LOST, "an offset is missing in a stream", _offset_missing),
    Plant(Kind.LOST, "a client missed one publication", _client_missed_one),
    Plant(Kind.LOST, "a client missed the last publication", _client_missed_the_last),
    Plant(Kind.DOUBLED, "a repeated request placed a second order", _retry_placed_twice),
    Plant(Kind.DOUBLED, "two requests were answered with one order", _one_order_for_two_keys),
    Plant(Kind.DOUBLED, "an event is in the stream twice", _event_doubled),
    Plant(Kind.DOUBLED, "a client heard a publication twice", _client_heard_twice),
    Plant(Kind.DISORDERED, "two versions are swapped in the stream", _versions_swapped),
    Plant(Kind.DISORDERED, "a client heard two publications swapped", _client_heard_swapped),
    Plant(Kind.PHANTOM, "an event of a rolled-back order", _event_of_a_rolled_back_order),
    Plant(Kind.PHANTOM, "an event on a stranger's channel", _event_on_a_strangers_channel),
    Plant(Kind.PHANTOM, "a client heard what nobody published", _client_heard_what_nobody_published),
    Plant(Kind.UNRECOVERED, "a client was not recovered", _client_sent_away_without_recovery),
    Plant(Kind.UNRECOVERED, "a client was told to reload", _client_told_to_reload),
    Plant(Kind.UNRECOVERED, "the epoch changed under a client", _epoch_changed),
    Plant(Kind.UNRECOVERED, "a client is left with a stale picture", _stale_picture),
    Plant(Kind.UNBALANCED, "a piece vanished from stock", _piece_vanished),
    Plant(Kind.UNBALANCED, "a cancelled order kept its pieces", _cancelled_without_giving_back),
    Plant(Kind.UNBALANCED, "an order was counted twice", _counted_twice),
    Plant(Kind.UNBALANCED, "what an order took from the stock was not told", _stock_not_told),
)


def _middle(items: Sequence[_T]) -> _T:
    if not items:
        raise Barren
    return items[len(items) // 2]


def _feed(records: Records) -> Stream:
    return next(stream for stream in records.streams if stream.channel == ORDERS_FEED)


def _numbered(publications: Sequence[Publication]) -> tuple[Publication, ...]:
    return tuple(replace(publication, offset=offset) for offset, publication in enumerate(publications, 1))


def _with_feed(records: Records, change: Callable[[Sequence[Publication]], Sequence[Publication]]) -> Records:
    """The feed with other publications, its offsets without a gap: only what they tell gives the fault away."""
    feed = _feed(records)
    publications = _numbered(change(feed.publications))
    return _with_stream(records, replace(feed, publications=publications, top=len(publications)))


def _with_stream(records: Records, changed: Stream) -> Records:
    return replace(records, streams=[changed if s.channel == changed.channel else s for s in records.streams])


def _with_log(records: Records, change: Callable[[Sequence[LogEntry]], Sequence[LogEntry]]) -> Records:
    """The longest run of publications that one feed client heard, changed."""
    log = max((log for log in records.logs if log.channel == ORDERS_FEED), key=lambda log: len(log.entries))
    start, end = max(_runs(log), key=lambda run: run[1] - run[0], default=(0, 0))
    if end - start < 4:
        raise Barren
    entries = (*log.entries[:start], *change(log.entries[start:end]), *log.entries[end:])
    changed = Log(log.client, log.channel, tuple(entries))
    return replace(records, logs=[changed if other is log else other for other in records.logs])


def _runs(log: Log) -> list[tuple[int, int]]:
    joins = [index for index, entry in enumerate(log.entries) if not isinstance(entry, Publication)]
    return [(start + 1, end) for start, end in pairwise([*joins, len(log.entries)])]
