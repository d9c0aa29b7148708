"""From real transactions' outbox to the broker, with one relay in a deployment of two nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

import orjson
from prometheus_client import CollectorRegistry

from handlers.events import SOURCE, Event
from realtime.broker_rabbitmq import RabbitMQ, open_rabbitmq
from realtime.metrics import RealtimeMetrics
from realtime.rabbitmq_topology import RabbitMQOptions
from realtime.relay import Relay
from storage.outbox import PostgresOutbox
from storage.postgres import Postgres, open_postgres
from tests.database_options import postgres_options


class Node:
    def __init__(self, url: str, postgres: Postgres, broker: RabbitMQ) -> None:
        self.postgres = postgres
        self.registry = CollectorRegistry()
        outbox = PostgresOutbox(url, postgres.pool, postgres.bell)
        self.task = asyncio.create_task(Relay(outbox, broker, RealtimeMetrics(self.registry)).run())

    @property
    def leads(self) -> bool:
        return self.registry.get_sample_value("orderwire_relay_leads") == 1

    async def emit(self, *numbers: int) -> None:
        async with self.postgres.transaction() as unit:
            for number in numbers:
                event = Event(f"{number}", SOURCE, "order.paid", str(uuid4()), datetime.now(UTC), {})
                await unit.outbox.add(event)

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def node(url: str, broker: RabbitMQ) -> AsyncIterator[Node]:
    async with open_postgres(postgres_options(url)) as postgres:
        started = Node(url, postgres, broker)
        try:
            yield started
        finally:
            await started.leave()


def options(url: str, name: str) -> RabbitMQOptions:
    return RabbitMQOptions(url, f"{name}.events", f"{name}.fanout", f"{name}.dead", heartbeat=2)


def event_id(body: bytes) -> object:
    return orjson.loads(body)["id"]


async def test_what_transactions_emitted_arrives_in_the_order_of_their_commits_and_leaves_the_outbox(
    rabbitmq_url: str, postgres_url: str, unique_name: str
) -> None:
    async with (
        asyncio.timeout(20),
        open_rabbitmq(options(rabbitmq_url, unique_name), RealtimeMetrics(CollectorRegistry())) as broker,
        node(postgres_url, broker) as one,
        broker.consume(f"{unique_name}.fanout", prefetch=1000) as deliveries,
    ):
        for start in range(0, 300, 3):
            await one.emit(start, start + 1, start + 2)
        arrived: list[bytes] = []
        while len(arrived) < 300:
            arrived += [delivery.body for delivery in await deliveries.receive()]
        assert [event_id(body) for body in arrived] == [f"{number}" for number in range(300)]
        outbox = PostgresOutbox(postgres_url, one.postgres.pool, one.postgres.bell)
        while await outbox.backlog() != (0, 0.0):
            await asyncio.wait([one.task], timeout=0.01)


async def test_of_two_nodes_one_relays_and_the_other_takes_over(
    rabbitmq_url: str, postgres_url: str, unique_name: str
) -> None:
    async with (
        asyncio.timeout(20),
        open_rabbitmq(options(rabbitmq_url, unique_name), RealtimeMetrics(CollectorRegistry())) as broker,
        node(postgres_url, broker) as one,
        node(postgres_url, broker) as two,
        broker.consume(f"{unique_name}.fanout", prefetch=1000) as deliveries,
    ):
        await one.emit(1)
        assert [event_id(delivery.body) for delivery in await deliveries.receive()] == ["1"]
        assert one.leads != two.leads
        leader, other = (one, two) if one.leads else (two, one)
        await leader.leave()
        await other.emit(2)
        arrived: list[object] = []
        while "2" not in arrived:
            arrived += [event_id(delivery.body) for delivery in await deliveries.receive()]
        assert arrived in (["2"], ["1", "2"])  # the first again, if the leader left between publishing and removing
        assert other.leads
