"""What the real-time core needs of a transport: one client's end of it, and several that are written the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from realtime.protocol.codes import Closing, Disconnect


class Sink(Protocol):
    """What may be written to."""

    def write(self, data: bytes) -> bool:
        """False, and nothing is written: the socket has not taken all of what was written before, and with this it
        would be further behind than a client may be. Never raises; writing to a connection that is gone does nothing.
        """
        ...


class Wire(Sink, Protocol):
    """A transport's end of one connection."""

    @property
    def buffered(self) -> int:
        """Bytes that the socket has not taken yet."""
        ...

    async def drain(self) -> None:
        """Return when the socket has taken most of it. Raises ConnectionError when the connection is gone."""
        ...

    def hold(self) -> None:
        """Keep from now on what is written, at most as much as a client may be behind by."""
        ...

    def release(self) -> bytes:
        """Write again, unless it is over. What was kept, which is not written."""
        ...

    def end(self, why: Disconnect | Closing) -> None:
        """Say goodbye and close. Nothing is written after it."""
        ...


class Batch(Protocol):
    """Several of them."""

    def write(self, data: bytes) -> Sequence[int]:
        """As `Sink.write`, to each of them. Which of them, counted from 0, it was not written to."""
        ...


MakeBatch = Callable[[Sequence[Sink]], Batch]


class OneByOne:
    """A `Batch` of anything."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks

    def write(self, data: bytes) -> Sequence[int]:
        return [index for index, sink in enumerate(self._sinks) if not sink.write(data)]
