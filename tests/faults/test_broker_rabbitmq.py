"""RabbitMQ dies, freezes, loses its queues: nothing confirmed is lost, order holds, and consuming goes on by itself."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace

import aio_pika
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from handlers.ports.broker import BrokerAway, Deliveries, Delivery, Message
from realtime.broker_rabbitmq import RabbitMQ as Broker
from realtime.broker_rabbitmq import open_rabbitmq
from realtime.metrics import RealtimeMetrics
from realtime.rabbitmq_topology import RabbitMQOptions
from tests.services.rabbitmq import RabbitMQ

HEARTBEAT = 1
# RabbitMQ 3.10.8 killed within a second of declaring a quorum queue comes back with one that never confirms.
SETTLED_SECONDS = 2.0


@pytest.fixture
def options(own_rabbitmq: RabbitMQ, unique_name: str) -> RabbitMQOptions:
    return RabbitMQOptions(
        own_rabbitmq.url, f"{unique_name}.events", f"{unique_name}.fanout", f"{unique_name}.dead", heartbeat=HEARTBEAT
    )


@pytest.fixture
async def broker(options: RabbitMQOptions) -> AsyncIterator[Broker]:
    async with open_rabbitmq(options, RealtimeMetrics(CollectorRegistry())) as opened:
        yield opened


def message(number: int) -> Message:
    return Message(f"id-{number}", "order.created", f"subject-{number % 5}", b"%d" % number)


async def surely(attempt: Callable[[], Awaitable[object]]) -> None:
    """Again and again until the broker is there."""
    while True:
        try:
            await attempt()
        except BrokerAway:
            await asyncio.sleep(0.1)
        else:
            return


async def publish_surely(broker: Broker, number: int) -> None:
    await surely(lambda: broker.publish([message(number)]))


async def take_until(deliveries: Deliveries, last: int) -> list[Delivery]:
    """Acknowledges as it goes; stops after number `last`."""
    taken: list[Delivery] = []
    while not taken or int(taken[-1].body) != last:
        batch = await deliveries.receive()
        taken += batch
        await deliveries.acknowledge(batch)
    return taken


def assert_in_order_per_subject(numbers: Iterable[int]) -> None:
    """Doubles are allowed, a first arrival out of order is not."""
    seen: dict[int, list[int]] = defaultdict(list)
    for number in numbers:
        if number not in seen[number % 5]:
            seen[number % 5].append(number)
    for of_one_subject in seen.values():
        assert of_one_subject == sorted(of_one_subject)


async def test_killed_under_load_it_loses_no_confirmed_message_and_no_order(
    own_rabbitmq: RabbitMQ, options: RabbitMQOptions, broker: Broker
) -> None:
    async def load(started: asyncio.Event) -> None:
        for number in range(400):
            await publish_surely(broker, number)
            if number == 100:
                started.set()

    started = asyncio.Event()
    async with asyncio.timeout(50), broker.consume(options.fanout_queue, prefetch=50) as deliveries:
        consuming = asyncio.create_task(take_until(deliveries, 399))
        await broker.publish([message(0)])
        await asyncio.sleep(SETTLED_SECONDS)
        loading = asyncio.create_task(load(started))
        await started.wait()
        await asyncio.to_thread(own_rabbitmq.kill)
        await asyncio.to_thread(own_rabbitmq.start)
        await loading
        numbers = [int(delivery.body) for delivery in await consuming]
    assert set(numbers) == set(range(400))
    assert_in_order_per_subject(numbers)


async def test_a_frozen_broker_fails_a_publish_within_two_heartbeats_and_recovers(
    own_rabbitmq: RabbitMQ, options: RabbitMQOptions, broker: Broker
) -> None:
    await broker.publish([message(0)])
    await asyncio.to_thread(own_rabbitmq.pause)
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(BrokerAway):
        await broker.publish([message(1)])
    assert loop.time() - started < 2 * HEARTBEAT + 1.5
    await asyncio.to_thread(own_rabbitmq.resume)
    async with asyncio.timeout(20), broker.consume(options.fanout_queue, prefetch=50) as deliveries:
        await publish_surely(broker, 2)
        assert (await take_until(deliveries, 2))[-1].body == b"2"


async def test_an_idle_consumer_finds_a_half_open_connection_and_goes_on(
    own_rabbitmq: RabbitMQ, options: RabbitMQOptions
) -> None:
    registry = CollectorRegistry()
    async with (
        asyncio.timeout(30),
        open_rabbitmq(options, RealtimeMetrics(registry)) as broker,
        broker.consume(options.fanout_queue, prefetch=50) as deliveries,
    ):
        await broker.publish([message(0)])
        await take_until(deliveries, 0)
        waiting = asyncio.create_task(take_until(deliveries, 1))
        await asyncio.to_thread(own_rabbitmq.pause)
        await asyncio.wait([waiting], timeout=3 * HEARTBEAT)
        await asyncio.to_thread(own_rabbitmq.resume)
        await publish_surely(broker, 1)
        assert (await waiting)[-1].body == b"1"
    assert registry.get_sample_value("orderwire_reconnects_total", {"part": "rabbitmq"})


async def test_deleted_queues_and_exchange_come_back_with_the_next_publish_and_receive(
    options: RabbitMQOptions, broker: Broker
) -> None:
    async with asyncio.timeout(20), broker.consume(options.fanout_queue, prefetch=50) as deliveries:
        await broker.publish([message(0)])
        await take_until(deliveries, 0)
        waiting = asyncio.create_task(take_until(deliveries, 1))
        async with await aio_pika.connect(options.url) as operator, operator.channel() as channel:
            await channel.queue_delete(options.fanout_queue)
            await channel.exchange_delete(options.exchange)
        await publish_surely(broker, 1)
        assert (await waiting)[-1].body == b"1"


async def test_with_no_queue_bound_a_message_does_not_count_as_durable(
    options: RabbitMQOptions, broker: Broker
) -> None:
    await broker.publish([message(0)])
    async with await aio_pika.connect(options.url) as operator, operator.channel() as channel:
        await channel.queue_delete(options.fanout_queue)
    with pytest.raises(BrokerAway):
        await broker.publish([message(1)])
    assert await broker.publish([message(1)]) == 1


async def test_a_connection_closed_by_an_operator_brings_back_what_was_not_acknowledged_in_order(
    own_rabbitmq: RabbitMQ, options: RabbitMQOptions, broker: Broker
) -> None:
    async with asyncio.timeout(30), broker.consume(options.fanout_queue, prefetch=50) as deliveries:
        await broker.publish([message(number) for number in range(10)])
        first: list[Delivery] = []
        while len(first) < 10:  # what is still on its way would come after that
            first += await deliveries.receive()
        await asyncio.to_thread(own_rabbitmq.control, "close_all_connections", "maintenance")
        again = await deliveries.receive()
        await deliveries.acknowledge(first)  # of the lost channel: nobody's business any more
        while len(again) < 10:
            again = [*again, *await deliveries.receive()]
        assert [int(delivery.body) for delivery in again] == list(range(10))


async def test_without_the_plugin_for_partitions_it_is_said_how_to_get_it(
    own_rabbitmq: RabbitMQ, options: RabbitMQOptions
) -> None:
    registry, kind = "rabbit_registry", 'exchange, <<"x-consistent-hash">>'
    await asyncio.to_thread(own_rabbitmq.control, "eval", f"{registry}:unregister({kind}).")
    try:
        with capture_logs() as logs:
            split = replace(options, partitions=2)
            async with open_rabbitmq(split, RealtimeMetrics(CollectorRegistry())) as broker:
                with pytest.raises(BrokerAway):
                    await broker.publish([message(0)])
    finally:
        module = "rabbit_exchange_type_consistent_hash"
        await asyncio.to_thread(own_rabbitmq.control, "eval", f"{registry}:register({kind}, {module}).")
    [line] = [line for line in logs if line["event"] == "rabbitmq_has_no_partitions"]
    assert line["advice"] == "rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"
    async with open_rabbitmq(split, RealtimeMetrics(CollectorRegistry())) as broker:
        assert await broker.publish([message(0)]) == 1


async def test_a_node_starts_with_the_broker_away_and_consumes_when_it_comes(
    own_rabbitmq: RabbitMQ, options: RabbitMQOptions
) -> None:
    await asyncio.to_thread(own_rabbitmq.stop)
    async with (
        asyncio.timeout(50),
        open_rabbitmq(options, RealtimeMetrics(CollectorRegistry())) as broker,
        broker.consume(options.fanout_queue, prefetch=50) as deliveries,
    ):
        assert not await broker.is_reachable()
        waiting = asyncio.create_task(take_until(deliveries, 0))
        with pytest.raises(BrokerAway):
            await broker.publish([message(0)])
        await asyncio.to_thread(own_rabbitmq.start)
        await publish_surely(broker, 0)
        assert (await waiting)[-1].body == b"0"


async def test_while_an_alarm_stops_who_publishes_it_is_not_reachable(own_rabbitmq: RabbitMQ, broker: Broker) -> None:
    await publish_surely(broker, 0)
    await asyncio.to_thread(own_rabbitmq.control, "set_vm_memory_high_watermark", "absolute", "1")
    try:
        with pytest.raises(BrokerAway):
            await broker.publish([message(1)])
        assert not await broker.is_reachable()
    finally:
        await asyncio.to_thread(own_rabbitmq.control, "set_vm_memory_high_watermark", "absolute", "512MiB")
    await publish_surely(broker, 2)
    assert await broker.is_reachable()


async def test_a_letter_larger_than_what_is_taken_by_now_is_kept_as_far_as_that_goes(
    own_rabbitmq: RabbitMQ, options: RabbitMQOptions, broker: Broker
) -> None:
    limit, body = "application:set_env(rabbit, max_message_size, {}).", bytes(range(250)) * 800
    await asyncio.to_thread(own_rabbitmq.control, "eval", limit.format(150_000))
    large, small = Delivery(1, body, "text/plain", {"cloudEvents:id": "7"}), Delivery(2, b"small", "text/plain")
    letters: list[Delivery] = []
    try:
        with capture_logs() as logs:
            for bad in (large, small):
                await broker.dead_letter(bad, reason="oversized")
        async with asyncio.timeout(20), broker.consume(options.dead_letter_queue, prefetch=50) as deliveries:
            while len(letters) < 2:
                letters += await deliveries.receive()
    finally:
        await asyncio.to_thread(own_rabbitmq.control, "eval", limit.format(128 * 1024 * 1024))
    assert [letter.body for letter in letters] == [body[:150_000], b"small"]
    assert letters[0].headers == {
        "cloudEvents:id": "7",
        "x-orderwire-reason": "oversized",
        "x-orderwire-size": len(body),
    }
    assert [(line["size"], line["kept"]) for line in logs if line["event"] == "dead_letter_cut"] == [
        (len(body), 150_000)
    ]


async def test_letters_refused_with_a_larger_one_are_kept_whole(
    own_rabbitmq: RabbitMQ, options: RabbitMQOptions, broker: Broker
) -> None:
    async def put_aside(size: int) -> None:
        await surely(lambda: broker.dead_letter(Delivery(1, b"x" * size, "text/plain"), reason="oversized"))

    limit, sizes = "application:set_env(rabbit, max_message_size, {}).", [200_000, 120_000, 300_000, 5, 120_001]
    await asyncio.to_thread(own_rabbitmq.control, "eval", limit.format(150_000))
    letters: list[Delivery] = []
    try:
        async with asyncio.timeout(20), broker.consume(options.dead_letter_queue, prefetch=50) as deliveries:
            await asyncio.gather(*(put_aside(size) for size in sizes))
            while {len(letter.body) for letter in letters} != {150_000, 120_000, 5, 120_001} or len(letters) < 5:
                letters += await deliveries.receive()
    finally:
        await asyncio.to_thread(own_rabbitmq.control, "eval", limit.format(128 * 1024 * 1024))
    assert {letter.headers.get("x-orderwire-size") for letter in letters} == {200_000, 300_000, None}
