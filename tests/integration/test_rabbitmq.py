"""What is RabbitMQ's alone: whom it vouches for, queues that were there before, messages that no codec reads."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

import aio_pika
import aiormq
import pytest
from aiormq import Channel
from aiormq.abc import ChannelFrame
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.heartbeat import Heartbeat
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from handlers.ports.broker import BrokerAway, Delivery, Message, partitions
from realtime.broker_rabbitmq import RabbitMQ, RabbitMQDeliveries, open_rabbitmq
from realtime.metrics import RealtimeMetrics
from realtime.rabbitmq_link import Link
from realtime.rabbitmq_topology import RabbitMQOptions, Topology


@pytest.fixture
def options(rabbitmq_url: str, unique_name: str) -> RabbitMQOptions:
    return RabbitMQOptions(
        rabbitmq_url, f"{unique_name}.events", f"{unique_name}.fanout", f"{unique_name}.dead", heartbeat=2
    )


@pytest.fixture
async def broker(options: RabbitMQOptions) -> AsyncIterator[RabbitMQ]:
    async with open_rabbitmq(options, RealtimeMetrics(CollectorRegistry())) as opened:
        await opened.publish([Message("id-0", "order.created", "s", b"own")])
        yield opened


async def publish_raw(
    url: str, exchange: str, body: bytes, properties: Basic.Properties, routing_key: str = "a.b"
) -> None:
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        await channel.basic_publish(body, exchange=exchange, routing_key=routing_key, properties=properties)


async def take(broker: RabbitMQ, queue: str, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(10), broker.consume(queue, prefetch=100) as deliveries:
        while len(taken) < count:
            taken += await deliveries.receive()
        await deliveries.acknowledge(taken)
    return taken


async def test_only_what_our_own_user_published_is_trusted(
    options: RabbitMQOptions, broker: RabbitMQ, rabbitmq_foreign_url: str
) -> None:
    await publish_raw(rabbitmq_foreign_url, options.exchange, b"unsigned", Basic.Properties())
    own, unsigned = await take(broker, options.fanout_queue, 2)
    assert own.trusted
    assert not unsigned.trusted


async def test_another_user_cannot_sign_as_ours(
    options: RabbitMQOptions, broker: RabbitMQ, rabbitmq_foreign_url: str
) -> None:
    forged = Basic.Properties(user_id=options.user)
    with pytest.raises(aiormq.exceptions.ChannelPreconditionFailed):
        await publish_raw(rabbitmq_foreign_url, options.exchange, b"forged", forged)


async def test_an_event_can_be_recognized_by_its_properties_alone(options: RabbitMQOptions, broker: RabbitMQ) -> None:
    async with await aio_pika.connect(options.url) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(options.exchange, "order.*")
        await broker.publish([Message("id-1", "order.paid", "s", b"own")])
        message = await queue.get()
        assert (message.message_id, message.type, message.routing_key) == ("id-1", "order.paid", "order.paid")
        assert message.content_type == "application/cloudevents+json"
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
        assert message.timestamp is not None


class Unreadable(Basic.Properties):
    """RabbitMQ lets these bytes pass; a client that decodes them fails."""

    def marshal(self) -> bytes:
        return super().marshal().replace(b"PLACE", b"\xff\xfe\xff\xfe\xff")


class Nested(Basic.Properties):
    """A header of lists in lists, which a client that decodes them by recursion cannot."""

    def marshal(self) -> bytes:
        value = b""
        for _ in range(2000):
            value = b"A" + struct.pack(">I", len(value)) + value
        table = b"\x01n" + value
        return struct.pack(">HI", self.flags["headers"], len(table)) + table


@pytest.mark.parametrize(
    "properties",
    [
        Unreadable(content_type="PLACE"),
        Unreadable(headers={"PLACE": 1}),
        Unreadable(headers={"cloudEvents:id": "1"}, app_id="PLACE"),
        Nested(),
    ],
    ids=["content type", "header name", "application", "nested header"],
)
async def test_properties_that_cannot_be_decoded_do_not_stop_the_queue(
    options: RabbitMQOptions, broker: RabbitMQ, properties: Basic.Properties
) -> None:
    await publish_raw(options.url, options.exchange, b"unreadable", properties)
    await broker.publish([Message("id-1", "order.created", "s", b"next")])
    _, unreadable, following = await take(broker, options.fanout_queue, 3)
    assert unreadable.body == b"unreadable"
    assert unreadable.content_type is None
    assert unreadable.headers == {}
    assert following.body == b"next"


async def test_a_time_past_the_calendar_does_not_stop_the_queue(options: RabbitMQOptions, broker: RabbitMQ) -> None:
    class FarFuture(Basic.Properties):
        def marshal(self) -> bytes:
            return super().marshal()[:-8] + b"\x7f" + b"\xff" * 7

    await publish_raw(options.url, options.exchange, b"late", FarFuture(timestamp=datetime.now(UTC)))
    assert [delivery.body for delivery in await take(broker, options.fanout_queue, 2)] == [b"own", b"late"]


class NotUtf8(str):
    """RabbitMQ lets these bytes pass, too."""

    __slots__ = ()

    def encode(self, *_: object, **__: object) -> bytes:
        return b"order.\xff\xfe"


async def test_a_routing_key_that_cannot_be_decoded_does_not_stop_the_queue(
    options: RabbitMQOptions, broker: RabbitMQ
) -> None:
    await publish_raw(options.url, options.exchange, b"unreadable", Basic.Properties(), NotUtf8("order.created"))
    await broker.publish([Message("id-1", "order.created", "s", b"next")])
    taken = await take(broker, options.fanout_queue, 3)
    assert [delivery.body for delivery in taken] == [b"own", b"unreadable", b"next"]


def numbered(start: int) -> list[Message]:
    return [Message(f"id-{n}", "order.created", f"s-{n}", b"%d" % n) for n in range(start, start + 30)]


async def counted(options: RabbitMQOptions, count: int, messages: int) -> list[int]:
    """How many of so many messages are in each of the partitions that there may be; all of them are taken out."""
    async with await aio_pika.connect(options.url) as connection, connection.channel() as channel, asyncio.timeout(5):
        while True:
            queues = [await channel.get_queue(name) for name in partitions(options.fanout_queue, count)]
            found = [queue.declaration_result.message_count or 0 for queue in queues]
            if sum(found) >= messages:
                break
        for queue in queues:
            await queue.purge()
    return found


async def test_partitions_come_and_go_and_every_event_is_in_one_that_is_read(options: RabbitMQOptions) -> None:
    for count, start in ((1, 0), (3, 30), (2, 60), (1, 90), (2, 120)):
        changed = replace(options, partitions=count)
        async with open_rabbitmq(changed, RealtimeMetrics(CollectorRegistry())) as broker:
            assert await broker.publish(numbered(start)) == 30
            found = await counted(options, 3 if start > 0 else 1, 30)
            assert sum(found) == 30
            assert all(found[:count])
            assert not any(found[count:])


async def test_another_service_says_by_which_key_its_events_keep_their_order(
    options: RabbitMQOptions, rabbitmq_foreign_url: str
) -> None:
    options = replace(options, partitions=3)
    async with open_rabbitmq(options, RealtimeMetrics(CollectorRegistry())) as broker:
        for key in ("a", "b", "c", "d"):
            await broker.publish([Message("id-1", "order.created", key, b"ours")])
            signed = Basic.Properties(headers={"cloudEvents:partitionkey": key})
            await publish_raw(rabbitmq_foreign_url, options.exchange, b"theirs", signed)
            assert sorted(await counted(options, 3, 2)) == [0, 0, 2]


async def test_events_of_other_services_without_a_key_keep_their_order_among_each_other(
    options: RabbitMQOptions, rabbitmq_foreign_url: str
) -> None:
    options = replace(options, partitions=3)
    async with open_rabbitmq(options, RealtimeMetrics(CollectorRegistry())) as broker:
        await broker.publish([Message("id-1", "order.created", "s", b"ours")])
        await counted(options, 3, 1)
        several: list[FieldTable | None] = [None, {}, {"another": "header"}]
        for headers in several:
            await publish_raw(rabbitmq_foreign_url, options.exchange, b"theirs", Basic.Properties(headers=headers))
        assert sorted(await counted(options, 3, 3)) == [0, 0, 3]


async def test_what_a_queue_refuses_ends_what_counts_as_durable(options: RabbitMQOptions, broker: RabbitMQ) -> None:
    """Another service's queue that is full. Behind a refused event nothing counts, or its row would be removed."""
    refused, *others = [Message("id-1", "order.paid", "s", b"1"), *numbered(2)[:3]]
    async with await aio_pika.connect(options.url) as operator, operator.channel() as channel:
        full: FieldTable = {"x-max-length": 0, "x-overflow": "reject-publish"}
        queue = await channel.declare_queue(exclusive=True, arguments=full)
        await queue.bind(options.exchange, "order.paid")
        assert await broker.publish([others[0], refused, *others[1:]]) == 1
        with pytest.raises(BrokerAway):
            await broker.publish([refused, *others])
    assert await broker.publish([refused, *others]) == 4


async def test_a_queue_that_is_there_with_other_arguments_is_used_and_warned_about_once(
    options: RabbitMQOptions,
) -> None:
    async with await aio_pika.connect(options.url) as operator, operator.channel() as channel:
        await channel.declare_queue(options.fanout_queue, durable=True, arguments={"x-max-length": 1000})
    with capture_logs() as logs:
        async with open_rabbitmq(options, RealtimeMetrics(CollectorRegistry())) as broker:
            await broker.publish([Message("id-0", "order.created", "s", b"own")])
            assert [delivery.body for delivery in await take(broker, options.fanout_queue, 1)] == [b"own"]
    warnings = [entry for entry in logs if entry["event"] == "rabbitmq_queue_used_as_it_is"]
    assert [entry["queue"] for entry in warnings] == [options.fanout_queue]
    assert "delete it" in warnings[0]["advice"]


async def test_dead_letters_with_headers_too_big_for_a_frame_are_kept_without_them(
    options: RabbitMQOptions, broker: RabbitMQ
) -> None:
    bad = Delivery(1, b"bad", "text/plain", {f"h{n}": "x" * 1000 for n in range(200)})
    await broker.dead_letter(bad, reason="malformed")
    [letter] = await take(broker, options.dead_letter_queue, 1)
    assert letter.headers["x-orderwire-reason"] == "malformed"
    assert len(letter.headers) < 20


class Kept(Link):
    """Its last channel can be looked at."""

    last: Channel

    async def channel(self) -> Channel:
        self.last = await super().channel()
        return self.last


@pytest.mark.usefixtures("broker")
async def test_what_cannot_be_acknowledged_in_time_comes_again(options: RabbitMQOptions) -> None:
    """As of a connection that ends: nobody reads its queue any more, and the channel is not closed yet."""
    link = Kept("consumer", options, Topology(options), RealtimeMetrics(CollectorRegistry()))
    deliveries = RabbitMQDeliveries(link, options.fanout_queue, 10, replace(options, heartbeat=1))
    async with asyncio.timeout(10), AsyncExitStack() as stack:
        stack.push_async_callback(link.close)
        stack.push_async_callback(deliveries.close)
        taken = await deliveries.receive()
        link.last.write_queue = asyncio.Queue(1)
        link.last.write_queue.put_nowait(ChannelFrame.marshall(0, [Heartbeat()]))
        await deliveries.acknowledge(taken)
        again = await deliveries.receive()
        await deliveries.acknowledge(again)
    assert [delivery.body for delivery in again] == [b"own"]


@pytest.mark.usefixtures("broker")
async def test_who_finds_a_connection_silent_that_another_has_replaced_leaves_the_new_one_alone(
    options: RabbitMQOptions,
) -> None:
    """Consumers of several partitions share one."""
    link = Kept("consumer", options, Topology(options), RealtimeMetrics(CollectorRegistry()))
    deliveries = RabbitMQDeliveries(link, options.fanout_queue, 10, replace(options, heartbeat=1))
    async with asyncio.timeout(10), AsyncExitStack() as stack:
        stack.push_async_callback(link.close)
        taken = await deliveries.receive()
        link.last.write_queue = asyncio.Queue(1)
        link.last.write_queue.put_nowait(ChannelFrame.marshall(0, [Heartbeat()]))
        await deliveries.acknowledge(taken)
        await link.drop()
        another = await link.channel()
        await deliveries.close()
        assert not another.is_closed


async def test_the_password_is_not_shown(options: RabbitMQOptions) -> None:
    assert options.url not in repr(options)


async def test_a_broker_that_refuses_the_topology_is_not_reachable(options: RabbitMQOptions) -> None:
    async with await aio_pika.connect(options.url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange(options.exchange, aio_pika.ExchangeType.DIRECT, durable=True)
    async with open_rabbitmq(options, RealtimeMetrics(CollectorRegistry())) as broker:
        with pytest.raises(BrokerAway):
            await broker.publish([Message("1", "order.created", "s", b"{}")])
        assert not await broker.is_reachable()
