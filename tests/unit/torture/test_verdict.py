"""The judge of the torture run, itself judged: silent on what a correct system records, loud on each planted fault."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.torture.plant import PLANTS, Plant, selfcheck
from tests.torture.records import (
    Change,
    Joined,
    Log,
    LogEntry,
    OrderRow,
    PaymentRow,
    Publication,
    Records,
    Reply,
    StockRow,
    Stream,
    order_channel,
)
from tests.torture.verdict import Kind, count, judge

NEXT = {"place": "placed", "pay": "paid", "ship": "shipped", "cancel": "cancelled"}


def correct_records(seed: int, orders: int = 30) -> Records:
    """What a system without faults leaves behind: orders changed in a random interleaving, clients that drop, resume
    and join at any moment."""
    rng = random.Random(seed)
    paths = {f"order-{n}": rng.choice([["place"], ["place", "pay"], ["place", "pay", "ship"], ["place", "cancel"]])
             for n in range(orders)}  # fmt: skip
    rows = {
        order_id: OrderRow(order_id, f"customer-{rng.randrange(4)}", NEXT[path[-1]], len(path), (("tea", 2),))
        for order_id, path in paths.items()
    }
    steps = [order_id for order_id, path in paths.items() for _ in path]
    rng.shuffle(steps)
    streams: defaultdict[str, list[Publication]] = defaultdict(list)
    replies, payments, versions = [], list[PaymentRow](), dict.fromkeys(paths, 0)
    for step in steps:
        versions[step] += 1
        change, action = Change(step, versions[step]), paths[step][versions[step] - 1]
        if action == "pay":
            paid = PaymentRow(f"payment-{step}", step, "succeeded", 1)
            payments.append(paid)
            for channel in paid.channels:
                told = Publication(len(streams[channel]) + 1, f"event-{paid.id}", Change(paid.id, 1), paid.status)
                streams[channel].append(told)
        replies.append(Reply(f"key-{step}-{action}", action, change))
        for channel in rows[step].channels:
            event = f"event-{step}-{versions[step]}"
            streams[channel].append(Publication(len(streams[channel]) + 1, event, change, NEXT[action]))
    kept = [
        Stream(name, f"epoch-{name}", len(publications), tuple(publications)) for name, publications in streams.items()
    ]
    taken = sum(2 for row in rows.values() if row.status != "cancelled")
    logs = [_log(rng, f"client-{n}", stream) for stream in kept for n in range(2)]
    counted = Counter(row.status for row in rows.values())
    stock = [StockRow("tea", 1000, 1000 - taken, 1000 - taken)]
    return Records(replies, [], list(rows.values()), payments, counted, stock, kept, logs)


def _log(rng: random.Random, client: str, stream: Stream) -> Log:
    start = rng.randrange(stream.top // 3 + 1)
    entries: list[LogEntry] = [Joined(start, stream.epoch, recovered=None)]
    for publication in stream.publications[start:]:
        if rng.random() < 0.1:
            entries.append(Joined(publication.offset - 1, stream.epoch, recovered=True))
        entries.append(publication)
    return Log(client, stream.channel, tuple(entries))


@given(seed=st.integers(0, 2**32), orders=st.integers(0, 40))
def test_records_of_a_correct_system_have_no_fault(seed: int, orders: int) -> None:
    assert judge(correct_records(seed, orders)) == []


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_each_planted_fault_is_found_as_what_it_is(plant: Plant) -> None:
    for seed in range(20):
        faults = judge(plant.grow(correct_records(seed)))
        assert plant.kind in {fault.kind for fault in faults}


def test_every_kind_of_fault_has_a_plant() -> None:
    assert {plant.kind for plant in PLANTS} == set(Kind) - {Kind.GHOST}  # which are of the chat, see test_chat_records
    assert all(found for _, found in selfcheck(correct_records(7)))


def test_a_fault_names_the_order_and_the_offset() -> None:
    records = correct_records(1)
    feed = records.streams[0]
    victim = feed.publications[9]
    streams = [replace(feed, publications=feed.publications[:9] + feed.publications[10:]), *records.streams[1:]]

    details = [fault.detail for fault in judge(replace(records, streams=streams))]

    assert f"{feed.channel} has no offsets 10..10" in details
    assert f"{feed.channel} lacks version {victim.change.version} of {victim.change.id}" in details


def test_a_missing_stream_is_a_loss() -> None:
    records = correct_records(2)
    gone = order_channel(records.orders[0].id)
    streams = [stream for stream in records.streams if stream.channel != gone]

    assert count(judge(replace(records, streams=streams)))[Kind.LOST] > 0


def test_a_client_may_join_a_stream_before_its_first_event() -> None:
    records = correct_records(3)
    stream = records.streams[-1]
    log = Log("early", stream.channel, (Joined(0, "", recovered=None), *stream.publications))

    assert judge(replace(records, logs=[*records.logs, log])) == []
