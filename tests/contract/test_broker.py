"""The guarantees of `handlers.ports.broker.Broker`, for every variant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from handlers.ports.broker import Broker, BrokerAway, Deliveries, Delivery, Message, partitions
from realtime.broker_rabbitmq import open_rabbitmq
from realtime.metrics import RealtimeMetrics
from realtime.rabbitmq_topology import RabbitMQOptions
from storage.broker import PostgresBroker, PostgresBrokerOptions
from storage.pool import PoolOptions, open_pool


@dataclass(frozen=True)
class Deployment:
    """`connect` opens the broker as one more node does; `connect_nowhere` one whose server is away."""

    queue: str
    dead_letter_queue: str
    connect: Callable[[], AbstractAsyncContextManager[Broker]]
    connect_nowhere: Callable[[], AbstractAsyncContextManager[Broker]]


def on_rabbitmq(url: str, name: str, count: int) -> Deployment:
    def connect(to: str) -> AbstractAsyncContextManager[Broker]:
        options = RabbitMQOptions(to, f"{name}.events", f"{name}.fanout", f"{name}.dead", 2, count)
        return open_rabbitmq(options, RealtimeMetrics(CollectorRegistry()))

    nowhere = "amqp://orderwire@127.0.0.1:1/"
    return Deployment(f"{name}.fanout", f"{name}.dead", lambda: connect(url), lambda: connect(nowhere))


def on_postgresql(url: str, name: str, count: int) -> Deployment:
    @asynccontextmanager
    async def connect(to: str) -> AsyncIterator[Broker]:
        pool_options = PoolOptions(to, "test", size=2, acquire_timeout=2, deadline=2.8)
        async with open_pool(pool_options) as pool:
            yield PostgresBroker(
                to, pool, pool, PostgresBrokerOptions(partitions(f"{name}.fanout", count), f"{name}.dead")
            )

    nowhere = "postgresql://orderwire@127.0.0.1:1/orderwire"
    return Deployment(f"{name}.fanout", f"{name}.dead", lambda: connect(url), lambda: connect(nowhere))


@pytest.fixture(params=["rabbitmq", "postgresql"])
def deploy(request: pytest.FixtureRequest, unique_name: str) -> Callable[[int], Deployment]:
    """With so many partitions."""
    if request.param == "rabbitmq":
        return partial(on_rabbitmq, request.getfixturevalue("rabbitmq_url"), unique_name)
    return partial(on_postgresql, request.getfixturevalue("postgres_url"), unique_name)


@pytest.fixture
def deployment(deploy: Callable[[int], Deployment]) -> Deployment:
    return deploy(1)


@pytest.fixture
async def broker(deployment: Deployment) -> AsyncIterator[Broker]:
    async with deployment.connect() as opened:
        yield opened


def messages(numbers: range) -> list[Message]:
    return [Message(f"id-{n}", "order.created", f"subject-{n % 7}", b"%d" % n) for n in numbers]


def bodies(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(delivery.body) for delivery in deliveries]


async def take(deliveries: Deliveries, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(10):
        while len(taken) < count:
            taken += await deliveries.receive()
    return taken


async def test_messages_arrive_in_the_order_of_publishing(deployment: Deployment, broker: Broker) -> None:
    for start in range(0, 600, 200):
        assert await broker.publish(messages(range(start, start + 200))) == 200
    async with broker.consume(deployment.queue, prefetch=1000) as deliveries:
        assert bodies(await take(deliveries, 600)) == list(range(600))


async def test_a_delivery_says_what_it_is_and_that_our_relay_published_it(
    deployment: Deployment, broker: Broker
) -> None:
    await broker.publish(messages(range(1)))
    async with broker.consume(deployment.queue, prefetch=10) as deliveries:
        [delivery] = await take(deliveries, 1)
        assert delivery.content_type == "application/cloudevents+json"
        assert delivery.trusted


async def test_publishing_nothing_is_nothing(broker: Broker) -> None:
    assert await broker.publish([]) == 0


async def test_no_more_than_the_prefetch_is_handed_out_before_it_is_acknowledged(
    deployment: Deployment, broker: Broker
) -> None:
    await broker.publish(messages(range(25)))
    async with broker.consume(deployment.queue, prefetch=10) as deliveries:
        first = await take(deliveries, 10)
        assert bodies(first) == list(range(10))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await deliveries.receive()
        await deliveries.acknowledge(first)
        assert bodies(await take(deliveries, 10)) == list(range(10, 20))


async def test_what_was_acknowledged_does_not_come_again_and_the_rest_does_in_order(
    deployment: Deployment, broker: Broker
) -> None:
    await broker.publish(messages(range(10)))
    async with broker.consume(deployment.queue, prefetch=100) as deliveries:
        await deliveries.acknowledge((await take(deliveries, 10))[:4])
    await broker.publish(messages(range(10, 12)))
    async with broker.consume(deployment.queue, prefetch=100) as deliveries:
        assert bodies(await take(deliveries, 8)) == list(range(4, 12))


async def test_who_consumes_again_after_a_lost_connection_gets_what_it_did_not_acknowledge(
    deployment: Deployment, broker: Broker
) -> None:
    await broker.publish(messages(range(4)))
    async with broker.consume(deployment.queue, prefetch=100) as deliveries:
        await deliveries.acknowledge((await take(deliveries, 4))[:1])
        await cast("Any", deliveries).close()  # as it does itself when the connection is lost
        assert bodies(await take(deliveries, 3)) == [1, 2, 3]


async def test_a_waiting_consumer_is_woken_by_a_publish_on_another_node(deployment: Deployment, broker: Broker) -> None:
    async with deployment.connect() as other, broker.consume(deployment.queue, prefetch=10) as deliveries:
        await other.publish(messages(range(1)))
        await deliveries.acknowledge(await take(deliveries, 1))
        waiting = asyncio.create_task(deliveries.receive())
        await other.publish(messages(range(1, 2)))
        async with asyncio.timeout(1):
            assert bodies(await waiting) == [1]


async def test_of_two_consumers_one_is_active_and_the_other_takes_over(deployment: Deployment, broker: Broker) -> None:
    await broker.publish(messages(range(2)))
    async with deployment.connect() as other, other.consume(deployment.queue, prefetch=1) as second:
        async with broker.consume(deployment.queue, prefetch=1) as first:
            assert bodies(await take(first, 1)) == [0]
            waiting = asyncio.create_task(second.receive())
            done, _ = await asyncio.wait([waiting], timeout=0.5)
            assert not done
        async with asyncio.timeout(3):
            assert bodies(await waiting) == [0]


async def test_what_shares_a_subject_shares_a_partition_and_keeps_its_order(
    deploy: Callable[[int], Deployment],
) -> None:
    deployment = deploy(3)
    sent = [Message(f"id-{n}", "order.created", f"subject-{n % 40}", b"%d" % n) for n in range(400)]
    async with deployment.connect() as broker:
        for at in range(0, 400, 40):
            assert await broker.publish(sent[at : at + 40]) == 40
        taken = await all_of(broker, partitions(deployment.queue, 3), len(sent))
    subjects = [{number % 40 for number in numbers} for numbers in taken]
    assert all(subjects)
    assert sum(map(len, subjects)) == 40
    assert sorted(number for numbers in taken for number in numbers) == list(range(400))
    for numbers in taken:
        assert sorted(numbers, key=lambda number: number % 40) == sorted(numbers, key=lambda n: (n % 40, n))


async def test_a_dead_letter_keeps_the_message_and_says_why(deployment: Deployment, broker: Broker) -> None:
    bad = Delivery(1, b"\x00not an event", "text/plain", {"cloudEvents:id": "7", "odd": [1, {"deep": None}]})
    await broker.dead_letter(bad, reason="malformed")
    async with broker.consume(deployment.dead_letter_queue, prefetch=10) as deliveries:
        [letter] = await take(deliveries, 1)
    assert letter.body == bad.body
    assert letter.content_type == "text/plain"
    assert letter.headers["x-orderwire-reason"] == "malformed"
    assert letter.headers["cloudEvents:id"] == "7"
    assert not await waits(broker, deployment.queue)


async def test_acknowledging_after_the_consumer_has_left_changes_nothing(
    deployment: Deployment, broker: Broker
) -> None:
    await broker.publish(messages(range(1)))
    async with broker.consume(deployment.queue, prefetch=10) as deliveries:
        taken = await take(deliveries, 1)
    await deliveries.acknowledge(taken)
    assert await waits(broker, deployment.queue, seconds=10)


async def test_it_opens_with_the_server_away_and_says_so_when_used(deployment: Deployment) -> None:
    async with deployment.connect_nowhere() as broker:
        assert not await broker.is_reachable()
        with pytest.raises(BrokerAway):
            await broker.publish(messages(range(1)))
        with pytest.raises(BrokerAway):
            await broker.dead_letter(Delivery(1, b"", None), reason="malformed")


async def test_it_is_reachable_when_the_server_is_there(broker: Broker) -> None:
    assert await broker.is_reachable()


async def all_of(broker: Broker, queues: Sequence[str], count: int) -> list[list[int]]:
    """What is in each of the queues, once there are so many in all."""
    found: list[list[int]] = [[] for _ in queues]

    async def take_from(queue: str, into: list[int]) -> None:
        async with broker.consume(queue, prefetch=1000) as deliveries:
            while True:
                into += bodies(await deliveries.receive())

    takers = [asyncio.create_task(take_from(queue, into)) for queue, into in zip(queues, found, strict=True)]
    async with asyncio.timeout(20):
        while sum(map(len, found)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for taker in takers:
        taker.cancel()
    await asyncio.wait(takers)
    return found


async def waits(broker: Broker, queue: str, *, seconds: float = 0.6) -> bool:
    """Is anything in the queue? It may take so long to come."""
    async with broker.consume(queue, prefetch=1) as deliveries:
        try:
            async with asyncio.timeout(seconds):
                return bool(await deliveries.receive())
        except TimeoutError:
            return False


@pytest.mark.parametrize("count", [1, 8])
async def test_the_consumer_of_another_partition_elsewhere_is_woken_as_soon(
    deploy: Callable[[int], Deployment], count: int
) -> None:
    """Also by a node that has a partition itself, for which something may be in what it publishes. Looking every now
    and then would take some 200 ms each time."""
    deployment, arrived = deploy(2), asyncio.Queue[str]()
    one, other = partitions(deployment.queue, 2)

    async with deployment.connect() as here, deployment.connect() as there, AsyncExitStack() as stack:
        for node, queue in ((here, one), (there, other)):
            deliveries = await stack.enter_async_context(node.consume(queue, prefetch=10))
            consuming = asyncio.create_task(pass_on(deliveries, arrived))
            stack.callback(consuming.cancel)
        await here.publish([Message(f"first {n}", "t", f"{n}", b"first") for n in range(40)])
        for _ in range(40):
            await arrived.get()
        async with asyncio.timeout(3):
            for number in range(40):
                subjects = range(number, number + count)
                await here.publish([Message(f"{number} {each}", "t", f"{each}", b"%d" % number) for each in subjects])
                assert [await arrived.get() for _ in subjects] == [f"{number}"] * count


async def test_a_consumer_elsewhere_is_woken_as_soon_when_the_one_here_has_left(
    deployment: Deployment, broker: Broker
) -> None:
    arrived = asyncio.Queue[str]()
    await broker.publish(messages(range(1)))
    async with broker.consume(deployment.queue, prefetch=10) as left:
        await left.acknowledge(await take(left, 1))

    async with deployment.connect() as other, other.consume(deployment.queue, prefetch=10) as deliveries:
        consuming = asyncio.create_task(pass_on(deliveries, arrived))
        await broker.publish(messages(range(1)))
        await arrived.get()
        async with asyncio.timeout(3):
            for number in range(40):
                await broker.publish(messages(range(number, number + 1)))
                assert await arrived.get() == f"{number}"
        consuming.cancel()
        await asyncio.wait([consuming])


async def pass_on(deliveries: Deliveries, to: asyncio.Queue[str]) -> None:
    while True:
        got = await deliveries.receive()
        await deliveries.acknowledge(got)
        for delivery in got:
            to.put_nowait(delivery.body.decode())
