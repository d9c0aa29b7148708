"""A client that does not read: closed once 1 MiB is pending for it, and nobody else notices."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from uuid import uuid4

import aio_pika
import aiohttp
import orjson
import pytest

from bench.wire import Subscriber, host_and_port
from tests.faults.conftest import Deployment
from tests.services.metrics import counted
from tests.services.orderwire import Orderwire
from tests.torture.records import order_channel
from tests.torture.victims import fine

EVENTS = 60
EVENT_BYTES = 200_000  # 12 MB in all: more than the kernel's buffers and the server's bound together


class Reader(Subscriber):
    """`has_all` is done when it has heard `EVENTS` publications."""

    def __init__(self, host: str, token: str, channel: str) -> None:
        super().__init__(host, token, channel)
        self.has_all: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_publication(self, _frame: bytes) -> None:
        if self.publications == EVENTS:
            self.has_all.set_result(None)


@pytest.fixture
async def channel(deployment: Deployment, session: aiohttp.ClientSession) -> str:
    """Of an order that exists, so that staff may join and another service may publish to it."""
    for node in deployment.nodes:
        await fine(node)
    shop = deployment.shop
    body = {"items": [{"product_id": shop.product_ids[0], "quantity": 1}]}
    headers = {"Authorization": f"Bearer {shop.customers[0].token}"}
    async with session.post(f"{shop.urls[0]}/api/v1/orders", json=body, headers=headers) as response:
        return order_channel((await response.json())["id"])


async def connect(node: Orderwire, token: str, channel: str, *, receive_buffer: int = 0) -> Reader:
    host, port = host_and_port(node.base_url)
    raw = socket.socket()
    raw.setblocking(False)
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (host, port))
    _, reader = await loop.create_connection(lambda: Reader(f"{host}:{port}", token, channel), sock=raw)
    await reader.joined
    return reader


async def publish(deployment: Deployment, channel: str) -> None:
    """As another service: large events for one channel."""
    connection = await aio_pika.connect(deployment.rabbitmq.foreign_url)
    async with connection, connection.channel() as amqp:
        exchange = await amqp.get_exchange(deployment.exchange)
        for _ in range(EVENTS):
            attributes = {"specversion": "1.0", "id": str(uuid4()), "source": "/billing", "type": "invoice.drawn"}
            event = {**attributes, "channel": channel, "data": "x" * EVENT_BYTES}
            message = aio_pika.Message(orjson.dumps(event), content_type="application/cloudevents+json")
            await exchange.publish(message, "invoice.drawn")


async def test_a_client_that_does_not_read_is_closed_with_3008_and_the_others_hear_everything(
    deployment: Deployment, session: aiohttp.ClientSession, channel: str
) -> None:
    node, token = deployment.nodes[0], deployment.shop.staff_token
    async with AsyncExitStack() as stack:
        slow = await connect(node, token, channel, receive_buffer=4096)
        readers = [await connect(node, token, channel) for _ in range(4)]
        for each in (slow, *readers):
            assert each.transport is not None
            stack.callback(each.transport.abort)
        assert slow.transport is not None
        slow.transport.pause_reading()
        before = await counted(session, node, "orderwire_closes_total", code="3008")

        await publish(deployment, channel)
        async with asyncio.timeout(20):
            await asyncio.gather(*(reader.has_all for reader in readers))

        assert await counted(session, node, "orderwire_closes_total", code="3008") == before + 1
        slow.transport.resume_reading()
        async with asyncio.timeout(5):
            await slow.lost
        assert slow.publications < EVENTS
