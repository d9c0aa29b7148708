from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realtime.protocol.fossil import delta
from tests.fossil import applied

ROOT = Path(__file__).resolve().parents[4]
WORDS = [b"", b"a", b"ab" * 4, b"0123456789abcde", b"0123456789abcdef", b"0123456789abcdefg", b"\x00" * 40, bytes(90)]
# Of one to four bytes; neighbours share all bytes but the last, and some their last alone.
CHARACTERS = "aéèà漢漣☃😀😁𝄞"

words = st.one_of(st.sampled_from(WORDS), st.binary(max_size=40))


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A source and what a few removals, moves and insertions leave of it."""
    parts = draw(st.lists(words, max_size=12))
    source = b"".join(parts)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(parts)))
        parts[at : at + draw(st.integers(0, 3))] = draw(st.lists(st.one_of(words, st.just(source[5:70])), max_size=2))
    return source, b"".join(draw(st.permutations(parts)) if draw(st.booleans()) else parts)


@st.composite
def edited_text(draw: st.DrawFn) -> tuple[str, str]:
    """A text and the same with some characters put in the place of others."""
    source = draw(st.text(CHARACTERS, max_size=8)) * draw(st.integers(1, 12)) + draw(st.text(CHARACTERS, max_size=60))
    target = list(source)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(target)))
        target[at : at + draw(st.integers(0, 3))] = draw(st.text(CHARACTERS, max_size=3))
    return source, "".join(target)


def _delta(source: bytes, target: bytes, *, is_text: bool = False) -> bytes:
    text = delta(source, target, is_text=is_text)
    assert text is not None
    assert applied(source, text) == target
    return text


def test_the_text_is_an_insert_a_copy_and_an_insert() -> None:
    source = b'{"n":2,"text":"base message content updated"}'
    target = b'{"n":3,"text":"base message content updated again"}'
    assert delta(source, target) == b'o\n6:{"n":3a@6,8: again"}3zSkmB;'


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (b"", b""),
        (b"a" * 100, b""),
        (b"", b"a" * 100),
        (b"x" * 13, b"x" * 13),
        (bytes(range(100)), bytes(range(100, 200))),
        (b'{"count":1}', b'{"count":2}'),
    ],
)
def test_there_is_none_that_is_not_shorter(source: bytes, target: bytes) -> None:
    assert delta(source, target) is None


@given(edited(), st.booleans())
def test_the_target_comes_of_it_in_fewer_bytes(pair: tuple[bytes, bytes], is_text: bool) -> None:
    source, target = pair
    text = delta(source, target, is_text=is_text)
    assert text is None or (len(text) < len(target) and applied(source, text) == target)


@pytest.mark.parametrize("length", [15, 16, 17, 31, 32, 33, 63, 64, 65, 4095, 4096, 65537])
def test_equal_documents_are_one_copy(length: int) -> None:
    document = bytes(at * at % 251 for at in range(length))
    assert _delta(document, document).count(b"@") == 1


@pytest.mark.parametrize("at", [0, 1, 15, 16, 17, 500, 983, 999])
@pytest.mark.parametrize("new", [b"", b"!", b"!" * 16])
def test_a_change_anywhere_costs_what_is_new(at: int, new: bytes) -> None:
    source = b"".join(b"%d," % number for number in range(1000))[:1000]
    target = source[:at] + new + source[at + 1 :]
    assert len(_delta(source, target)) <= len(new) + 24


def test_what_has_moved_is_copied() -> None:
    parts = [b"".join(b"%d " % (number * number) for number in range(start, start + 40)) for start in (1, 101, 201)]
    assert len(_delta(b"".join(parts), b"".join(reversed(parts)))) < 36


def test_a_change_in_every_record_of_a_list_costs_no_more_than_the_changes() -> None:
    """Each record looks like all others: the copies have to go on where they left off."""
    source, target = (
        b"[%b]" % b",".join(b'{"line":%d,"product":"mug","price":%d,"currency":"EUR"}' % (n, n + more) for n in lines)
        for lines, more in ((range(1000, 1100), 500), (range(1000, 1100), 700))
    )
    assert len(_delta(source, target)) < 100 * len(b"3:777b@000,")


def test_in_a_run_of_equal_blocks_the_longest_copy_is_found() -> None:
    before = bytes(range(256)) * 2
    assert len(_delta(before + b"a" * 1000, b"b" + b"a" * 1000 + b"c")) < 40


def test_one_block_is_enough_at_the_very_end() -> None:
    assert _delta(b"0123456789abcdef" + b"-" * 16, b"what is new, 0123456789abcdef").count(b"@") == 1


@pytest.mark.parametrize("distance", [600, 601, 1000, 1001, 3000, 3001, 8000, 8001])
def test_a_long_match_is_found_in_full_however_far_it_is(distance: int) -> None:
    known = b"".join(b"%d " % (number * number) for number in range(200, 400))
    new = b"".join(b"%d\n" % (number * number) for number in range(10_000, 11_000))
    target = new[:distance] + known + b"\n"
    assert len(_delta(known, target)) < distance + 24


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (b"a" * 300_000, b"b" + b"a" * 200_000),
        (b"a" * 300_000, (b"a" * 16 + b"b") * 15_000),
        ((b"a" * 15 + b"b") * 20_000, b"x" + (b"a" * 15 + b"bc") * 15_000),
        (b"b" + b"a" * 300_000, b"x" + (b"b" + b"a" * 15) * 15_000),
        (b"b" * 16 + b"a" * 300_000, b"x" + b"b" * 300_000 + b"y"),
        (b"a" * 300_000, b"x" + (b"a" * 15 + b"b") * 20_000),
    ],
)
@pytest.mark.parametrize("is_text", [False, True])
@pytest.mark.timeout(15)
def test_repetition_does_not_make_it_slow(source: bytes, target: bytes, is_text: bool) -> None:
    """Each of these is quadratic for a search without bounds. This one takes half a second."""
    text = delta(source, target, is_text=is_text)
    assert text is None or applied(source, text) == target


def test_it_does_not_depend_on_the_interpreters_hashes() -> None:
    program = (
        "import random; from realtime.protocol.fossil import delta; draw = random.Random(1);"
        "source, target = (bytes(draw.choices(b'ab', k=4000)) for _ in 'st'); print(delta(source, target))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert b"@" in said[0]


@pytest.mark.parametrize(("old", "new"), [("é", "è"), ("漢", "漣"), ("😀", "😁"), ("é", "😩")])
def test_no_character_is_cut_in_a_text(old: str, new: str) -> None:
    source, target = (f"{'before ' * 5}{character}{' after' * 5}".encode() for character in (old, new))
    text = _delta(source, target, is_text=True)
    assert new in text.decode()


def test_whole_characters_are_copied() -> None:
    source, target = ("漢字" * 20 + character + "仮名" * 20 for character in "漢漣")
    assert len(_delta(source.encode(), target.encode(), is_text=True)) < 28


def test_bytes_are_copied_up_to_the_first_that_differs() -> None:
    """That is why a text has to say that it is one."""
    source, target = (("漢字" * 20 + character + "仮名" * 20).encode() for character in "漢漣")
    with pytest.raises(UnicodeDecodeError):
        _delta(source, target).decode()


@given(edited_text())
@example(("漢" * 40, "漣" + "漢" * 40))
@example(("é" * 40, "à" * 3 + "é" * 20 + "è" + "é" * 20))
def test_the_delta_of_a_text_is_text(pair: tuple[str, str]) -> None:
    source, target = (text.encode() for text in pair)
    text = delta(source, target, is_text=True)
    if text is not None:
        text.decode()
        assert applied(source, text) == target
