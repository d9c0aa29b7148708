"""Our deltas and those of the JavaScript library, on the same pairs of documents: each reads what the other wrote."""

from __future__ import annotations

import subprocess
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from realtime.protocol.fossil import delta
from tests.fossil import applied

SCRIPT = Path(__file__).parent / "js" / "fossil.mjs"
WORDS = ("pending", "shipped", "gift", "Zürich", "東京", "naïve", "blue", "wrap", "😀", '"quoted"')

Json = dict[str, Any]
Edit = Callable[[Random, Json], None]


@dataclass(frozen=True)
class Change:
    """Two documents, and our delta between them."""

    source: bytes
    target: bytes
    delta: bytes


@dataclass(frozen=True)
class Answer:
    """What the library says to a change: the target that our delta gave it, and its own delta."""

    target: bytes
    delta: bytes


class Library:
    def __init__(self, node: Path) -> None:
        self._node = node

    def answers(self, changes: list[Change]) -> list[Answer]:
        lines = [orjson.dumps({"source": _base64(change.source), "delta": _base64(change.delta)}) for change in changes]
        said = subprocess.run([self._node, SCRIPT], input=b"\n".join(lines), capture_output=True, check=True).stdout
        answers = [orjson.loads(line) for line in said.splitlines()]
        return [Answer(b64decode(answer["target"]), b64decode(answer["delta"])) for answer in answers]


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


@pytest.fixture
def library(node: Path, node_modules: Path) -> Library:
    return Library(node)


def _line(draw: Random) -> Json:
    price = {"amount": draw.randint(100, 99_999), "currency": "EUR"}
    return {"id": f"{draw.getrandbits(64):016x}", "product": draw.choice(WORDS), "quantity": 1, "price": price}


def _order(draw: Random, length: int) -> Json:
    lines = [_line(draw) for _ in range(length)]
    note = " ".join(draw.choices(WORDS, k=8))
    return {"id": f"{draw.getrandbits(128):032x}", "version": 1, "status": "pending", "lines": lines, "note": note}


def _ships(draw: Random, order: Json) -> None:
    order.update(status="shipped", shipped_at=f"2026-01-01T00:00:{draw.randint(10, 59)}Z")


def _changes_prices(draw: Random, order: Json) -> None:
    for line in order["lines"]:
        line["price"]["amount"] = draw.randint(100, 99_999)


def _changes_some_quantities(draw: Random, order: Json) -> None:
    for line in order["lines"][:: draw.randint(2, 5)]:
        line["quantity"] = draw.randint(1, 200)


def _adds_a_line(draw: Random, order: Json) -> None:
    order["lines"].insert(draw.randint(0, len(order["lines"])), _line(draw))


def _drops_lines(draw: Random, order: Json) -> None:
    del order["lines"][draw.randint(0, 3) :: 4]


def _sorts_lines(draw: Random, order: Json) -> None:
    order["lines"].sort(key=lambda line: line["price"]["amount"])


def _rewords_the_note(draw: Random, order: Json) -> None:
    order["note"] = " ".join(draw.choices(WORDS, k=8))


EDITS: tuple[Edit, ...] = (
    _ships,
    _changes_prices,
    _changes_some_quantities,
    _adds_a_line,
    _drops_lines,
    _sorts_lines,
    _rewords_the_note,
)


def _versions(draw: Random, length: int, edit: Edit) -> tuple[bytes, bytes]:
    """An order before and after."""
    order = _order(draw, length)
    source = orjson.dumps(order)
    order["version"] += 1
    edit(draw, order)
    return source, orjson.dumps(order)


def _scrambled(draw: Random) -> tuple[bytes, bytes]:
    """Bytes of few kinds, so that there is much repetition, and pieces of them in another order."""
    source = bytes(draw.choices(b"ab", weights=(1, 30), k=draw.randint(0, 400)))
    pieces = [source[(at := draw.randint(0, len(source))) : at + draw.randint(0, 90)] for _ in range(9)]
    return source, b"\xff".join(pieces)


def _changes(pairs: Iterable[tuple[bytes, bytes]], *, is_text: bool) -> list[Change]:
    """Those of the pairs that have a delta."""
    deltas = ((source, target, delta(source, target, is_text=is_text)) for source, target in pairs)
    return [Change(source, target, text) for source, target, text in deltas if text is not None]


def _orders() -> list[Change]:
    draw = Random(1)
    pairs = [_versions(draw, length, edit) for length, edit, _ in product((0, 1, 3, 10, 60), EDITS, range(5))]
    return _changes(pairs, is_text=True)


def _scrambles() -> list[Change]:
    draw = Random(2)
    return _changes([_scrambled(draw) for _ in range(400)], is_text=False)


@pytest.mark.parametrize("made", [_orders, _scrambles])
def test_each_reads_what_the_other_wrote(library: Library, made: Callable[[], list[Change]]) -> None:
    changes = made()
    assert len(changes) > 150

    answers = library.answers(changes)

    assert [answer.target for answer in answers] == [change.target for change in changes]
    for change, answer in zip(changes, answers, strict=True):
        assert applied(change.source, answer.delta) == change.target


def test_ours_are_as_short_as_the_librarys(library: Library) -> None:
    changes = _orders()

    theirs = sum(len(answer.delta) for answer in library.answers(changes))

    assert sum(len(change.delta) for change in changes) <= theirs
