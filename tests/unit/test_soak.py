"""Would a soak notice? What grows, and what a client should not have heard."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.figures import Figures, grown
from tests.soak.hearing import Hearing
from tests.torture.records import Change, Joined, Log, LogEntry, Publication, Told

MIB = 1024 * 1024
FLAT = Figures(memory=100 * MIB, descriptors=40, tasks=20, outbox=0)


@pytest.mark.parametrize(
    ("what", "step"),
    [("memory", 5 * MIB), ("descriptors", 4), ("tasks", 4), ("outbox", 1)],
    ids=lambda value: str(value),
)
def test_what_grows_with_every_round_is_named(what: str, step: float) -> None:
    rests = [replace(FLAT, **{what: getattr(FLAT, what) + number * step}) for number in range(6)]
    [found] = grown(rests)
    assert found.startswith(f"{what}: ")


def test_warming_up_and_an_allocators_moods_are_no_growth() -> None:
    memory = [60, 100, 104, 99, 103, 102]
    assert list(grown([replace(FLAT, memory=each * MIB) for each in memory])) == []


def test_too_short_a_run_proves_nothing() -> None:
    with pytest.raises(ValueError, match="too few"):
        list(grown([FLAT, FLAT]))


def heard(*entries: LogEntry) -> list[Log]:
    return [Log("c", "feed", entries)]


def pub(offset: int) -> Publication:
    return Publication(offset, "", Change("", 1), "")


def test_a_gapless_hearing_has_no_fault_over_pieces_and_recoveries() -> None:
    hearing = Hearing()
    pieces = [heard(Joined(4, "e", None), pub(5)), heard(Joined(9, "e", True), pub(6), pub(7))]
    assert [fault for piece in pieces for fault in hearing.check(piece)] == []
    assert hearing.publications == 3


@pytest.mark.parametrize(
    "entries",
    [(pub(6),), (pub(4),), (Joined(9, "e", False),), (Told(2500),)],
    ids=["gap", "double", "not recovered", "told to reload"],
)
def test_what_a_client_must_not_hear_is_named(entries: tuple[LogEntry, ...]) -> None:
    hearing = Hearing()
    assert list(hearing.check(heard(Joined(3, "e", None), pub(4)))) == []
    assert len(list(hearing.check(heard(*entries)))) == 1
