"""The judge of the chat: silent on what a correct system leaves, loud on each fault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.torture.chat_records import ChatRecords, Heard, Hearing, Words, judge_chat
from tests.torture.records import Joined
from tests.torture.verdict import Kind

WORDS = [Words("a", 0, 1), Words("b", 0, 1), Words("a", 1, 2), Words("a", 1, 3), Words("a", 2, 4)]
STREAM = [Heard(offset, words) for offset, words in enumerate(WORDS, 1)]
LATE = [*STREAM, Heard(6, Words("b", 0, 0))]  # an attempt that nobody waited for any more
GOOD = ChatRecords(
    confirmed=[WORDS[0], WORDS[1], WORDS[3], WORDS[4]],
    stream=STREAM,
    top=5,
    hearings=[
        Hearing("a", [Joined(0, "e", None), *STREAM[:2], Joined(2, "e", True), *STREAM[2:]]),
        Hearing("b", [Joined(2, "e", None), *STREAM[2:]]),
    ],
    connected=frozenset({"x", "y"}),
    present=frozenset({"x", "y"}),
)


def heard(*entries: Joined | Heard) -> ChatRecords:
    return replace(GOOD, hearings=[Hearing("a", entries)])


def test_a_correct_chat_has_no_fault() -> None:
    assert judge_chat(GOOD) == []
    assert judge_chat(replace(GOOD, stream=LATE, top=6, hearings=[])) == []


@pytest.mark.parametrize(
    ("records", "kind"),
    [
        (replace(GOOD, confirmed=[*GOOD.confirmed, Words("c", 0, 1)]), Kind.LOST),
        (replace(GOOD, stream=[*STREAM, Heard(6, WORDS[0])], top=6, hearings=[]), Kind.DOUBLED),
        (replace(GOOD, stream=STREAM[:4] + [Heard(6, WORDS[4])], top=6, hearings=[]), Kind.LOST),
        (
            replace(
                GOOD,
                stream=[Heard(1, WORDS[4]), Heard(2, WORDS[0])],
                confirmed=[WORDS[0], WORDS[4]],
                top=2,
                hearings=[],
            ),
            Kind.DISORDERED,
        ),
        (heard(Joined(0, "e", None), *STREAM[:4]), Kind.LOST),
        (heard(Joined(0, "e", None), *STREAM[:2], *STREAM[3:]), Kind.LOST),
        (heard(Joined(0, "e", None), *STREAM, STREAM[4]), Kind.DOUBLED),
        (heard(Joined(0, "e", None), *STREAM[:3], Joined(5, "e", False)), Kind.UNRECOVERED),
        (heard(Joined(4, "e", None), Heard(5, WORDS[0])), Kind.PHANTOM),
        (replace(GOOD, present=frozenset({"x", "y", "z"})), Kind.GHOST),
        (replace(GOOD, present=frozenset({"x"})), Kind.LOST),
    ],
)
def test_each_fault_is_found(records: ChatRecords, kind: Kind) -> None:
    assert kind in {fault.kind for fault in judge_chat(records)}
