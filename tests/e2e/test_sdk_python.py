from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import centrifuge  # type: ignore[import-untyped]
import orjson
import pytest

from handlers.ports.domain import Position
from tests.contract_document import check
from tests.e2e import sdk
from tests.e2e.sdk import Heard, Joined
from tests.services.orderwire import Orderwire
from tests.services.person import Person
from tests.services.proxy import Proxy


class Follower(centrifuge.ClientEventHandler, centrifuge.SubscriptionEventHandler):  # type: ignore[misc]
    """Takes the events of a subscription of its own, or of the client where the server subscribes it."""

    def __init__(self) -> None:
        self.epoch = ""
        self.subscription: centrifuge.Subscription | None = None
        self._joins: asyncio.Queue[Joined] = asyncio.Queue()
        self._publications: asyncio.Queue[Heard] = asyncio.Queue()

    async def joined(self) -> Joined:
        return await self._joins.get()

    async def heard(self) -> Heard:
        return await self._publications.get()

    async def past(self, *, limit: int, reverse: bool, since: Position | None = None) -> list[Heard]:
        assert self.subscription is not None
        position = centrifuge.StreamPosition(since.offset, since.epoch) if since else None
        page = await self.subscription.history(limit=limit, reverse=reverse, since=position)
        return [_heard(publication) for publication in page.publications]

    async def on_subscribed(self, ctx: Any) -> None:
        if ctx.stream_position is not None:
            self.epoch = ctx.stream_position.epoch
        self._joins.put_nowait(Joined(ctx.was_recovering, ctx.recovered))

    async def on_publication(self, ctx: Any) -> None:
        self._publications.put_nowait(_heard(ctx.pub))


def _heard(publication: Any) -> Heard:
    # In the Protobuf form the SDK hands payloads on as bytes.
    event = orjson.loads(publication.data) if isinstance(publication.data, bytes) else publication.data
    check("OrderPublication", event)
    return Heard(publication.offset, event["id"], event["data"])


@pytest.fixture(params=[False, True], ids=["json", "protobuf"])
def use_protobuf(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@asynccontextmanager
async def following(
    proxy: Proxy, person: Person, channel: str | None, *, use_protobuf: bool
) -> AsyncIterator[Follower]:
    follower = Follower()
    # What the server subscribes us to would be mixed up with our own subscription.
    events = follower if channel is None else None
    client = centrifuge.Client(
        proxy.websocket_url, events=events, token=person.token, max_reconnect_delay=1.0, use_protobuf=use_protobuf
    )
    if channel is not None:
        follower.subscription = client.new_subscription(channel, events=follower)
        await follower.subscription.subscribe()
    await client.connect()
    try:
        yield follower
    finally:
        await client.disconnect()


async def test_the_python_sdk_hears_what_is_placed_over_rest(proxy: Proxy, staff: Person, use_protobuf: bool) -> None:
    async with following(proxy, staff, "orders:feed", use_protobuf=use_protobuf) as follower:
        await sdk.hears_what_is_placed(follower, staff)


async def test_the_python_sdk_is_subscribed_to_a_customers_own_channel(
    proxy: Proxy, customer: Person, use_protobuf: bool
) -> None:
    async with following(proxy, customer, None, use_protobuf=use_protobuf) as follower:
        await sdk.hears_what_is_placed(follower, customer)


async def test_the_python_sdk_reads_the_past(proxy: Proxy, staff: Person, use_protobuf: bool) -> None:
    async with following(proxy, staff, "orders:feed", use_protobuf=use_protobuf) as follower:
        await sdk.reads_the_past(follower, staff)


@pytest.mark.parametrize("channel", ["orders:feed", None])
async def test_the_python_sdk_resumes_after_the_server_was_killed(
    proxy: Proxy, served: Orderwire, staff: Person, use_protobuf: bool, channel: str | None
) -> None:
    async with following(proxy, staff, channel, use_protobuf=use_protobuf) as follower:
        await sdk.resumes_after_a_kill(follower, staff, served, proxy)
