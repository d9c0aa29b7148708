"""Two nodes behind nginx are restarted one after the other: no request fails, and clients miss nothing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

import aiohttp
import pytest

from tests.faults.conftest import Deployment
from tests.services.nginx import Nginx, program
from tests.services.server import Unavailable
from tests.torture.clients import Client
from tests.torture.conversation import Conversation
from tests.torture.load import Customer
from tests.torture.records import ORDERS_FEED, Joined, Log, Publication

pytestmark = pytest.mark.timeout(120)

CLIENTS = 30
ORDERS_A_SECOND = 40
OUT_OF_THE_BALANCE = 2.0  # seconds: fail_timeout in deploy/nginx.conf


class Orders:
    """Placed one after the other at a rate, each asked for once; `answers` counts them by what came back."""

    def __init__(self, session: aiohttp.ClientSession, url: str, buyer: Customer, product_id: str) -> None:
        self.ids: list[str] = []
        self.answers: Counter[str] = Counter()
        self._session = session
        self._url = f"{url}/api/v1/orders"
        self._headers = {"Authorization": f"Bearer {buyer.token}"}
        self._body = {"items": [{"product_id": product_id, "quantity": 1}]}

    async def run(self) -> None:
        """Until cancelled; then the last answers are waited for."""
        async with asyncio.TaskGroup() as asking:
            try:
                for number in count():
                    asking.create_task(self._place(f"rolling-{number}"))
                    await asyncio.sleep(1 / ORDERS_A_SECOND)
            except asyncio.CancelledError:
                return

    async def _place(self, key: str) -> None:
        headers = {**self._headers, "Idempotency-Key": key}
        try:
            async with self._session.post(self._url, json=self._body, headers=headers) as reply:
                answer = str(reply.status)
                if reply.status == 201:
                    self.ids.append((await reply.json())["id"])
        except aiohttp.ClientError as error:
            answer = type(error).__name__
        self.answers[answer] += 1


@pytest.fixture
def nginx(deployment: Deployment) -> Iterator[Nginx]:
    try:
        program()
    except Unavailable as missing:
        pytest.skip(f"left out: {missing}")
    with Nginx([node.port for node in deployment.nodes]) as server:
        yield server


@asynccontextmanager
async def running(clients: Sequence[Client]) -> AsyncIterator[None]:
    """They come back when they are sent away, and go of their own accord never."""
    async with asyncio.TaskGroup() as tasks:
        lives = []
        for client in clients:
            client.settle()
            lives.append(tasks.create_task(client.run()))
        yield
        for life in lives:
            life.cancel()


async def until_more_are_placed(orders: Orders) -> None:
    """For a second or so."""
    enough = len(orders.ids) + ORDERS_A_SECOND
    while len(orders.ids) < enough:  # noqa: ASYNC110 - each is placed by a task of its own
        await asyncio.sleep(0.01)


async def until_all_are_there(clients: Sequence[Client]) -> None:
    async with asyncio.timeout(20):
        for client in clients:
            while not client.logs()[0].entries:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)


async def until_all_have(clients: Sequence[Client], orders: set[str]) -> None:
    async with asyncio.timeout(20):
        for client in clients:
            while not orders <= heard(client.logs()[0]):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)


def heard(log: Log) -> set[str]:
    return {entry.change.id for entry in log.entries if isinstance(entry, Publication)}


async def test_a_rolling_restart_loses_no_request_and_no_publication(
    deployment: Deployment, nginx: Nginx, session: aiohttp.ClientSession
) -> None:
    shop = deployment.shop
    clients = [
        Client(
            Conversation(f"staff-{number}", shop.staff_token, [ORDERS_FEED]),
            "",
            [nginx.url.replace("http", "ws") + "/connection/websocket"],
            random.Random(number),
            watches=False,
        )
        for number in range(CLIENTS)
    ]
    orders = Orders(session, nginx.url, shop.customers[0], shop.product_ids[0])
    async with running(clients):
        await until_all_are_there(clients)
        placing = asyncio.create_task(orders.run())
        for node in deployment.nodes:
            await until_more_are_placed(orders)
            assert await asyncio.to_thread(node.stop) == 0
            node.spawn()
            await node.ready()
            await asyncio.sleep(OUT_OF_THE_BALANCE)
        placing.cancel()
        await asyncio.wait([placing])
        await until_all_have(clients, set(orders.ids))

    assert set(orders.answers) == {"201"}, orders.answers
    assert sum(client.connections for client in clients) >= 2 * CLIENTS - CLIENTS // 2, "nobody was sent away"
    for client in clients:
        [log] = client.logs()[:1]
        joined = [entry for entry in log.entries if isinstance(entry, Joined)]
        offsets = [entry.offset for entry in log.entries if isinstance(entry, Publication)]
        assert len(joined) + len(offsets) == len(log.entries), "told to reload"
        assert all(entry.recovered for entry in joined[1:])
        assert offsets == list(range(joined[0].offset + 1, joined[0].offset + 1 + len(offsets)))
