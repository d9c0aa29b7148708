"""From a real RabbitMQ into real streams: good events arrive, bad ones are put aside with their reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID, uuid4

import aio_pika
import orjson
import pytest
from prometheus_client import CollectorRegistry

from handlers.events import MAX_EVENT_BYTES, SOURCE, Event
from handlers.ports.broker import Delivery, Message
from handlers.ports.streams import Published
from realtime.broker_rabbitmq import RabbitMQ, open_rabbitmq
from realtime.bus import decode
from realtime.bus_memory import MemoryExchange
from realtime.fanout import FanOut, FanOutOptions
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import Namespaces
from realtime.rabbitmq_topology import RabbitMQOptions
from server.serve import endless
from storage.streams import PostgresStreams, StreamsOptions, open_streams
from tests.services.postgres import Postgres

ORDER, CUSTOMER = uuid4(), uuid4()
STRUCTURED = "application/cloudevents+json"


@dataclass
class Path:
    """Everything from the exchange to the bus, running."""

    options: RabbitMQOptions
    broker: RabbitMQ
    streams: PostgresStreams
    registry: CollectorRegistry
    heard: asyncio.Queue[Published]

    async def hear(self, count: int) -> list[Published]:
        async with asyncio.timeout(15):
            return [await self.heard.get() for _ in range(count)]

    async def dead_letters(self, count: int) -> list[tuple[object, bytes]]:
        """(reason, body) of each."""
        letters: list[Delivery] = []
        async with (
            asyncio.timeout(10),
            self.broker.consume(self.options.dead_letter_queue, prefetch=100) as deliveries,
        ):
            while len(letters) < count:
                letters += await deliveries.receive()
        return [(letter.headers["x-orderwire-reason"], letter.body) for letter in letters]


@asynccontextmanager
async def running(rabbitmq_url: str, postgres_url: str, name: str) -> AsyncIterator[Path]:
    options = RabbitMQOptions(rabbitmq_url, f"{name}.events", f"{name}.fanout", f"{name}.dead", heartbeat=2)
    registry, exchange = CollectorRegistry(), MemoryExchange()
    metrics, bus = RealtimeMetrics(registry), exchange.bus()
    heard: asyncio.Queue[Published] = asyncio.Queue()

    def receive(message: bytes) -> None:
        for item in decode(message):
            assert isinstance(item, Published)
            heard.put_nowait(item)

    async with (
        open_rabbitmq(options, metrics) as broker,
        open_streams(StreamsOptions(postgres_url)) as streams,
        asyncio.TaskGroup() as group,
    ):
        namespaces = Namespaces(retention=86_400)
        fan_out_options = FanOutOptions(100, {"invoice.sent": "order:{subject}"}, namespaces)
        fan_out = FanOut(options.fanout_queue, broker, streams, bus, metrics, fan_out_options)
        tasks = [group.create_task(fan_out.run()), group.create_task(bus.run(receive))]
        yield Path(options, broker, streams, registry, heard)
        for task in tasks:
            task.cancel()


@pytest.fixture
async def path(rabbitmq_url: str, postgres_url: str, unique_name: str) -> AsyncIterator[Path]:
    async with running(rabbitmq_url, postgres_url, unique_name) as started:
        yield started


def paid(number: int, order: UUID = ORDER) -> Message:
    event = Event(f"e-{number}", SOURCE, "order.paid", str(order), datetime.now(UTC), {"version": number}, CUSTOMER)
    return Message(event.id, event.type, event.subject, event.encode())


def invoice(**attributes: object) -> bytes:
    envelope = {"specversion": "1.0", "id": "i-1", "source": "/billing", "type": "invoice.sent", "data": {"sum": 7}}
    return orjson.dumps({**envelope, **attributes})


async def publish_as(url: str, exchange_name: str, *messages: aio_pika.Message) -> None:
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        exchange = await channel.get_exchange(exchange_name, ensure=False)
        for message in messages:
            await exchange.publish(message, "any.key")


async def test_an_event_reaches_every_channel_that_may_hear_it_in_one_bus_message(path: Path) -> None:
    await path.broker.publish([paid(1)])
    published = await path.hear(3)
    assert [one.channel for one in published] == ["orders:feed", f"order:{ORDER}", f"#{CUSTOMER}"]
    page = await path.streams.read("orders:feed", after=0, limit=10, max_bytes=10_000)
    assert [one.offset for one in page.publications] == [1]
    body = orjson.loads(page.publications[0].data)
    assert (body["id"], body["type"], body["data"]) == ("e-1", "order.paid", {"version": 1})
    assert not {"recipient", "channel", "traceparent"} & set(body)


async def test_an_event_that_is_published_twice_is_heard_once(path: Path) -> None:
    await path.broker.publish([paid(1), paid(2)])
    await path.broker.publish([paid(2), paid(1)])
    await path.broker.publish([paid(3)])
    heard = [one for one in await path.hear(9) if one.channel == "orders:feed"]
    assert [orjson.loads(one.publication.data)["id"] for one in heard] == ["e-1", "e-2", "e-3"]
    assert path.registry.get_sample_value("orderwire_appended_total") == 9


async def test_another_services_event_is_heard_where_it_says_or_where_its_type_is_configured_to(
    path: Path, rabbitmq_foreign_url: str
) -> None:
    await path.broker.publish([paid(0)])
    await path.hear(3)
    binary = {
        f"cloudEvents:{name}": value for name, value in orjson.loads(invoice(id="i-2", subject=str(ORDER))).items()
    }
    binary.pop("cloudEvents:data")
    await publish_as(
        rabbitmq_foreign_url,
        path.options.exchange,
        aio_pika.Message(invoice(channel="orders:feed"), content_type=STRUCTURED),
        aio_pika.Message(b'{"sum": 8}', content_type="application/json", headers=binary),
    )
    first, second = await path.hear(2)
    assert first.channel == "orders:feed"
    assert second.channel == f"order:{ORDER}"
    assert orjson.loads(second.publication.data)["data"] == {"sum": 8}


async def test_bad_events_are_put_aside_with_their_reason_and_the_next_good_one_arrives(
    path: Path, rabbitmq_foreign_url: str
) -> None:
    await path.broker.publish([paid(0)])
    await path.hear(3)
    forged = aio_pika.Message(paid(9).body, content_type=STRUCTURED)
    bad = {
        "malformed": aio_pika.Message(b"{", content_type=STRUCTURED),
        "oversized": aio_pika.Message(b" " * (MAX_EVENT_BYTES + 1), content_type=STRUCTURED),
        "forged": forged,
        "unaddressed": aio_pika.Message(invoice(type="invoice.lost"), content_type=STRUCTURED),
        "unknown_channel": aio_pika.Message(invoice(channel="secret:1"), content_type=STRUCTURED),
        "missing_attribute": aio_pika.Message(invoice(id=""), content_type=STRUCTURED),
        "bad_attribute": aio_pika.Message(invoice(time="now"), content_type=STRUCTURED),
        "bad_data": aio_pika.Message(invoice(data_base64="AA=="), content_type=STRUCTURED),
        "not_cloudevent": aio_pika.Message(b"hello"),
    }
    await publish_as(rabbitmq_foreign_url, path.options.exchange, *bad.values())
    await path.broker.publish([paid(1)])
    assert orjson.loads((await path.hear(3))[0].publication.data)["id"] == "e-1"
    assert dict(await path.dead_letters(len(bad))) == {reason: message.body for reason, message in bad.items()}
    for reason in bad:
        assert path.registry.get_sample_value("orderwire_dead_letters_total", {"reason": reason}) == 1


async def test_partitions_move_to_the_node_whose_they_are_and_nothing_is_lost_or_doubled(
    rabbitmq_url: str, postgres_url: str, unique_name: str
) -> None:
    name = unique_name
    options = RabbitMQOptions(rabbitmq_url, f"{name}.events", f"{name}.fanout", f"{name}.dead", 2, partitions=2)
    fan_out_options = FanOutOptions(100, {}, Namespaces(retention=86_400), tenure=0.2, absence=0.1)
    registries = [CollectorRegistry(), CollectorRegistry()]
    bus = MemoryExchange().bus()

    def moved() -> list[float]:
        return [registry.get_sample_value("orderwire_appended_total") or 0.0 for registry in registries]

    async with open_streams(StreamsOptions(postgres_url)) as streams, AsyncExitStack() as stack:
        brokers = []
        group = await stack.enter_async_context(asyncio.TaskGroup())
        sent = 0
        for node, registry in enumerate(registries):
            metrics = RealtimeMetrics(registry)
            brokers.append(await stack.enter_async_context(open_rabbitmq(options, metrics)))
            for number, queue in enumerate(options.fanout_queues):
                is_mine = partial(int.__eq__, node, number)
                fan_out = FanOut(queue, brokers[-1], streams, bus, metrics, fan_out_options, is_mine=is_mine)
                await stack.enter_async_context(endless(group, {queue: fan_out.run}))
            async with asyncio.timeout(20):
                while not moved()[node]:
                    sent += await brokers[0].publish([paid(sent + n, uuid4()) for n in range(10)])
                    await asyncio.sleep(0.02)
        settled = moved()
        for _ in range(20):
            sent += await brokers[0].publish([paid(sent + n, uuid4()) for n in range(10)])
        async with asyncio.timeout(10):
            while sum(moved()) < 3 * sent:  # noqa: ASYNC110 - a counter tells nobody
                await asyncio.sleep(0.02)
        assert all(after > before for after, before in zip(moved(), settled, strict=True))
        page = await streams.read("orders:feed", after=0, limit=10_000, max_bytes=10_000_000)
        heard = [orjson.loads(one.data)["id"] for one in page.publications]
        assert sorted(heard) == sorted(f"e-{number}" for number in range(sent))


async def test_while_postgresql_is_away_the_batch_is_held_and_then_arrives_in_order(
    rabbitmq_url: str, own_postgres: Postgres, own_postgres_url: str, unique_name: str
) -> None:
    async with running(rabbitmq_url, own_postgres_url, unique_name) as path:
        await path.broker.publish([paid(0)])
        await path.hear(3)
        await asyncio.to_thread(own_postgres.kill)
        await path.broker.publish([paid(number) for number in range(1, 20)])
        await asyncio.to_thread(own_postgres.start)
        await path.broker.publish([paid(number) for number in range(20, 30)])
        heard = [one for one in await path.hear(29 * 3) if one.channel == "orders:feed"]
    assert [orjson.loads(one.publication.data)["id"] for one in heard] == [f"e-{number}" for number in range(1, 30)]
    assert [one.publication.offset for one in heard] == list(range(2, 31))
