"""Writing the same to many sockets, without a step of Python for each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import repeat
from operator import attrgetter, call

from realtime.transports.wires import SocketWire
from realtime.wire import Batch, OneByOne, Sink

_is_shut = attrgetter("is_shut")


def batch_of(sinks: Sequence[Sink]) -> Batch:
    """Past their transports, if all of them have plain sockets."""
    wires = [sink for sink in sinks if isinstance(sink, SocketWire) and sink.is_plain]
    return SocketBatch(wires) if len(wires) == len(sinks) else OneByOne(sinks)


class SocketBatch:
    """Of plain sockets. What could keep one of them from being written to is asked for all at once, and where there is
    nothing, the system calls follow each other."""

    def __init__(self, wires: Sequence[SocketWire]) -> None:
        self._wires = wires
        self._numbers = [wire.number for wire in wires]
        self._obstacles = [obstacle for wire in wires for obstacle in wire.obstacles]

    def write(self, data: bytes) -> Sequence[int]:
        if any(map(call, self._obstacles)) or any(map(_is_shut, self._wires)):
            return self._write_apart(0, data)
        taken: list[int] = []
        with suppress(OSError):  # one that takes nothing, or is gone, is asked again by itself
            taken.extend(map(os.write, self._numbers, repeat(data)))
        if taken.count(len(data)) < len(taken):
            self._leave_rests(taken, data)
        return self._write_apart(len(taken), data)

    def _write_apart(self, begin: int, data: bytes) -> Sequence[int]:
        """One by one, from this one on."""
        return [index for index, wire in enumerate(self._wires[begin:], begin) if not wire.write(data)]

    def _leave_rests(self, taken: Sequence[int], data: bytes) -> None:
        for wire, size in zip(self._wires, taken, strict=False):
            if size < len(data):
                wire.leave_to_transport(data[size:])
