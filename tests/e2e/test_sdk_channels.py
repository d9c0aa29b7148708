"""The SDKs in configured channels: what an application does there, in both languages and both forms of the protocol."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.e2e.talking import Refused, Talk
from tests.services.orderwire import Orderwire
from tests.services.person import Person


async def test_what_one_says_in_a_room_the_other_hears_and_both_can_read_again(
    channels: Orderwire, customer_there: Person, staff_there: Person, talk: Talk
) -> None:
    room = f"room:{uuid4()}"
    async with (
        talk(channels.websocket_url, customer_there.token) as one,
        talk(channels.websocket_url, staff_there.token) as other,
    ):
        await one.subscribe(room)
        await other.subscribe(room)
        for n in range(3):
            await one.publish(room, {"text": n})
        heard = [await other.heard() for _ in range(3)]

        assert [(said.data, said.offset, said.user) for said in heard] == [
            ({"text": n}, n + 1, customer_there.id) for n in range(3)
        ]
        assert await other.history(room, -1) == heard
        assert [await one.heard() for _ in range(3)] == heard


async def test_a_channel_without_history_reaches_who_is_there(
    channels: Orderwire, customer_there: Person, staff_there: Person, talk: Talk
) -> None:
    channel = f"typing:{uuid4()}"
    async with (
        talk(channels.websocket_url, customer_there.token) as one,
        talk(channels.websocket_url, staff_there.token) as other,
    ):
        await one.publish(channel, "nobody hears this")
        await other.subscribe(channel)
        await one.publish(channel, "writes …")
        said = await other.heard()

    assert (said.data, said.offset, said.user) == ("writes …", 0, customer_there.id)


async def test_both_see_who_is_in_a_room_and_who_comes_and_goes(
    channels: Orderwire, customer_there: Person, staff_there: Person, talk: Talk
) -> None:
    room = f"room:{uuid4()}"
    async with talk(channels.websocket_url, customer_there.token) as one:
        await one.subscribe(room)
        assert await one.moved() == ("join", customer_there.id)
        async with talk(channels.websocket_url, staff_there.token) as other:
            await other.subscribe(room)
            assert await one.moved() == ("join", staff_there.id)
            assert sorted(await other.users(room)) == sorted([customer_there.id, staff_there.id])
            assert await other.counted(room) == (2, 2)
        assert await one.moved() == ("leave", staff_there.id)
        assert await one.users(room) == [customer_there.id]


async def test_what_is_refused_is_told_by_its_code(channels: Orderwire, customer_there: Person, talk: Talk) -> None:
    async with talk(channels.websocket_url, customer_there.token) as one:
        for refused, code in [
            (one.publish("room:7", 1), 103),
            (one.history("room:7", 1), 103),
            (one.history("typing:7", 1), 108),
            (one.users("room:7"), 103),
            (one.users("typing:7"), 108),
            (one.counted("typing:7"), 108),
            (one.publish("nowhere:7", 1), 102),
            (one.subscribe("nowhere:7"), 102),
        ]:
            with pytest.raises(Refused) as caught:
                await refused
            assert caught.value.code == code
