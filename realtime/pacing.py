"""Publications of a channel with a `write_delay`: what comes within it is heard together, and costs one write each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from handlers.ports.streams import Published
from realtime.channel import Channel

MOST_HELD: Final = 1000
"""Publications of one channel; a batch of more is heard early."""


class Pacing:
    """Delays what the bus says of a channel, before the channel knows of it: to everything behind, a paced channel is
    one whose bus is slow. The first publication after a quiet time is not delayed."""

    def __init__(self, hear: Callable[[Channel, Iterable[Published]], None]) -> None:
        self._hear = hear

    def hear(self, channel: Channel, items: Iterable[Published]) -> None:
        if channel.held is None:
            self._hear(channel, items)
            self._begin(channel)
            return
        channel.held.extend(items)
        if len(channel.held) >= MOST_HELD:
            self.release(channel)

    def release(self, channel: Channel) -> None:
        """Hear at once what is held; what comes after it still waits until its time."""
        if channel.held:
            held, channel.held = channel.held, []
            self._hear(channel, held)

    def _begin(self, channel: Channel) -> None:
        channel.held = []
        asyncio.get_running_loop().call_later(channel.write_delay, self._due, channel)

    def _due(self, channel: Channel) -> None:
        held, channel.held = channel.held, None
        if held and not channel.is_gone:
            self.hear(channel, held)
