"""What a channel with a `write_delay` hears, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from handlers.ports.streams import Publication, Published
from realtime.channel import Channel
from realtime.pacing import MOST_HELD, Pacing
from tests import virtual_time

DELAY = 0.1


def published(*numbers: int) -> list[Published]:
    return [Published("c", "epoch", Publication(number, b"", 0)) for number in numbers]


@dataclass
class Heard:
    """When which offsets were heard."""

    at: list[tuple[float, list[int]]] = field(default_factory=list)

    def __call__(self, _: Channel, items: Iterable[Published]) -> None:
        now = asyncio.get_running_loop().time()
        self.at.append((round(now, 6), [item.publication.offset for item in items]))


def paced() -> tuple[Channel, Heard, Pacing]:
    channel, heard = Channel("c"), Heard()
    channel.write_delay = DELAY
    return channel, heard, Pacing(heard)


def test_the_first_goes_at_once_and_what_follows_goes_together_when_the_delay_is_over() -> None:
    channel, heard, pacing = paced()

    async def busy() -> None:
        for number in range(1, 7):
            pacing.hear(channel, published(number))
            await asyncio.sleep(0.04)
        await asyncio.sleep(1)
        pacing.hear(channel, published(7))

    virtual_time.run(busy())
    assert heard.at == [(0.0, [1]), (0.1, [2, 3]), (0.2, [4, 5]), (0.3, [6]), (1.24, [7])]


def test_what_is_released_is_not_heard_again() -> None:
    channel, heard, pacing = paced()

    async def released() -> None:
        pacing.hear(channel, published(1))
        pacing.hear(channel, published(2))
        pacing.release(channel)
        pacing.hear(channel, published(3))
        await asyncio.sleep(1)
        pacing.release(channel)

    virtual_time.run(released())
    assert heard.at == [(0.0, [1]), (0.0, [2]), (0.1, [3])]


def test_a_great_batch_does_not_wait() -> None:
    channel, heard, pacing = paced()

    async def flood() -> None:
        pacing.hear(channel, published(1))
        pacing.hear(channel, published(*range(2, MOST_HELD + 2)))

    virtual_time.run(flood())
    assert [(at, len(offsets)) for at, offsets in heard.at] == [(0.0, 1), (0.0, MOST_HELD)]


def test_a_channel_that_is_gone_hears_nothing() -> None:
    channel, heard, pacing = paced()

    async def gone() -> None:
        pacing.hear(channel, published(1))
        pacing.hear(channel, published(2))
        channel.is_gone = True
        await asyncio.sleep(1)

    virtual_time.run(gone())
    assert heard.at == [(0.0, [1])]
