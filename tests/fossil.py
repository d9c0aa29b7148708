"""The receiving end of a fossil delta, written from the format alone."""

from __future__ import annotations

import re
import struct

_DIGITS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_HEAD = re.compile(rb"([0-9A-Z_a-z~]+)\n")
_COPY = re.compile(rb"([0-9A-Z_a-z~]+)@([0-9A-Z_a-z~]+),")
_INSERT = re.compile(rb"([0-9A-Z_a-z~]+):")
_END = re.compile(rb"([0-9A-Z_a-z~]+);\Z")


def applied(source: bytes, delta: bytes) -> bytes:
    """The target. Fails where the delta breaks the format, reaches outside the source or does not add up."""
    head = _HEAD.match(delta)
    assert head is not None
    target, at = bytearray(), head.end()
    while (end := _END.match(delta, at)) is None:
        if (copy := _COPY.match(delta, at)) is not None:
            length, offset = _value(copy[1]), _value(copy[2])
            assert 0 < length <= len(source) - offset
            target += source[offset : offset + length]
            at = copy.end()
        else:
            insert = _INSERT.match(delta, at)
            assert insert is not None
            at = insert.end() + _value(insert[1])
            assert insert.end() < at < len(delta)
            target += delta[insert.end() : at]
    assert len(target) == _value(head[1])
    assert _sum_of_words(bytes(target)) == _value(end[1])
    return bytes(target)


def _value(digits: bytes) -> int:
    assert digits == b"0" or not digits.startswith(b"0")
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS.index(digit)
    return value


def _sum_of_words(data: bytes) -> int:
    words: tuple[int, ...] = struct.unpack(f">{(len(data) + 3) // 4}I", data + bytes(-len(data) % 4))
    return sum(words) % 2**32
