"""Subscribers that do nothing but what a test gives them to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from handlers.ports.streams import Publication
from realtime.channel import Encoding
from realtime.wire import Sink


class NoEncoding:
    def publication(self, channel: str, publication: Publication) -> bytes:
        raise NotImplementedError(channel, publication)

    def compressed(self, channel: str, publication: Publication, base: bytes | None) -> bytes:
        raise NotImplementedError(channel, publication, base)

    def membership(self, channel: str, info: bytes, *, is_join: bool) -> bytes:
        raise NotImplementedError(channel, info, is_join)


@dataclass(eq=False, kw_only=True)
class BareSubscriber:
    """A `Subscriber` that is its own wire. Two instances are two clients."""

    pending: list[bytes] = field(default_factory=list)
    encoding: Encoding = field(default_factory=NoEncoding)

    @property
    def wire(self) -> Sink:
        return self

    def write(self, data: bytes) -> bool:
        raise NotImplementedError(data)

    def overflowed(self) -> None:
        raise NotImplementedError

    def hold(self, channel: str, frame: bytes) -> bool:
        raise NotImplementedError(channel, frame)

    async def writable(self, *, is_more: bool) -> None:
        raise NotImplementedError

    def dropped(self, channel: str) -> None:
        raise NotImplementedError(channel)
