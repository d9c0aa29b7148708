"""What other services hear of clients and channels, through a real RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from handlers.events import LifeCycleType
from handlers.ports.broker import BrokerAway, Message
from realtime.broker_rabbitmq import RabbitMQ, open_rabbitmq
from realtime.bus_memory import MemoryExchange
from realtime.life_cycle import LifeCycle
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import ChannelOptions, Namespaces
from realtime.presence import Change, Member
from realtime.presence_redis import RedisPresenceOptions, open_redis_presence
from realtime.rabbitmq_topology import RabbitMQOptions
from storage.streams import StreamsOptions, open_streams
from tests.contract_document import check
from tests.integration.websocket_node import STAFF, Node, running, until

ROOM = ChannelOptions(presence=True, allow_subscribe_for_client=True)
NAMESPACES = Namespaces(retention=86_400, named={"room": ROOM})
USER = str(STAFF.id)


@dataclass
class Told:
    """A service's queue."""

    broker: RabbitMQ
    queue: str

    async def next(self, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(10), self.broker.consume(self.queue, prefetch=10) as deliveries:
            while len(found) < count:
                some = await deliveries.receive()
                found += [orjson.loads(delivery.body) for delivery in some]
                await deliveries.acknowledge(some)
        for event in found:
            check("LifeCycleEvent", event)
        return found


@pytest.fixture
async def broker(rabbitmq_url: str, unique_name: str) -> AsyncIterator[RabbitMQ]:
    exchange, queue, dead = (f"{unique_name}.{part}" for part in ("events", "queue", "dead"))
    options = RabbitMQOptions(rabbitmq_url, exchange, queue, dead)
    async with open_rabbitmq(options, RealtimeMetrics(CollectorRegistry())) as opened:
        yield opened


@pytest.fixture
def told(broker: RabbitMQ, unique_name: str) -> Told:
    return Told(broker, f"{unique_name}.queue")


OpenNode = Callable[[], Any]


@pytest.fixture
def open_node(postgres_url: str, redis_url: str, unique_name: str, broker: RabbitMQ) -> OpenNode:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Node]:
        options = RedisPresenceOptions(redis_url, unique_name, ttl=1.0, watches=True)
        life_cycle = LifeCycle(broker, RealtimeMetrics(CollectorRegistry()))
        async with (
            open_streams(StreamsOptions(postgres_url)) as streams,
            open_redis_presence(options) as presence,
            running(
                streams, MemoryExchange().bus(), namespaces=NAMESPACES, presence=presence, life_cycle=life_cycle
            ) as node,
        ):
            telling = asyncio.create_task(life_cycle.run())
            yield node
            telling.cancel()
            await asyncio.wait([telling])

    return opened


async def test_a_client_comes_and_goes(open_node: OpenNode, told: Told) -> None:
    async with open_node() as node:
        async with node.socket() as client:
            hello = {"token": node.token(), "name": "dashboard", "version": "7"}
            welcome = (await client.ask({"id": 1, "connect": hello}))["connect"]
        came, went = await told.next(2)

    who = {"client": welcome["client"], "user": USER, "app_name": "dashboard", "app_version": "7"}
    assert (came["type"], came["subject"]) == ("client.connected", welcome["client"])
    assert came["data"] == {**who, "transport": "websocket", "protocol": "json"}
    assert (went["type"], went["data"]) == ("client.disconnected", {**who, "code": None})


async def test_the_code_is_told_with_which_the_server_closed(open_node: OpenNode, told: Told) -> None:
    async with open_node() as node, node.client():
        await node.connections.drain(2.0)
        _, gone = await told.next(2)

    assert (gone["type"], gone["data"]["code"]) == ("client.disconnected", 3001)


async def test_who_was_not_welcome_was_never_there(open_node: OpenNode, told: Told) -> None:
    async with open_node() as node:
        async with node.socket() as client:
            await client.say({"id": 1, "connect": {"token": "none"}})
            await client.closed()
        async with node.client():
            [event] = await told.next(1)

    assert event["data"]["user"] == USER


async def test_a_channel_is_occupied_by_the_first_and_vacated_by_the_last(open_node: OpenNode, told: Told) -> None:
    async with open_node() as node:
        async with node.client("room:a"), node.client("room:a") as other:
            await other.ask({"id": 3, "unsubscribe": {"channel": "room:a"}})
        async with node.client("room:a"):
            events = [event for event in await told.next(8) if event["type"].startswith("channel.")]

    assert [(event["type"], event["subject"]) for event in events[:2]] == [
        ("channel.occupied", "room:a"),
        ("channel.vacated", "room:a"),
    ]
    assert events[0]["data"] == {"channel": "room:a"}


async def test_a_channel_whose_node_died_is_vacated_once_its_time_is_over(
    open_node: OpenNode, told: Told, redis_url: str, unique_name: str
) -> None:
    options = RedisPresenceOptions(redis_url, unique_name, ttl=1.0, watches=True)
    async with open_redis_presence(options) as dead:
        await dead.apply([Change("room:left", Member("c", "u", b"{}"), is_there=True)])
    async with open_node(), open_node():  # of which one tells
        [event] = await told.next(1)

    assert (event["type"], event["subject"]) == ("channel.vacated", "room:left")


class Flaky:
    """A broker that is away at first, and takes one of what it is given."""

    def __init__(self) -> None:
        self.is_away = True
        self.took: list[str] = []

    async def publish(self, messages: list[Message]) -> int:
        if self.is_away:
            self.is_away = False
            raise BrokerAway
        self.took.append(messages[0].subject)
        return 1


async def test_what_the_broker_did_not_take_is_published_again() -> None:
    broker = Flaky()
    life_cycle = LifeCycle(broker, RealtimeMetrics(CollectorRegistry()))  # type: ignore[arg-type]
    for channel in ("a", "b", "c"):
        life_cycle.tell(LifeCycleType.CHANNEL_OCCUPIED, channel, {})
    telling = asyncio.create_task(life_cycle.run())
    await until(lambda: len(broker.took) == 3)
    telling.cancel()
    await asyncio.wait([telling])

    assert broker.took == ["a", "b", "c"]
