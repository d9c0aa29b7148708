"""Many who come back to a channel that nobody heard meanwhile: what they missed is read once."""

from __future__ import annotations

import asyncio

import pytest

from handlers.ports.domain import Position
from realtime.hub import Hub
from realtime.protocol.messages import Subscribed
from tests.integration.test_hub_openings import Joiner, running
from tests.unit.realtime.test_shared_reads import CountedStreams, three_published


class Returner(Joiner):
    async def come_back(self, hub: Hub) -> list[int]:
        """What it is told that it missed, from the very beginning."""
        joined: list[Subscribed] = []
        await hub.join(self, "a", Position(0, ""), joined.append)
        return [publication.offset for publication in joined[0].publications]


@pytest.fixture
def streams() -> CountedStreams:
    return three_published()


async def test_those_who_come_together_share_a_read_and_those_who_come_later_need_none(
    streams: CountedStreams,
) -> None:
    async with running(streams) as hub:
        together = await asyncio.gather(*(Returner().come_back(hub) for _ in range(50)))
        later = [await Returner().come_back(hub) for _ in range(50)]
    assert together + later == [[1, 2, 3]] * 100
    assert streams.reads == 1


async def test_what_was_removed_while_it_was_read_is_not_kept(streams: CountedStreams) -> None:
    async with running(streams) as hub:
        await Joiner().join(hub, "a")  # keeps the channel open
        streams.is_held = True
        first = asyncio.create_task(Returner().come_back(hub))
        await asyncio.sleep(0.01)
        streams.trim("a", 0)
        hub.forget(b"a")
        streams.is_held = False
        streams.let_go(0)
        assert await first == [1, 2, 3]  # it began to read before
        assert await Returner().come_back(hub) == []
