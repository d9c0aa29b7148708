"""What the ends of connections have in common: how a codec's messages are framed, how they get to the socket, and how
long a goodbye may take."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from aiohttp.abc import AbstractStreamWriter

from handlers.ports.streams import Publication
from realtime.protocol.codes import Closing, Disconnect
from realtime.protocol.messages import Codec, Message

GOODBYE_SECONDS: Final = 5.0
_GOODBYE_SECONDS_SLOW: Final = 1.0


class Framed(ABC):
    """A codec in a transport's frames, one message a frame. A `ClientEncoding`."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def message(self, message: Message) -> bytes:
        return self.frame(self.codec.encode(message))

    def publication(self, channel: str, publication: Publication) -> bytes:
        return self.frame(self.codec.publication(channel, publication))

    def compressed(self, channel: str, publication: Publication, base: bytes | None) -> bytes:
        return self.frame(self.codec.compressed(channel, publication, base))

    def membership(self, channel: str, info: bytes, *, is_join: bool) -> bytes:
        return self.frame(self.codec.membership(channel, info, is_join=is_join))

    @abstractmethod
    def frame(self, payload: bytes) -> bytes:
        """One message as it travels."""


class SocketWire:
    """A `Wire` beside aiohttp's own writer, on the transport that they share.

    While nothing is buffered a write goes to the plain socket itself: of what a delivery costs beside the kernel's part
    the event loop's way there would be the most.
    """

    __slots__ = ("_kept", "_most", "_transport", "_writer", "is_shut", "number", "why")

    def __init__(self, transport: asyncio.Transport, writer: AbstractStreamWriter, most: int) -> None:
        """`most`: bytes by which the client may be behind."""
        self._transport = transport
        self._writer = writer
        self._most = most
        self.number = -1 if transport.get_extra_info("ssl_object") else transport.get_extra_info("socket").fileno()
        self.why: Disconnect | Closing | None = None
        self.is_shut = False  # nothing may be written, any more or yet
        self._kept: bytearray | None = None  # until it may

    @property
    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    @property
    def is_plain(self) -> bool:
        """The socket may be written to past the transport. `number` is its descriptor then."""
        return self.number >= 0

    @property
    def obstacles(self) -> Sequence[Callable[[], int]]:
        """What, beside `is_shut`, keeps the socket from being written to now, while it says anything but 0."""
        return self._transport.is_closing, self._transport.get_write_buffer_size

    def write(self, data: bytes) -> bool:
        transport = self._transport
        # A transport that is closing may have given its socket's number back, to a stranger.
        if self.is_shut or transport.is_closing():
            if self._kept is None:
                return True
            if len(self._kept) + len(data) > self._most:
                return False
            self._kept += data
            return True
        buffered = transport.get_write_buffer_size()
        if buffered:
            if buffered + len(data) > self._most:
                return False
        elif self.is_plain:
            try:
                sent = os.write(self.number, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                if not transport.is_reading():  # else the reader is about to learn it too
                    # aiohttp reads no more from who sends requests while one is answered; who owes no pongs would stay.
                    transport.abort()
                return True
            if sent == len(data):
                return True
            data = data[sent:]
        self.leave_to_transport(data)
        return True

    def hold(self) -> None:
        if not self.is_shut:  # else a release would open again what is over
            self.is_shut, self._kept = True, bytearray()

    def release(self) -> bytes:
        if self._kept is None:
            return b""
        kept, self._kept, self.is_shut = bytes(self._kept), None, False
        return kept

    def shut(self) -> None:
        """Nothing is written any more."""
        self.is_shut, self._kept = True, None

    def leave_to_transport(self, data: bytes) -> None:
        """The socket has not taken this."""
        # uvloop's transport raises once it is closed, and one client's end must not end everybody's round.
        with suppress(RuntimeError):
            self._transport.write(data)

    async def drain(self) -> None:
        if not self.buffered:
            return  # nearly always, and not worth a task and two turns of the loop
        # All who wait share one future of aiohttp's: whoever is cancelled would cancel the others, and who comes next.
        draining = asyncio.ensure_future(self._writer.drain())
        draining.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(draining)


def goodbye_patience(why: Disconnect | Closing | None) -> float:
    """Seconds after which the socket is cut, whatever is still to be said: a peer that reads nothing never takes it."""
    return _GOODBYE_SECONDS_SLOW if why is Disconnect.SLOW else GOODBYE_SECONDS
