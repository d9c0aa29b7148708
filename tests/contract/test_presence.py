"""The port of presence, over all its variants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from realtime.presence import Change, Member, Outcome, Presence, Stats
from realtime.presence_memory import MemoryPresence
from realtime.presence_redis import RedisPresenceOptions, open_redis_presence

OpenNode = Callable[[], AbstractAsyncContextManager[Presence]]
"""Another node's end of one store."""

ANN = Member("a1", "ann", b'{"user":"ann","client":"a1"}')
ANNS_OTHER_TAB = Member("a2", "ann", b'{"user":"ann","client":"a2"}')
BOB = Member("b1", "bob", b"{}")
NOBODY = Member("n1", "", b'{"user":""}')


@pytest.fixture(params=["memory", "redis", "redis cluster"])
def open_node(request: pytest.FixtureRequest, unique_name: str) -> OpenNode:
    if request.param == "redis":
        options = RedisPresenceOptions(request.getfixturevalue("redis_url"), unique_name)
        return lambda: open_redis_presence(options)
    if request.param == "redis cluster":
        url = request.getfixturevalue("own_redis_cluster").url
        return lambda: open_redis_presence(RedisPresenceOptions(url, unique_name, is_cluster=True))
    store = MemoryPresence()

    @asynccontextmanager
    async def memory() -> AsyncIterator[Presence]:
        yield store

    return memory


@pytest.fixture
async def presence(open_node: OpenNode) -> AsyncIterator[Presence]:
    async with open_node() as opened:
        yield opened


def comes(member: Member, channel: str = "c") -> Change:
    return Change(channel, member, is_there=True)


def goes(member: Member, channel: str = "c") -> Change:
    return Change(channel, member, is_there=False)


async def test_who_came_and_did_not_go_is_there_for_every_node(open_node: OpenNode) -> None:
    async with open_node() as one, open_node() as other:
        await one.apply([comes(ANN), comes(BOB)])
        await other.apply([comes(ANNS_OTHER_TAB), goes(BOB)])

        for node in (one, other):
            assert await node.members("c") == {"a1": ANN, "a2": ANNS_OTHER_TAB}
            assert await node.stats("c") == Stats(clients=2, users=1)


async def test_nobody_is_in_a_channel_that_nobody_came_to(presence: Presence) -> None:
    await presence.apply([comes(ANN, "other")])

    assert await presence.members("c") == {}
    assert await presence.stats("c") == Stats(clients=0, users=0)


async def test_a_users_first_connection_and_last_one_are_told_from_the_others(presence: Presence) -> None:
    changes = [comes(ANN), comes(ANNS_OTHER_TAB), comes(BOB), goes(ANN), goes(ANNS_OTHER_TAB), goes(BOB)]

    assert [outcome.is_users for outcome in await presence.apply(changes)] == [True, False, True, False, True, True]


async def test_the_first_in_a_channel_and_the_last_are_told_from_the_others(presence: Presence) -> None:
    changes = [comes(ANN), comes(BOB), goes(ANN), comes(BOB, "d"), goes(BOB), comes(ANN)]

    assert [outcome.is_channels for outcome in await presence.apply(changes)] == [True, False, False, True, True, True]


async def test_coming_again_and_going_again_change_nothing(presence: Presence) -> None:
    outcomes = await presence.apply([goes(ANN), comes(ANN), comes(ANN), goes(ANN), goes(ANN)])

    assert list(outcomes) == [Outcome(change, change) for change in (False, True, False, True, False)]


async def test_anonymous_clients_are_one_user_and_several_clients(presence: Presence) -> None:
    await presence.apply([comes(NOBODY), comes(Member("n2", "", b"{}"))])

    assert await presence.stats("c") == Stats(clients=2, users=1)


async def test_what_is_renewed_is_there_even_if_it_was_not(presence: Presence) -> None:
    await presence.renew([("c", ANN), ("d", BOB)])

    assert await presence.members("c") == {"a1": ANN}
    assert await presence.members("d") == {"b1": BOB}


@pytest.mark.parametrize("channel", ["a b", "{", "}", "{}x", "ü", "c" * 255])
async def test_a_channel_may_have_any_name(presence: Presence, channel: str) -> None:
    odd = Member("1:2", "3:ü", b"\n{}")
    await presence.apply([comes(odd, channel)])

    assert await presence.members(channel) == {"1:2": odd}


async def test_a_large_channel_is_told_whole(presence: Presence) -> None:
    crowd = [Member(str(n), str(n % 50), b"{}") for n in range(2500)]
    for at in range(0, len(crowd), 500):
        await presence.apply([comes(member) for member in crowd[at : at + 500]])

    assert await presence.members("c") == {member.client: member for member in crowd}
    assert await presence.stats("c") == Stats(clients=2500, users=50)


async def test_changes_of_many_nodes_at_once_leave_who_is_there(open_node: OpenNode) -> None:
    async def node(number: int) -> None:
        async with open_node() as presence:
            for n in range(20):
                member = Member(f"{number}-{n}", f"user {n}", b"{}")
                await presence.apply([comes(member)] if n % 2 else [comes(member), goes(member)])

    await asyncio.gather(*(node(number) for number in range(5)))

    async with open_node() as presence:
        assert sorted(await presence.members("c")) == sorted(f"{i}-{n}" for i in range(5) for n in range(1, 20, 2))
        assert await presence.stats("c") == Stats(clients=50, users=10)
