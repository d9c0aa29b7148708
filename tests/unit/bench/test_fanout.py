"""What the benchmarks of the fan-out and of the throughput say, hear and count."""

from __future__ import annotations

import random
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.fanout.compare import medians
from bench.fanout.crowd import Sampled, looked_into
from bench.fanout.dialects import dialect
from bench.fanout.measure import Run
from bench.fanout.publisher import document
from bench.throughput import Result as Throughput
from bench.throughput import calls

RUN = Run("a", 50, 100, 1e5, 5e4, 0, 0.5, 8.0, 0.1, 5.0, 10.0)


def test_every_document_is_as_long_as_every_other() -> None:
    assert len(document(1.0e9)) == len(document(2.5e9 + 0.123456))
    assert orjson.loads(document(1_700_000_000.25))["at"] == 1_700_000_000_250_000


@given(st.lists(st.integers(10**15, 4 * 10**15), max_size=20), st.integers(1, 40), st.integers())
def test_every_publication_is_found_once_however_the_network_cuts(moments: list[int], most: int, seed: int) -> None:
    stream = b"".join(b'\x81\x70{"push":{"pub":{"data":{"at":%d,"text":"x"}}}}' % moment for moment in moments)
    cuts, line, found = random.Random(seed), Sampled(), []
    while stream:
        size = cuts.randint(1, most)
        found += looked_into(line, stream[:size])
        stream = stream[size:]
    assert [round(moment * 1e6) for moment in found] == moments
    assert line.publications == len(moments)


def test_a_server_is_told_to_publish_in_its_own_words() -> None:
    said = dialect("centrifuge", "t").publish(0, b'{"at":1}')
    assert orjson.loads(said) == {"id": 2, "publish": {"channel": "bench:feed", "data": {"at": 1}}}
    kept = orjson.loads(dialect("centrifuge-kept", "t").publish(0, b"{}"))
    assert kept["publish"]["channel"] == "kept:feed"
    assert dialect("engine.io", "").publish(0, b'{"at":1}') == b'42["publish",{"at":1}]'
    assert dialect("plain", "").publish(0, b'{"at":1}') == b'{"at":1}'


def test_the_median_of_each_number_is_taken_by_itself_and_the_worst_loss_is_kept() -> None:
    runs = [
        replace(RUN, p50=p50, cpu_per_million=cpu, lost=lost) for p50, cpu, lost in ((1, 9, 0), (2, 7, 3), (3, 8, 0))
    ]
    other = replace(RUN, server="b")
    assert medians([runs[0], other, *runs[1:]]) == [replace(RUN, p50=2, cpu_per_million=8, lost=3), other]


def test_one_that_loses_or_falls_behind_does_not_keep_up() -> None:
    assert RUN.keeps_up
    assert not replace(RUN, lost=1).keeps_up
    assert not replace(RUN, per_second=4e4).keeps_up


@pytest.mark.parametrize(
    ("lost", "first", "last", "is_good"),
    [
        (0, 20.0, 22.0, True),
        (0, 20.0, 49.0, True),  # thirty milliseconds more are the machine's
        (0, 60.0, 91.0, False),
        (1, 20.0, 20.0, False),
        (0, None, None, True),
    ],
)
def test_a_throughput_is_good_with_nothing_lost_and_a_delay_that_stays(
    lost: int, first: float | None, last: float | None, is_good: bool
) -> None:
    assert Throughput("events", 3000.0, 3000, lost, first, last, 0.5).is_good is is_good


def test_what_backends_are_measured_with_is_what_the_server_api_takes() -> None:
    one, passing, batch = [orjson.loads(each.body) for each in calls()]
    assert one["channel"] == batch["commands"][99]["publish"]["channel"] != passing["channel"]
    assert [each.publications for each in calls()] == [1, 1, 100]
