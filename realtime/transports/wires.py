"""What the ends of connections have in common: how a codec's messages are framed, and how long a goodbye may take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

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


def goodbye_patience(why: Disconnect | Closing | None) -> float:
    """Seconds after which the socket is cut, whatever is still to be said: a peer that reads nothing never takes it."""
    return _GOODBYE_SECONDS_SLOW if why is Disconnect.SLOW else GOODBYE_SECONDS
