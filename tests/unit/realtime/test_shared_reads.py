"""A read of a stream, for all who want it at the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from handlers.ports.streams import Page, StreamsAway
from realtime.shared_reads import SharedReads
from tests.property.streams_model import ModelStreams


class CountedStreams(ModelStreams):
    reads = 0
    breaks = False

    async def read(self, channel: str, *, after: int, limit: int, max_bytes: int) -> Page:
        self.reads += 1
        if self.breaks:
            raise LookupError("a bug")
        return await super().read(channel, after=after, limit=limit, max_bytes=max_bytes)

    async def read_back(self, channel: str, *, before: int | None, limit: int, max_bytes: int) -> Page:
        self.reads += 1
        return await super().read_back(channel, before=before, limit=limit, max_bytes=max_bytes)


def three_published() -> CountedStreams:
    streams = CountedStreams()
    for _ in range(3):
        streams.publish("a")
    return streams


@pytest.fixture
def streams() -> CountedStreams:
    return three_published()


@asynccontextmanager
async def running(streams: CountedStreams) -> AsyncIterator[SharedReads]:
    reads = SharedReads(streams)
    task = asyncio.create_task(reads.run())
    await asyncio.sleep(0)
    yield reads
    task.cancel()
    await asyncio.wait([task])


def offsets(page: Page) -> list[int]:
    return [publication.offset for publication in page.publications]


async def test_all_who_want_the_same_page_at_the_time_share_a_read(streams: CountedStreams) -> None:
    async with running(streams) as reads:
        pages = await asyncio.gather(*(reads.read("a", 1) for _ in range(50)), reads.read("a", 0))
        assert [offsets(page) for page in pages] == [[2, 3]] * 50 + [[1, 2, 3]]
        assert streams.reads == 2


async def test_those_who_look_back_share_a_read_as_well_but_not_with_those_who_go_on(streams: CountedStreams) -> None:
    async with running(streams) as reads:
        pages = await asyncio.gather(*(reads.read_back("a", 3) for _ in range(50)), reads.read("a", 3))
        assert [offsets(page) for page in pages] == [[2, 1]] * 50 + [[]]
        assert streams.reads == 2


async def test_who_comes_later_reads_anew(streams: CountedStreams) -> None:
    async with running(streams) as reads:
        await reads.read("a", 3)
        streams.publish("a")
        assert offsets(await reads.read("a", 3)) == [4]


async def test_one_that_goes_away_takes_the_page_from_nobody(streams: CountedStreams) -> None:
    streams.is_held = True
    async with running(streams) as reads:
        first, second = [asyncio.create_task(reads.read("a", 0)) for _ in range(2)]
        await streams.until_held()
        first.cancel()
        await asyncio.sleep(0)
        streams.let_go(0)
        assert offsets(await second) == [1, 2, 3]


async def test_all_are_told_when_the_streams_are_away(streams: CountedStreams) -> None:
    streams.is_away = True
    async with running(streams) as reads:
        outcomes = await asyncio.gather(*(reads.read("a", 0) for _ in range(3)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {StreamsAway}


async def test_a_bug_is_told_to_who_waits_and_ends_nothing(streams: CountedStreams) -> None:
    async with running(streams) as reads:
        streams.breaks = True
        with pytest.raises(LookupError):
            await reads.read("a", 0)
        streams.breaks = False
        assert offsets(await reads.read("a", 0)) == [1, 2, 3]


async def test_who_waits_when_the_node_ends_is_told(streams: CountedStreams) -> None:
    streams.is_held = True
    async with running(streams) as reads:
        waiting = asyncio.create_task(reads.read("a", 0))
        await streams.until_held()
    with pytest.raises(StreamsAway):
        await waiting
    with pytest.raises(StreamsAway):
        await reads.read("a", 0)
