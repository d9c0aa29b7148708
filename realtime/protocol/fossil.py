"""Deltas in the fossil format: what makes the next document of one that the client has.

A delta is `<length of the target>\\n`, then copies `<length>@<offset in the source>,` and inserts `<length>:<bytes>` in
the order of the target, then `<checksum>;`. Numbers are in base 64, the highest digit first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_BLOCK: Final = 16  # bytes that have to be the same before anything between the documents' ends is a match
# In documents below 16 MiB a short copy is at most 7 bytes of text, and the head of the insert that it splits off 5.
_WORTH: Final = 12
_REACH: Final = 256  # bytes after the last copy in which the source may go on as the target does
_PATIENCE: Final = 512  # blocks looked up in vain before the steps get longer


# A tuple, because it is made in a third of the time of a dataclass, once for each match.
class _Copy(NamedTuple):
    """`length` bytes that the target has at `at` and the source at `offset`."""

    at: int
    length: int
    offset: int


def delta(source: bytes, target: bytes, *, is_text: bool = False) -> bytes | None:
    """What makes `target` of `source`, always the same for the same two; None where it is not shorter than `target`.

    `is_text`: `target` is UTF-8, and so has the delta to be: no insert begins or ends inside a character.

    Time and memory are linear in the two lengths, whatever the documents hold: the source is indexed once, at most two
    candidates are tried for a match, and the search goes on behind the longer one.
    """
    copies: Iterable[_Copy] = _copies(source, target)
    if is_text:
        copies = (_trimmed(copy, target) for copy in copies)
    text = _written((copy for copy in copies if copy.length >= _WORTH), target)
    return text if len(text) < len(target) else None


# The format.


def _written(copies: Iterable[_Copy], target: bytes) -> bytes:
    parts, done = [_number(len(target)), b"\n"], 0
    for at, length, offset in copies:
        parts += (_insert(target[done:at]), _number(length), b"@", _number(offset), b",")
        done = at + length
    parts += (_insert(target[done:]), _number(_checksum(target)), b";")
    return b"".join(parts)


def _insert(data: bytes) -> bytes:
    return b"%b:%b" % (_number(len(data)), data) if data else b""


def _number(value: int) -> bytes:
    digits = bytearray()
    while value or not digits:
        digits.append(_DIGITS[value & 63])
        value >>= 6
    return bytes(digits[::-1])


def _checksum(data: bytes) -> int:
    """The sum of the big-endian 32-bit words, the last one filled up with zeros, modulo 2^32."""
    columns = (sum(data[0::4]) << 24, sum(data[1::4]) << 16, sum(data[2::4]) << 8, sum(data[3::4]))
    return sum(columns) & 0xFFFFFFFF


def _trimmed(copy: _Copy, target: bytes) -> _Copy:
    """Without the parts of characters at its two ends."""
    at, end = copy.at, copy.at + copy.length
    while at < end and _is_inside_character(target, at):
        at += 1
    while at < end and _is_inside_character(target, end):
        end -= 1
    return _Copy(at, end - at, copy.offset + at - copy.at)


def _is_inside_character(data: bytes, at: int) -> bool:
    return at < len(data) and data[at] & 0xC0 == 0x80


# The search.


def _copies(source: bytes, target: bytes) -> Iterator[_Copy]:
    """In the order of the target, without overlap there, the first and the last of any length.

    The common beginning and end come first: in most pairs they leave little to look for, or too little for an index.
    """
    head = _same_after(source, 0, target, 0, min(len(source), len(target)))
    tail = _same_before(source, len(source), target, len(target), min(len(source), len(target) - head))
    yield _Copy(0, head, 0)
    if len(target) - tail - head >= _BLOCK:
        yield from _moved(source, target, head, len(target) - tail)
    yield _Copy(len(target) - tail, tail, len(source) - tail)


def _moved(source: bytes, target: bytes, start: int, end: int) -> Iterator[_Copy]:
    """What target[start:end] has from anywhere in the source; what is before `start` is the same in both.

    In a list of similar records a block stands in each of them. The right one is mostly where the last copy left off.
    """
    # Backwards, so that of several equal blocks the first stays: in a run it has the most behind it.
    index = {source[at : at + _BLOCK]: at for at in range(len(source) - _BLOCK, -1, -_BLOCK)}
    left_off = start
    while (at := _next_known(index, target, start, end)) is not None:
        block = target[at : at + _BLOCK]
        first, near = index[block], source.find(block, left_off, left_off + _REACH)
        copy = _grown(source, first, target, at, (start, end))
        if near not in (first, -1):
            copy = max(copy, _grown(source, near, target, at, (start, end)), key=_length)
        yield copy
        start, left_off = copy.at + copy.length, copy.offset + copy.length


def _length(copy: _Copy) -> int:
    return copy.length


def _next_known(index: dict[bytes, int], target: bytes, start: int, end: int) -> int | None:
    """Where in target[start:end] a block of the index is. After a long search only the longer matches are found.

    The steps are odd: of 16 such steps along a match, one falls on the start of a block.
    """
    stop, step = end - _BLOCK + 1, 1
    while start < stop:
        beyond = start + _PATIENCE * step
        for at in range(start, min(beyond, stop), step):
            if target[at : at + _BLOCK] in index:
                return at
        start, step = beyond, step + 2
    return None


def _grown(source: bytes, offset: int, target: bytes, at: int, within: tuple[int, int]) -> _Copy:
    """The longest match around two equal positions, in that part of the target."""
    start, end = within
    before = _same_before(source, offset, target, at, min(offset, at - start))
    after = _same_after(source, offset, target, at, min(len(source) - offset, end - at))
    return _Copy(at - before, before + after, offset - before)


def _same_after(source: bytes, offset: int, target: bytes, at: int, most: int) -> int:
    """How many bytes are the same from two positions on. Compares not much more than it finds the same."""
    length, step, is_growing = 0, 2 * _BLOCK, True
    while step and length < most:
        is_same = source[offset + length : offset + length + step] == target[at + length : at + length + step]
        if is_same:
            length += step
        is_growing = is_growing and is_same
        step = step * 2 if is_growing else step // 2
    return min(length, most)


def _same_before(source: bytes, offset: int, target: bytes, at: int, most: int) -> int:
    """How many bytes are the same up to two positions. Compares as many as `most`."""
    same, differs = 0, most + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        if source[offset - middle : offset - same] == target[at - middle : at - same]:
            same = middle
        else:
            differs = middle
    return same
