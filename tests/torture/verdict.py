"""The comparison of the four records. Pure: records in, faults out; no fault at all is the only good verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tests.torture.records import Change, Joined, Log, OrderRow, Publication, Records, Row, Stream, Told


class Kind(StrEnum):
    LOST = "lost"
    DOUBLED = "doubled"
    DISORDERED = "disordered"
    PHANTOM = "phantom"
    UNRECOVERED = "unrecovered"
    UNBALANCED = "unbalanced"
    GHOST = "ghost"


@dataclass(frozen=True, slots=True)
class Fault:
    """`hop` names the two records that disagree; `detail` has the ids and offsets to look for."""

    kind: Kind
    hop: str
    detail: str


def judge(records: Records) -> list[Fault]:
    """Every disagreement between the records.

    What has to hold: each 2xx stands in the orders; each committed change stands exactly once in each of its
    streams, versions ascending; a stream has nothing else; each client's log runs without a gap or a repetition from
    where it joined to the head, in one epoch, and its last word on each order is the order's row; pieces taken and
    pieces left add up; what was counted of the orders is how many there are, and what was told of the stock is what is
    left.
    """
    orders = {row.id: row for row in records.orders}
    rows: Mapping[str, Row] = {**orders, **{row.id: row for row in records.payments}}
    streams = {stream.channel: stream for stream in records.streams}
    return [
        *_replies_against_orders(records, orders),
        *_streams_against_rows(streams, rows),
        *_logs_against_streams(records, streams, rows),
        *_stock_against_orders(records),
        *_counts_against_orders(records),
    ]


def count(faults: list[Fault]) -> dict[Kind, int]:
    """How many of each kind, zeros included."""
    found = Counter(fault.kind for fault in faults)
    return {kind: found[kind] for kind in Kind}


def _replies_against_orders(records: Records, orders: Mapping[str, OrderRow]) -> Iterator[Fault]:
    hop = "replies > orders"
    claimed: dict[Change, str] = {}
    for reply in records.replies:
        order_id, version = reply.change
        row = orders.get(order_id)
        if row is None:
            yield Fault(Kind.LOST, hop, f"{reply.action} {reply.key} was answered, order {order_id} does not exist")
        elif row.version < version:
            detail = (
                f"{reply.action} {reply.key} was answered with version {version} of {order_id}, row has {row.version}"
            )
            yield Fault(Kind.LOST, hop, detail)
        other = claimed.setdefault(reply.change, reply.key)
        if other != reply.key:
            detail = f"version {version} of order {order_id} answers both {other} and {reply.key}"
            yield Fault(Kind.DOUBLED, hop, detail)
    for key in records.unanswered:
        yield Fault(Kind.LOST, hop, f"request {key} was repeated to the end and never answered")
    for order_id in orders:
        # Each request was repeated under its key until it was answered: an order without an answer is one too many.
        if Change(order_id, 1) not in claimed:
            yield Fault(Kind.DOUBLED, hop, f"order {order_id} exists, no request was answered with it")


def _streams_against_rows(streams: Mapping[str, Stream], rows: Mapping[str, Row]) -> Iterator[Fault]:
    expected: dict[str, set[Change]] = {}
    for row in rows.values():
        changes = [Change(row.id, version) for version in range(1, row.version + 1)]
        for channel in row.channels:
            expected.setdefault(channel, set()).update(changes)
    event_of: dict[Change, str] = {}
    for stream in streams.values():
        yield from _offsets(stream)
        yield from _stream(stream, expected.get(stream.channel, set()), rows, event_of)
    for channel in expected.keys() - streams.keys():
        yield Fault(Kind.LOST, "orders > streams", f"stream {channel} does not exist")


def _offsets(stream: Stream) -> Iterator[Fault]:
    hop, at = "streams", 0
    for publication in stream.publications:
        if publication.offset > at + 1:
            yield Fault(Kind.LOST, hop, f"{stream.channel} has no offsets {at + 1}..{publication.offset - 1}")
        elif publication.offset == at:
            yield Fault(Kind.DOUBLED, hop, f"{stream.channel} has offset {at} twice")
        elif publication.offset < at:
            yield Fault(Kind.DISORDERED, hop, f"{stream.channel} has offset {publication.offset} after {at}")
        at = publication.offset
    if at != stream.top:
        yield Fault(Kind.LOST, hop, f"{stream.channel} ends at {at}, its head is {stream.top}")


def _stream(
    stream: Stream, expected: set[Change], rows: Mapping[str, Row], event_of: dict[Change, str]
) -> Iterator[Fault]:
    hop, channel = "orders > streams", stream.channel
    seen: set[Change] = set()
    latest: dict[str, int] = {}
    for publication in stream.publications:
        change, where = publication.change, f"{channel}@{publication.offset}"
        name = f"version {change.version} of {change.id}"
        if change not in expected:
            yield Fault(Kind.PHANTOM, hop, f"{where} tells {name}: never committed, or not for this channel")
        elif change in seen:
            yield Fault(Kind.DOUBLED, hop, f"{where} tells {name} again")
        elif change.version < latest.get(change.id, 0):
            yield Fault(Kind.DISORDERED, hop, f"{where} tells {name} after version {latest[change.id]}")
        elif event_of.setdefault(change, publication.event_id) != publication.event_id:
            yield Fault(Kind.DOUBLED, hop, f"{where} tells {name} by a second event {publication.event_id}")
        elif change.version == rows[change.id].version and publication.status != rows[change.id].status:
            row = rows[change.id]
            yield Fault(Kind.PHANTOM, hop, f"{where} tells {name} as {publication.status}, the row is {row.status}")
        seen.add(change)
        latest[change.id] = max(change.version, latest.get(change.id, 0))
    for change in sorted(expected - seen):
        yield Fault(Kind.LOST, hop, f"{channel} lacks version {change.version} of {change.id}")


def _logs_against_streams(records: Records, streams: Mapping[str, Stream], rows: Mapping[str, Row]) -> Iterator[Fault]:
    by_offset = {
        channel: {publication.offset: publication for publication in stream.publications}
        for channel, stream in streams.items()
    }
    for log in records.logs:
        stream = streams.get(log.channel, Stream(log.channel, "", 0, ()))
        reading = _Reading(log, stream, by_offset.get(log.channel, {}))
        yield from reading.faults()
        yield from _last_words(log, rows)


class _Reading:
    """One pass over one log: where the client is, and what it heard that it should not have."""

    def __init__(self, log: Log, stream: Stream, published: Mapping[int, Publication]) -> None:
        self._log = log
        self._stream = stream
        self._published = published
        self._at: int | None = None
        self._heard: set[int] = set()

    def faults(self) -> Iterator[Fault]:
        for entry in self._log.entries:
            match entry:
                case Joined():
                    yield from self._joined(entry)
                case Publication():
                    yield from self._hears(entry)
                case Told():
                    yield self._fault(Kind.UNRECOVERED, f"was told {entry.code} at offset {self._at}")
        if self._at is None:
            yield self._fault(Kind.UNRECOVERED, "never joined")
        elif self._at < self._stream.top:
            yield self._fault(Kind.LOST, f"ends at offset {self._at}, the head is {self._stream.top}")

    def _joined(self, entry: Joined) -> Iterator[Fault]:
        if entry.epoch and self._stream.epoch and entry.epoch != self._stream.epoch:
            yield self._fault(Kind.UNRECOVERED, f"joined in epoch {entry.epoch}, the stream's is {self._stream.epoch}")
        if self._at is None:
            self._at = entry.offset
        elif not entry.recovered:
            yield self._fault(Kind.UNRECOVERED, f"was at offset {self._at}, sent to {entry.offset} without recovery")
            self._at = entry.offset

    def _hears(self, entry: Publication) -> Iterator[Fault]:
        at, offset = self._at, entry.offset
        if at is None:
            yield self._fault(Kind.PHANTOM, f"heard offset {offset} before it joined")
        elif offset in self._heard:
            yield self._fault(Kind.DOUBLED, f"heard offset {offset} again")
        elif offset <= at:
            yield self._fault(Kind.DISORDERED, f"heard offset {offset} when at {at}")
        elif offset > at + 1:
            yield self._fault(Kind.LOST, f"did not hear offsets {at + 1}..{offset - 1}")
        original = self._published.get(offset)
        if original != entry:
            written = "nothing" if original is None else f"event {original.event_id}"
            detail = f"heard event {entry.event_id} at offset {offset}, where the stream has {written}"
            yield self._fault(Kind.PHANTOM, detail)
        self._heard.add(offset)
        self._at = offset if at is None else max(at, offset)

    def _fault(self, kind: Kind, what: str) -> Fault:
        return Fault(kind, "streams > clients", f"client {self._log.client} on {self._log.channel} {what}")


def _last_words(log: Log, rows: Mapping[str, Row]) -> Iterator[Fault]:
    """The state that a client arrived at, by itself: the newest version it heard of each order and payment."""
    state: dict[str, Publication] = {}
    for entry in log.entries:
        if isinstance(entry, Publication):
            known = state.get(entry.change.id)
            if known is None or known.change.version < entry.change.version:
                state[entry.change.id] = entry
    for name, last in state.items():
        row = rows.get(name)
        if row is None or (row.version, row.status) != (last.change.version, last.status):
            stands = "nothing" if row is None else f"version {row.version} ({row.status})"
            what = f"believes version {last.change.version} ({last.status}) of {name}, there is {stands}"
            yield Fault(Kind.UNRECOVERED, "orders > clients", f"client {log.client} on {log.channel} {what}")


def _counts_against_orders(records: Records) -> Iterator[Fault]:
    there = Counter(row.status for row in records.orders)
    for status in sorted(there.keys() | records.counted.keys()):
        if there[status] != records.counted.get(status, 0):
            detail = f"{there[status]} orders are {status}, the last count told {records.counted.get(status, 0)}"
            yield Fault(Kind.UNBALANCED, "orders > counts", detail)


def _stock_against_orders(records: Records) -> Iterator[Fault]:
    taken: Counter[str] = Counter()
    for row in records.orders:
        if row.status not in {"cancelled", "expired"}:
            for product_id, quantity in row.quantities:
                taken[product_id] += quantity
    for stock in records.stock:
        if stock.before - taken[stock.product_id] != stock.after:
            detail = f"product {stock.product_id}: {stock.before} - {taken[stock.product_id]} taken, {stock.after} left"
            yield Fault(Kind.UNBALANCED, "orders > stock", detail)
        if stock.told not in {None, stock.after}:
            detail = f"product {stock.product_id}: {stock.after} left, the last that was told is {stock.told}"
            yield Fault(Kind.UNBALANCED, "stock > told", detail)
