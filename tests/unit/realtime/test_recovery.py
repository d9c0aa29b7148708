"""Many who come back to a channel that nobody heard meanwhile: what they missed is read once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from handlers.ports.domain import Position
from handlers.ports.streams import Publication
from realtime.channel import NOWHERE, Encoding
from realtime.hub import Hub
from realtime.protocol.messages import Subscribed
from tests.integration.test_hub_openings import Joiner, running
from tests.subscribers import NoEncoding
from tests.unit.realtime.test_shared_reads import CountedStreams, three_published


class Returner(Joiner):
    async def come_back(self, hub: Hub, since: Position = NOWHERE) -> list[int]:
        """What it is told that it missed since then."""
        joined: list[Subscribed] = []
        await hub.join(self, "a", since, joined.append)
        return [publication.offset for publication in joined[0].publications]


class Offsets(NoEncoding):
    def publication(self, channel: str, publication: Publication) -> bytes:  # noqa: ARG002 - the protocol's
        return b"%d " % publication.offset


@dataclass(eq=False)
class Hearer(Joiner):
    encoding: Encoding = field(default_factory=Offsets)
    heard: bytes = b""
    has_heard: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, data: bytes) -> bool:
        self.heard += data
        self.has_heard.set()
        return True


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
        await streams.until_held()
        streams.trim("a", 0)
        hub.forget(b"a")
        streams.is_held = False
        streams.let_go(0)
        assert await first == [1, 2, 3]  # it began to read before
        assert await Returner().come_back(hub) == []


async def test_who_comes_after_a_removal_shares_no_read_that_began_before(streams: CountedStreams) -> None:
    async with running(streams) as hub:
        streams.is_held = True
        first = asyncio.create_task(Returner().come_back(hub))
        await streams.until_held()  # the head
        streams.let_go(0)
        await streams.until_held()  # the page
        streams.trim("a", 0)
        hub.forget(b"a")
        second = asyncio.create_task(Returner().come_back(hub))
        await streams.until_held(2)
        streams.is_held = False
        while streams.waiting:
            streams.let_go(0)
        assert (await first, await second) == ([1, 2, 3], [])
        assert await Returner().come_back(hub) == []


async def test_what_was_removed_while_a_gap_was_read_is_not_kept(streams: CountedStreams) -> None:
    async with running(streams) as hub:
        live = Hearer()
        await live.join(hub, "a")
        streams.publish("a")  # by the bus comes nothing
        hub.hear([streams.publish("a")])
        streams.is_held = True
        await streams.until_held()
        streams.trim("a", 0)
        hub.forget(b"a")
        streams.is_held = False
        streams.let_go(0)
        await live.has_heard.wait()
        assert live.heard == b"4 5 "
        assert await Returner().come_back(hub, Position(3, streams.streams["a"].epoch)) == []


@dataclass(eq=False, kw_only=True)
class Interrupted(Returner):
    """Between the parts of what it missed its stream begins anew."""

    streams: CountedStreams
    told: list[str] = field(default_factory=list)

    async def writable(self, *, is_more: bool) -> None:
        if is_more:
            self.streams.change_epoch("a")

    def dropped(self, channel: str) -> None:
        self.told.append(channel)


async def test_who_has_some_of_what_it_missed_as_the_stream_begins_anew_is_told_so_and_not_answered_again(
    streams: CountedStreams,
) -> None:
    streams.publish("a")  # more than one page holds
    async with running(streams) as hub:
        returner = Interrupted(streams=streams)
        joined: list[Subscribed] = []
        await hub.join(returner, "a", Position(0, ""), joined.append)

        assert [[publication.offset for publication in part.publications] for part in joined] == [[1, 2, 3]]
        assert returner.told == ["a"]
        assert not hub.hears("a")


@dataclass(eq=False, kw_only=True)
class Bereft(Interrupted):
    """Between the parts its stream loses the rest of what it missed, or is away."""

    is_away: bool

    async def writable(self, *, is_more: bool) -> None:
        if is_more:
            self.streams.is_away = self.is_away
            self.streams.trim("a", 1)


@pytest.mark.parametrize("is_away", [False, True])
async def test_who_cannot_get_the_rest_of_what_it_missed_is_told_so_and_hears_nothing_more(
    streams: CountedStreams, is_away: bool
) -> None:
    for _ in range(3):
        streams.publish("a")
    async with running(streams) as hub:
        returner = Bereft(streams=streams, is_away=is_away)
        joined: list[Subscribed] = []
        await hub.join(returner, "a", Position(0, streams.streams["a"].epoch), joined.append)

        assert [[publication.offset for publication in part.publications] for part in joined] == [[1, 2, 3]]
        assert returner.told == ["a"]
        assert not hub.hears("a")


async def test_who_wants_the_latest_gets_the_one_that_came_while_it_was_read(streams: CountedStreams) -> None:
    async with running(streams) as hub:
        await Hearer().join(hub, "a")  # keeps the channel open
        joined: list[Subscribed] = []
        streams.is_held = True
        joining = asyncio.create_task(hub.join(Joiner(), "a", NOWHERE, joined.append, latest_within=2e9))
        await streams.until_held()
        hub.hear([streams.publish("a")])
        streams.is_held = False
        streams.let_go(0)
        await joining

        [latest] = joined
        assert [publication.offset for publication in latest.publications] == [4]
        assert latest.position == streams.position("a")
