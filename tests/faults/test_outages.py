"""A part that is away, as the people outside see it: two real nodes, real servers stopped and killed beside them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import orjson
import pytest

from tests.faults.conftest import Deployment
from tests.services.feed import Feed, subscribed
from tests.services.orderwire import Orderwire
from tests.torture.load import Shop
from tests.torture.records import ORDERS_FEED
from tests.torture.victims import fine

pytestmark = pytest.mark.timeout(180)

PROMPTLY = 3.0  # seconds in which every request is answered, whatever is away
CAUGHT_UP = 20.0  # seconds after an outage in which all that waited has arrived
TAKEOVER = 10.0  # seconds until relay and fan-out work again after a node died
WITHOUT_BUS = 1.0  # seconds from reply to client while Redis is away


@pytest.fixture
async def shop(deployment: Deployment) -> Shop:
    """Once nothing is away for any node."""
    for node in deployment.nodes:
        await fine(node)
    return deployment.shop


async def post(session: aiohttp.ClientSession, node: Orderwire, shop: Shop) -> tuple[int, str]:
    """Status, and the order's id or the problem's code."""
    items = [{"product_id": shop.product_ids[0], "quantity": 1}]
    headers = {"Authorization": f"Bearer {shop.customers[0].token}", "Content-Type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=2 * PROMPTLY)
    url = f"{node.base_url}/api/v1/orders"
    async with session.post(url, data=orjson.dumps({"items": items}), headers=headers, timeout=timeout) as response:
        body = await response.json(content_type=None)
    return response.status, body["id"] if response.status == 201 else body["code"]


async def placed(session: aiohttp.ClientSession, node: Orderwire, shop: Shop) -> str:
    status, order_id = await post(session, node, shop)
    assert status == 201, order_id
    return order_id


async def every(seconds: float, total: float) -> AsyncIterator[int]:
    """The beat of somebody who comes again and again for `total` seconds."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number in range(int(total / seconds)):
        await asyncio.sleep(max(0.0, start + number * seconds - loop.time()))
        yield number


async def test_orders_are_accepted_while_rabbitmq_is_away_and_all_arrive_afterwards(
    deployment: Deployment, session: aiohttp.ClientSession, shop: Shop, outage: float
) -> None:
    node = deployment.nodes[0]
    async with subscribed(session, node, shop.staff_token, ORDERS_FEED) as feed:
        await asyncio.to_thread(deployment.rabbitmq.stop)
        accepted = []
        async for _ in every(0.25, outage):
            async with asyncio.timeout(PROMPTLY):
                accepted.append(await placed(session, node, shop))
        await asyncio.to_thread(deployment.rabbitmq.start)

        async with asyncio.timeout(CAUGHT_UP):
            await feed.until(accepted[-1])

    assert [publication.change.id for publication in feed.heard] == accepted


async def test_clients_go_on_receiving_within_a_second_while_redis_is_away(
    deployment: Deployment, session: aiohttp.ClientSession, shop: Shop, outage: float
) -> None:
    first, second = deployment.nodes
    async with AsyncExitStack() as stack:
        feeds = [
            await stack.enter_async_context(subscribed(session, node, shop.staff_token, ORDERS_FEED))
            for node in deployment.nodes
        ]
        await heard_by_all(feeds, await placed(session, first, shop), TAKEOVER)
        await asyncio.to_thread(deployment.redis.stop)

        async for number in every(0.5, outage):
            order_id = await placed(session, (first, second)[number % 2], shop)
            await heard_by_all(feeds, order_id, WITHOUT_BUS)


async def heard_by_all(feeds: list[Feed], order_id: str, within: float) -> None:
    async with asyncio.timeout(within):
        await asyncio.gather(*(feed.until(order_id) for feed in feeds))


async def test_while_postgresql_is_away_requests_get_503_promptly_and_sockets_stay_open(
    deployment: Deployment, session: aiohttp.ClientSession, shop: Shop
) -> None:
    node = deployment.nodes[0]
    async with subscribed(session, node, shop.staff_token, ORDERS_FEED) as feed:
        await asyncio.to_thread(deployment.postgres.kill)
        answers = []
        async for _ in every(0.5, 3.0):
            async with asyncio.timeout(PROMPTLY):
                answers.append(await post(session, node, shop))
        await asyncio.to_thread(deployment.postgres.start)
        await fine(node)

        order_id = await placed(session, node, shop)
        async with asyncio.timeout(CAUGHT_UP):
            await feed.until(order_id)

        assert answers == [(503, "unavailable")] * len(answers)
        assert feed.is_open


async def test_an_order_posted_to_one_node_is_seen_by_clients_of_both(
    deployment: Deployment, session: aiohttp.ClientSession, shop: Shop
) -> None:
    async with AsyncExitStack() as stack:
        feeds = [
            await stack.enter_async_context(subscribed(session, node, shop.staff_token, ORDERS_FEED))
            for node in deployment.nodes
        ]
        for node in deployment.nodes:
            await heard_by_all(feeds, await placed(session, node, shop), within=2.0)


@pytest.mark.parametrize("dies", [0, 1])
async def test_either_node_is_killed_and_the_other_carries_on(
    deployment: Deployment, session: aiohttp.ClientSession, shop: Shop, dies: int
) -> None:
    survivor = deployment.nodes[1 - dies]
    async with subscribed(session, survivor, shop.staff_token, ORDERS_FEED) as feed:
        await asyncio.to_thread(deployment.nodes[dies].kill)

        order_id = await placed(session, survivor, shop)
        async with asyncio.timeout(TAKEOVER):
            await feed.until(order_id)
