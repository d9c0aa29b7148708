"""What was published lately in the channels that somebody hears: who comes back is served from memory. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from handlers.ports.streams import Publication
from realtime.channel import Channel


class Recent:
    """Of all channels together at most `limit` bytes. Beyond, the channel that was silent longest forgets first: what
    is not here is read from its stream."""

    def __init__(self, limit: int) -> None:
        self.bytes = 0
        self._limit = limit
        self._channels: OrderedDict[Channel, None] = OrderedDict()  # the longest silent one first

    def add(self, channel: Channel, publication: Publication) -> None:
        """The next one of the channel."""
        self._grow(channel, channel.advance(publication))

    def recall(self, channel: Channel, publications: Sequence[Publication]) -> None:
        """What was published in the channel before what is kept, oldest first; as many of the latest as it keeps."""
        self._grow(channel, channel.recall(publications))

    def forget(self, channel: Channel) -> None:
        """Keep nothing of this channel."""
        if channel in self._channels:
            del self._channels[channel]
            self.bytes -= channel.forget()

    def _grow(self, channel: Channel, size: int) -> None:
        self.bytes += size
        self._channels[channel] = None
        self._channels.move_to_end(channel)
        while self.bytes > self._limit:
            self.forget(next(iter(self._channels)))
