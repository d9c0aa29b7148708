"""docs/events.md is true: its tables are complete, its schema fits, its examples and commands do what they say."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import aio_pika
import aiormq
import orjson
import pytest
from aio_pika.abc import AbstractConnection
from prometheus_client import CollectorRegistry

from handlers.events import LIFE_CYCLE_TYPES, OWN_TYPES, SOURCE, Event
from handlers.orders.model import Line, Order, Status
from handlers.orders.schemas import OrderBody
from handlers.ports.broker import Delivery, Message
from realtime.broker_rabbitmq import RabbitMQ, open_rabbitmq
from realtime.cloudevents import Reason, parse
from realtime.metrics import RealtimeMetrics
from realtime.rabbitmq_topology import RabbitMQOptions
from tests.contract_document import check
from tests.services import debian
from tests.services.rabbitmq import RabbitMQ as Server
from tests.services.server import Unavailable

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "events.md").read_text()
NOW = datetime(2026, 1, 31, tzinfo=UTC)


def blocks(info: str) -> list[str]:
    """The fenced blocks that are marked with exactly `info`."""
    return re.findall(rf"^```{re.escape(info)}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def order_data() -> dict[str, object]:
    line = Line(uuid4(), "CUP-01", "Cup", 900, 2)
    order = Order(uuid4(), 7, uuid4(), Status.PAID, 2, "EUR", (line,), NOW, NOW)
    data: dict[str, object] = orjson.loads(OrderBody.of(order).encode())
    return data


def test_every_type_and_every_reason_is_listed_and_nothing_else() -> None:
    own, refused = TEXT.index("## Orderwire's own events"), TEXT.index("## Refused events")
    rows = re.compile(r"^\| `([\w.]+)` \|", re.MULTILINE)
    assert set(rows.findall(TEXT[own : TEXT.index("## Publishing")])) == OWN_TYPES | LIFE_CYCLE_TYPES
    assert rows.findall(TEXT[refused:]) == [reason.value for reason in Reason]


def test_the_example_is_an_event_of_ours() -> None:
    [example] = blocks("json")
    event = parse(Delivery(1, example.encode(), "application/cloudevents+json"), NOW)
    assert (event.source, event.type) == (SOURCE, "order.paid")
    check("OrderEvent", orjson.loads(example))


@pytest.fixture
def exchange(unique_name: str) -> str:
    return f"{unique_name}.events"


@pytest.fixture
async def broker(own_rabbitmq: Server, unique_name: str, exchange: str) -> AsyncIterator[RabbitMQ]:
    options = RabbitMQOptions(own_rabbitmq.url, exchange, f"{unique_name}.fanout", f"{unique_name}.dead")
    async with open_rabbitmq(options, RealtimeMetrics(CollectorRegistry())) as opened:
        await opened.publish([paid()])
        yield opened


def paid() -> Message:
    event = Event("e-1", SOURCE, "order.paid", str(uuid4()), NOW, order_data())
    return Message(event.id, event.type, event.subject, event.encode())


async def published(broker: RabbitMQ, queue: str) -> Event:
    """The first event after the one that the fixture published."""
    taken: list[Delivery] = []
    async with asyncio.timeout(10), broker.consume(queue, prefetch=10) as deliveries:
        while len(taken) < 2:
            taken += await deliveries.receive()
    return parse(taken[1], NOW)


async def test_the_python_example_publishes(
    broker: RabbitMQ, exchange: str, unique_name: str, own_rabbitmq: Server
) -> None:
    [example] = blocks("python publish")
    command = [sys.executable, "-c", example.replace("orderwire.events", exchange)]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=20, env={"AMQP_URL": own_rabbitmq.foreign_url})
    event = await published(broker, f"{unique_name}.fanout")
    assert (event.type, event.channel) == ("invoice.sent", "orders:feed")


@pytest.mark.timeout(120)  # the first time, the package is fetched
async def test_the_command_line_publishes(
    broker: RabbitMQ, exchange: str, unique_name: str, own_rabbitmq: Server
) -> None:
    try:
        prefix = await asyncio.to_thread(debian.prefix_of, "amqp-tools")
    except Unavailable as missing:
        pytest.skip(f"left out: {missing}")
    [example] = blocks("sh publish")
    environment = {
        "AMQP_URL": own_rabbitmq.foreign_url.rstrip("/"),
        "PATH": f"{prefix}/usr/bin:{os.defpath}",
        "LD_LIBRARY_PATH": debian.library_path(prefix),
    }
    command = ["sh", "-c", example.replace("orderwire.events", exchange)]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=20, env=environment)
    event = await published(broker, f"{unique_name}.fanout")
    assert (event.id, event.type, event.channel) == ("i-2", "invoice.sent", "orders:feed")


async def test_the_consumer_sees_our_events(
    broker: RabbitMQ, exchange: str, unique_name: str, own_rabbitmq: Server
) -> None:
    [example] = blocks("python consume")
    text = example.replace("orderwire.events", exchange).replace("billing.orders", f"{unique_name}.orders")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text, stdout=asyncio.subprocess.PIPE, env={"AMQP_URL": own_rabbitmq.foreign_url}
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = b""
            while not line:  # until its queue is bound, what is published does not reach it
                await broker.publish([paid()])
                line = await _line_within(process.stdout, 0.2)
        assert line.startswith(b"order.paid ")
        assert line.endswith(b" 2\n")
    finally:
        process.kill()
        await process.communicate()


async def _line_within(stream: asyncio.StreamReader, seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await stream.readline()
    except TimeoutError:
        return b""


@pytest.fixture
def restricted(own_rabbitmq: Server) -> Iterator[Server]:
    """With the rights of the document, exactly by its commands."""
    for line in "".join(blocks("sh permissions")).splitlines():
        own_rabbitmq.control(*shlex.split(line)[1:])
    yield own_rabbitmq
    own_rabbitmq.control("clear_topic_permissions", "billing")
    for user in ("billing", "orderwire"):
        own_rabbitmq.control("set_permissions", user, ".*", ".*", ".*")


async def test_the_rights_suffice_and_no_more(restricted: Server) -> None:
    options = RabbitMQOptions(restricted.url, "orderwire.events", "orderwire.fanout", "orderwire.dead")
    async with open_rabbitmq(options, RealtimeMetrics(CollectorRegistry())) as broker:
        assert await broker.publish([paid()]) == 1
        await broker.dead_letter(Delivery(1, b"bad", None), reason="malformed")
        async with broker.consume(options.fanout_queue, prefetch=10) as deliveries:
            assert [delivery.trusted for delivery in await deliveries.receive()] == [True]
    async with await aio_pika.connect(restricted.foreign_url) as connection:
        async with connection.channel() as channel:
            queue = await channel.declare_queue("billing.orders", auto_delete=True)
            await queue.bind("orderwire.events", "order.*")
            exchange = await channel.get_exchange("orderwire.events", ensure=False)
            await exchange.publish(aio_pika.Message(b"{}"), "invoice.sent")
        for forbidden in (publish_as_orderwire, consume_the_fan_out, read_the_dead_letters):
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                await forbidden(connection)


async def publish_as_orderwire(connection: AbstractConnection) -> None:
    async with connection.channel() as channel:
        exchange = await channel.get_exchange("orderwire.events", ensure=False)
        await exchange.publish(aio_pika.Message(b"{}"), "order.paid")


async def consume_the_fan_out(connection: AbstractConnection) -> None:
    async with connection.channel() as channel:
        await (await channel.get_queue("orderwire.fanout", ensure=False)).get()


async def read_the_dead_letters(connection: AbstractConnection) -> None:
    async with connection.channel() as channel:
        await (await channel.get_queue("orderwire.dead", ensure=False)).get()
