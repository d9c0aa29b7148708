"""The SDKs in configured channels: what an application does there, in both languages and both forms of the protocol."""

from __future__ import annotations

import time
from uuid import uuid4

import aiohttp
import pytest

from tests.e2e.served_channels import API_KEY, backend_token
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
    before, channel = f"typing:{uuid4()}", f"typing:{uuid4()}"
    async with (
        talk(channels.websocket_url, customer_there.token) as one,
        talk(channels.websocket_url, staff_there.token) as other,
    ):
        await other.subscribe(before)
        await one.publish(channel, "nobody hears this")
        await one.publish(before, "the bus is past it")
        await other.heard()
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


async def test_a_user_of_another_backend_gets_into_a_private_channel_by_a_token(
    channels: Orderwire, talk: Talk
) -> None:
    room = f"$room:{uuid4()}"
    async with (
        talk(channels.websocket_url, backend_token(sub="ann", exp=int(time.time()) + 60)) as ann,
        talk(channels.websocket_url, backend_token(sub="bob")) as bob,
    ):
        await ann.subscribe(room, backend_token(sub="ann", channel=room, exp=int(time.time()) + 60))
        with pytest.raises(Refused) as caught:
            await bob.subscribe(room)
        await ann.publish(room, "for members")
        said = await ann.heard()

    assert caught.value.code == 103
    assert (said.data, said.user) == ("for members", "ann")


async def test_the_sdk_puts_documents_together_of_differences(
    channels: Orderwire, customer_there: Person, talk: Talk
) -> None:
    channel = f"doc:{uuid4()}"
    documents = [{"n": n, "text": "ein Absatz für alle, der gleich bleibt. " * 9, "end": True} for n in range(4)]
    async with talk(channels.websocket_url, customer_there.token) as one:
        await one.subscribe(channel, delta=True)
        for document in documents:
            await one.publish(channel, document)
        heard = [await one.heard() for _ in documents]

    assert [said.data for said in heard] == documents


async def test_the_sdk_is_sent_what_its_filter_lets_through(
    channels: Orderwire, customer_there: Person, talk: Talk, session: aiohttp.ClientSession
) -> None:
    channel = f"news:{uuid4()}"
    async with talk(channels.websocket_url, customer_there.token) as one:
        await one.subscribe(channel, lang="en")
        for lang in ("de", "en", "fr", "en"):
            body = {"channel": channel, "data": lang, "tags": {"lang": lang}}
            headers = {"X-API-Key": API_KEY}
            async with session.post(f"{channels.base_url}/api/publish", json=body, headers=headers) as reply:
                assert "result" in await reply.json()
        heard = [await one.heard(), await one.heard()]

    assert [(said.data, said.offset) for said in heard] == [("en", 2), ("en", 4)]


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
