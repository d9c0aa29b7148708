"""What SDKs live through: lines that are cut, tokens that end, a backend that lets them in and puts them out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiohttp
import orjson
import pytest

from tests.e2e.served_channels import API_KEY, backend_token
from tests.e2e.talking import Refused, Talk, Talker
from tests.services.nginx import Nginx, program
from tests.services.orderwire import Orderwire
from tests.services.person import Person
from tests.services.proxy import Proxy, open_proxy
from tests.services.server import Unavailable


@pytest.fixture
async def line(channels: Orderwire) -> AsyncIterator[Proxy]:
    async with open_proxy(channels.port) as opened:
        yield opened


class Backend:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def do(self, method: str, **body: object) -> Any:
        headers = {"X-API-Key": API_KEY}
        async with self._session.post(f"{self._url}/api/{method}", json=body, headers=headers) as reply:
            return (await reply.json())["result"]

    async def publish(self, channel: str, *payloads: object) -> None:
        for payload in payloads:
            await self.do("publish", channel=channel, data=payload)


@pytest.fixture
def backend(channels: Orderwire, session: aiohttp.ClientSession) -> Backend:
    return Backend(session, channels.base_url)


@asynccontextmanager
async def cut(line: Proxy) -> AsyncIterator[None]:
    line.cut()
    yield
    line.restore()


async def resumed(one: Talker, channel: str) -> bool | None:
    """Of the next time that it is subscribed to the channel."""
    while True:
        name, recovered = await one.subscribed()
        if name == channel:
            return recovered


def ending() -> int:
    """The end of a token that has to be renewed soon."""
    return int(time.time()) + 2


async def test_who_was_cut_off_is_given_what_it_missed(
    line: Proxy, customer_there: Person, backend: Backend, talk: Talk
) -> None:
    room = f"room:{uuid4()}"
    async with talk(line.websocket_url, customer_there.token) as one:
        await one.subscribe(room)
        assert await resumed(one, room) is None
        await backend.publish(room, 1)
        assert (await one.heard()).data == 1
        async with cut(line):
            await backend.publish(room, 2, 3)
        assert await resumed(one, room) is True
        await backend.publish(room, 4)
        assert [(said.data, said.offset) for said in [await one.heard() for _ in range(3)]] == [(2, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize("talk", ["javascript json", "javascript json sse"], indirect=True)
async def test_who_hears_many_channels_comes_back_to_them(line: Proxy, backend: Backend, talk: Talk) -> None:
    rooms = {f"room:{uuid4()}" for _ in range(90)}
    async with talk(line.websocket_url, backend_token(sub=str(uuid4()), channels=sorted(rooms))) as one:
        assert rooms <= {(await one.subscribed())[0] for _ in range(91)}
        async with cut(line):
            pass
        assert rooms <= {name for name, recovered in [await one.subscribed() for _ in range(91)] if recovered}


async def test_a_long_hello_in_an_address_gets_through_the_nginx_that_is_recommended(
    channels: Orderwire, session: aiohttp.ClientSession
) -> None:
    try:
        program()
    except Unavailable as missing:
        pytest.skip(f"left out: {missing}")
    hello = orjson.dumps({"id": 1, "connect": {"token": ""}}).decode().ljust(60_000, "{")
    with Nginx([channels.port, channels.port]) as nginx:
        address = f"{nginx.url}/connection/sse"
        async with session.get(address, params={"cf_connect": hello}, headers={"Host": "127.0.0.1"}) as reply:
            assert reply.status == 200


async def test_who_cannot_be_given_it_is_told(
    line: Proxy, customer_there: Person, backend: Backend, talk: Talk
) -> None:
    room = f"room:{uuid4()}"
    async with talk(line.websocket_url, customer_there.token) as one:
        await one.subscribe(room)
        await backend.publish(room, 1)
        assert (await one.heard()).data == 1
        async with cut(line):
            await backend.publish(room, 2)
            await backend.do("history_remove", channel=room)
        assert await resumed(one, room) is None
        assert await resumed(one, room) is False


async def test_who_loads_a_state_goes_on_from_there_and_loads_it_again_when_it_must(
    line: Proxy, customer_there: Person, backend: Backend, talk: Talk
) -> None:
    channel = f"news:{uuid4()}"
    await backend.publish(channel, "in the state")
    async with talk(line.websocket_url, customer_there.token) as one:
        await one.subscribe(channel, start="state")
        await one.told("loaded")
        await backend.publish(channel, "after it")
        assert (await one.heard()).data == "after it"
        async with cut(line):
            await backend.publish(channel, "in the state")
            await backend.do("history_remove", channel=channel)
        await one.told("loaded")
        assert await resumed(one, channel)
        assert await resumed(one, channel)
        await backend.publish(channel, "after that")
        assert (await one.heard()).data == "after that"


async def test_differences_go_on_after_a_cut(line: Proxy, customer_there: Person, backend: Backend, talk: Talk) -> None:
    channel = f"doc:{uuid4()}"
    documents = [{"n": n, "text": "it stays as it is, " * 20} for n in range(6)]
    async with talk(line.websocket_url, customer_there.token) as one:
        await one.subscribe(channel, delta=True)
        await backend.publish(channel, *documents[:2])
        heard = [await one.heard() for _ in range(2)]
        async with cut(line):
            await backend.publish(channel, *documents[2:4])
        heard += [await one.heard() for _ in range(2)]
        await backend.publish(channel, *documents[4:])
        heard += [await one.heard() for _ in range(2)]
    assert [said.data for said in heard] == documents


async def test_a_channel_that_is_its_latest_publication(
    line: Proxy, customer_there: Person, backend: Backend, talk: Talk
) -> None:
    channel = f"price:{uuid4()}"
    await backend.publish(channel, 1, 2)
    async with talk(line.websocket_url, customer_there.token) as one:
        await one.subscribe(channel, start="begin")
        assert (await one.heard()).data == 2
        async with cut(line):
            await backend.publish(channel, 3, 4)
        assert (await one.heard()).data == 4


async def test_tokens_are_renewed_before_they_end(channels: Orderwire, backend: Backend, talk: Talk) -> None:
    user, room = str(uuid4()), f"$room:{uuid4()}"
    later = int(time.time()) + 600
    first, second = (backend_token(sub=user, exp=exp) for exp in (ending(), later))
    ticket, next_ticket = (backend_token(sub=user, channel=room, exp=exp) for exp in (ending(), later))
    async with talk(channels.websocket_url, first, renewed=second) as one:
        await one.subscribe(room, ticket, renewed=next_ticket)
        for _ in range(2):
            await one.told("renewed")
        await backend.publish(room, "still here")
        assert (await one.heard()).data == "still here"


@pytest.mark.parametrize("talk", ["javascript json", "python json"], indirect=True)
async def test_a_backend_whose_clock_is_ahead_locks_nobody_out(
    channels: Orderwire, backend: Backend, talk: Talk
) -> None:
    user, room = str(uuid4()), f"$room:{uuid4()}"
    too_early = int(time.time()) + 600
    ticket = backend_token(sub=user, channel=room, nbf=too_early)
    async with talk(
        channels.websocket_url, backend_token(sub=user, nbf=too_early), renewed=backend_token(sub=user)
    ) as one:
        await one.told("renewed")
        await one.subscribe(room, ticket, renewed=backend_token(sub=user, channel=room))
        await backend.publish(room, "come in")
        assert (await one.heard()).data == "come in"


async def test_a_backend_lets_a_user_in_and_puts_it_out(channels: Orderwire, backend: Backend, talk: Talk) -> None:
    user, channel = str(uuid4()), "closed:door"
    async with talk(channels.websocket_url, backend_token(sub=user)) as one:
        assert await one.subscribed() == (f"#{user}", None)
        await backend.publish(f"#{user}", "for you")
        assert (await one.heard()).data == "for you"
        with pytest.raises(Refused):
            await one.subscribe(f"{channel}s")
        await backend.do("subscribe", user=user, channel=channel)
        assert (await one.subscribed())[0] == channel
        await backend.publish(channel, "come in")
        assert (await one.heard()).data == "come in"
        await backend.do("unsubscribe", user=user, channel=channel)
        await one.told("unsubscribed")
        await backend.do("disconnect", user=user)
        assert await one.told("disconnected") == 3503


async def test_who_has_no_token_hears_what_is_for_everybody(channels: Orderwire, backend: Backend, talk: Talk) -> None:
    channel = f"lobby:{uuid4()}"
    async with talk(channels.websocket_url, "") as one:
        await one.subscribe(channel)
        await backend.publish(channel, "welcome")
        assert (await one.heard()).data == "welcome"
        with pytest.raises(Refused) as caught:
            await one.subscribe(f"typing:{uuid4()}")
        assert caught.value.code == 103


async def test_a_token_may_open_channels_by_a_pattern(channels: Orderwire, talk: Talk) -> None:
    opens = [{"channels": ["closed:room-*"], "match": "wildcard", "allow": ["sub", "pub"]}]
    async with talk(channels.websocket_url, backend_token(sub="ann", caps=opens)) as one:
        await one.subscribe("closed:room-7")
        await one.publish("closed:room-7", "hi")
        assert (await one.heard()).data == "hi"
        with pytest.raises(Refused) as caught:
            await one.subscribe("closed:hall")
        assert caught.value.code == 103


async def test_two_tabs_are_one_user(
    channels: Orderwire, customer_there: Person, staff_there: Person, talk: Talk
) -> None:
    channel = f"tabs:{uuid4()}"
    async with talk(channels.websocket_url, customer_there.token) as one:
        await one.subscribe(channel)
        assert await one.moved() == ("join", customer_there.id)
        async with talk(channels.websocket_url, staff_there.token) as tab:
            await tab.subscribe(channel)
            assert await one.moved() == ("join", staff_there.id)
            async with talk(channels.websocket_url, staff_there.token) as another:
                await another.subscribe(channel)
        assert await one.moved() == ("leave", staff_there.id)


async def test_who_speaks_does_not_hear_itself(
    channels: Orderwire, customer_there: Person, staff_there: Person, talk: Talk
) -> None:
    channel = f"cursor:{uuid4()}"
    async with (
        talk(channels.websocket_url, customer_there.token) as one,
        talk(channels.websocket_url, staff_there.token) as other,
    ):
        await one.subscribe(channel)
        await other.subscribe(channel)
        await one.publish(channel, "from one")
        await other.publish(channel, "from the other")
        assert (await one.heard()).data == "from the other"
        assert (await other.heard()).data == "from one"
