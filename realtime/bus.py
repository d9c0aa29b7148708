"""The bus: node-to-node delivery, at most once. A port; variants are `bus_redis` and `bus_memory`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from handlers.ports.streams import Publication, Published

Receiver = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Membership:
    """Somebody came to a channel or went. `info` is what others may see of them, a JSON object."""

    channel: str
    info: bytes
    is_join: bool


@dataclass(frozen=True, slots=True)
class Order:
    """What nodes say to each other beside what is in channels. `kind` says whose business `body` is; see `inbox`."""

    kind: str
    body: bytes


Item = Published | Membership | Order


class BusAway(Exception):
    """Something that only the bus carries could not be handed to it; nobody was sent it, or nobody knows."""


class Bus(Protocol):
    """What one publisher sends of one channel, or of one kind of orders, arrives in order; any of it may be lost, none
    arrives twice by the bus's own doing. Items travel in messages, which `encode` makes of them.

    Losing one is harmless: the hub notices and reads the stream.
    """

    @property
    def is_connected(self) -> bool:
        """Is the subscription confirmed, so that messages published from now on will arrive?"""
        ...

    async def publish(self, items: Iterable[Item]) -> bool:
        """Send to every node, this one too. Never raises and never waits longer than a second. False: some are lost,
        or nobody knows; that is counted."""
        ...

    async def run(self, receiver: Receiver) -> None:
        """Hand every message to `receiver` (a plain function, called on the event loop) until cancelled;
        reconnects by itself, with jitter."""
        ...


# What it is; bytes of channel, epoch, info, tags and data; offset; time in ms.
_HEAD = struct.Struct("!BHHIIIQQ")
_PUBLISHED, _JOIN, _LEAVE, _ORDER, _PUBLISHED_AS_DELTA = range(5)


def encode(items: Iterable[Item]) -> bytes:
    """One bus message for one batch; two of them, one behind the other, are one too. Lengths are explicit, so payloads
    are never parsed on the way."""
    parts: list[bytes] = []
    for item in items:
        if isinstance(item, Membership):
            fields = (item.channel.encode(), b"", item.info, b"", b"")
            head = _HEAD.pack(_JOIN if item.is_join else _LEAVE, *map(len, fields), 0, 0)
        elif isinstance(item, Order):
            fields = (item.kind.encode(), b"", b"", b"", item.body)
            head = _HEAD.pack(_ORDER, *map(len, fields), 0, 0)
        else:
            one = item.publication
            fields = (item.channel.encode(), item.epoch.encode(), one.info, one.tags, one.data)
            kind = _PUBLISHED_AS_DELTA if one.as_delta else _PUBLISHED
            head = _HEAD.pack(kind, *map(len, fields), one.offset, one.time_ms)
        parts += (head, *fields)
    return b"".join(parts)


def decode(message: bytes, is_heard: Callable[[str], bool] = lambda _: True) -> Iterator[Item]:
    """Leaves out channels that are not heard, and kinds that a newer version sends.

    Raises ValueError for a message that `encode` cannot have made.
    """
    begin = 0
    while begin < len(message):
        try:
            kind, of_channel, of_epoch, of_info, of_tags, of_data, offset, time_ms = _HEAD.unpack_from(message, begin)
        except struct.error:
            raise ValueError("truncated bus message") from None
        channel = begin + _HEAD.size
        epoch = channel + of_channel
        info = epoch + of_epoch
        tags = info + of_info
        data = tags + of_tags
        begin = data + of_data
        if begin > len(message):
            raise ValueError("truncated bus message")
        name = message[channel:epoch].decode()
        if kind == _ORDER:
            yield Order(name, message[data:begin])
        elif kind > _PUBLISHED_AS_DELTA or not is_heard(name):
            continue
        elif kind in {_JOIN, _LEAVE}:
            yield Membership(name, message[info:tags], is_join=kind == _JOIN)
        else:
            as_delta = kind == _PUBLISHED_AS_DELTA
            publication = Publication(
                offset, message[data:begin], time_ms, message[info:tags], message[tags:data], as_delta=as_delta
            )
            yield Published(name, message[epoch:info].decode(), publication)
