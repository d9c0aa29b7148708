"""What the settings of [server], [database], [redis], [broker], [streams], [events] and [log] do."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import aio_pika
import aiohttp
import aiormq
import asyncpg
import orjson
import pytest
import redis.asyncio
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractQueue, HeadersType
from stripe import WebhookSignature

from handlers.ports.streams import Entry
from storage.streams import StreamsOptions, open_streams
from tests.deployment import (
    ACCOUNT,
    AUTH_SECRET,
    HISTORY,
    OPEN,
    Deploy,
    Deployment,
    namespace,
    of_account,
    signed,
)
from tests.integration.websocket_node import Client
from tests.locks import until_blocked
from tests.services import stripe
from tests.services.orderwire import orderwire
from tests.services.proxy import open_proxy
from tests.services.redis import RedisCluster
from tests.services.server import free_port

BEARER = {"Authorization": f"Bearer {of_account()}"}
DeployWithBroker = Callable[..., AbstractAsyncContextManager[Deployment]]
PERSONAL = f"#{ACCOUNT.id}"


@pytest.mark.shows("server.host")
async def test_it_listens_where_it_should(deploy: Deploy) -> None:
    async with deploy('[server]\nhost = "127.0.0.2"') as node:
        assert node.url.startswith("http://127.0.0.2:")


@pytest.mark.shows("server.port")
async def test_it_listens_on_its_port(deploy: Deploy) -> None:
    port = free_port()
    async with deploy(environment={"SERVER__PORT": str(port)}) as node:
        assert node.url == f"http://127.0.0.1:{port}"


@pytest.mark.shows("server.workers")
async def test_so_many_processes_serve() -> None:
    """A process of its own: this one could not start others that are what it is."""

    def serve() -> int:
        with orderwire(environment={"ORDERWIRE_SERVER__WORKERS": "2"}) as node:
            while node.log().count("worker_started") < 2:
                time.sleep(0.05)
            return node.stop()

    assert await asyncio.to_thread(serve) == 0


@pytest.mark.shows("server.allowed_hosts")
async def test_it_answers_to_its_names(deploy: Deploy) -> None:
    async with deploy('[server]\nallowed_hosts = ["127.0.0.1", "shop.example"]') as node:
        assert await node.status("/asyncapi.json", Host="shop.example") == 200
        assert await node.status("/asyncapi.json", Host="elsewhere.example") == 421


@pytest.mark.shows("server.allowed_origins")
async def test_pages_of_these_origins_may_call_it(deploy: Deploy) -> None:
    async with deploy('[server]\nallowed_origins = ["https://shop.example"]') as node:
        for origin, allowed in (("https://shop.example", "https://shop.example"), ("https://elsewhere.example", None)):
            async with node.http.get(f"{node.url}/api/v1/products", headers={**BEARER, "Origin": origin}) as reply:
                assert reply.headers.get("Access-Control-Allow-Origin") == allowed


@pytest.mark.shows("server.max_body_bytes")
async def test_a_body_has_a_size(deploy: Deploy) -> None:
    async with (
        deploy("[server]\nmax_body_bytes = 1024") as node,
        node.http.post(f"{node.url}/api/v1/orders", json=" " * 1024, headers=BEARER) as reply,
    ):
        assert reply.status == 413
        head = (
            "POST /api/v1/orders HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 1025\r\n\r\n{"
        )
        async with raw(node, head) as unsent:  # nobody waits for what is not read
            assert (await unsent.readline()).startswith(b"HTTP/1.1 413 ")


@asynccontextmanager
async def raw(node: Deployment, said: str) -> AsyncIterator[asyncio.StreamReader]:
    """A connection on which this was said, and nothing more."""
    place = urlsplit(node.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(said.encode())
    async with asyncio.timeout(10):
        yield reader
    writer.close()


@pytest.mark.shows("server.body_timeout")
async def test_a_body_comes_in_time(deploy: Deploy) -> None:
    head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    async with deploy("[server]\nbody_timeout = 0.3") as node, raw(node, head) as late:
        assert (await late.readline()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.shows("server.keepalive_timeout")
@pytest.mark.parametrize("said", ["", "GET / HTTP/1.1\r\nHost:"], ids=["nothing", "half a head"])
async def test_who_asks_nothing_is_closed(deploy: Deploy, said: str) -> None:
    async with deploy("[server]\nkeepalive_timeout = 0.3") as node, raw(node, said) as idle:
        assert await idle.read() == b""


@pytest.mark.shows("server.shutdown_pause")
async def test_before_it_goes_it_says_so_for_a_while(deploy: Deploy) -> None:
    async with deploy(environment={"SERVER__SHUTDOWN_PAUSE": "1"}) as node:
        node.stop.set()
        await node.until_ready("draining: red")
        assert await node.status("/health/live") == 200
    async with deploy(environment={"SERVER__SHUTDOWN_PAUSE": "0"}) as node:
        node.stop.set()
        async with asyncio.timeout(0.9):  # sooner than with the pause
            await until_refused(node)


async def until_refused(node: Deployment) -> None:
    with suppress(aiohttp.ClientConnectionError):
        while await node.status("/health/live", Connection="close"):
            pass


@pytest.mark.shows("server.shutdown_grace")
async def test_clients_are_sent_away_over_a_while(deploy: Deploy) -> None:
    """So that not all of them are somewhere else at once; but few are."""

    async def spread(grace: float) -> float:
        """Seconds from the first client's close to the last one's."""
        loop = asyncio.get_running_loop()

        async def gone(client: Client) -> float:
            assert await client.closed() == (3001, "shutdown")
            return loop.time()

        async with deploy(f"[server]\nshutdown_grace = {grace}") as node, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(node.client()) for _ in range(200)]
            closes = [asyncio.create_task(gone(client)) for client in clients]
            node.stop.set()
            moments = await asyncio.gather(*closes)
        return max(moments) - min(moments)

    over_a_while = await spread(10)
    assert over_a_while >= 0.14  # four waves
    assert await spread(0.1) < over_a_while


@pytest.mark.shows("database.url", "redis.url", "redis.bus_channel")
async def test_its_parts_are_where_it_is_told(
    deploy: Deploy, postgres_url: str, redis_url: str, unique_name: str
) -> None:
    async with deploy(namespace("ns", *OPEN, *HISTORY), {"REDIS__BUS_CHANNEL": f"{unique_name}.bus"}) as node:
        await node.publish("ns:a", "kept")
        async with connected(postgres_url) as database:
            assert await database.fetchval("SELECT data FROM publications WHERE channel = 'ns:a'") == b'"kept"'
        async with redis.asyncio.Redis.from_url(redis_url) as bus:
            [(_, listeners)] = await bus.pubsub_numsub(f"{unique_name}.bus")
            assert listeners == 1


@pytest.mark.shows("redis.cluster")
async def test_nodes_meet_in_a_cluster_of_redis(
    deploy: Deploy, own_redis_cluster: RedisCluster, unique_name: str
) -> None:
    watched = ("presence = true", "allow_presence_for_client = true")
    settings = f'[redis]\ncluster = true\nbus_channel = "{unique_name}"\n' + namespace("ns", *OPEN, *watched)
    place = {"REDIS__URL": own_redis_cluster.url}
    async with deploy(settings, place) as one, deploy(settings, place) as other:
        while len((await one.api("info"))["nodes"]) < 2:  # noqa: ASYNC110 - they say hello by the bus
            await asyncio.sleep(0.02)
        channels = [f"ns:{number}" for number in range(20)]
        async with one.client(*channels) as near, other.client(*channels, token=signed(sub="43")):
            for channel in channels:
                await other.publish(channel, channel)
            heard = [(await near.hear())["push"] for _ in channels]
            assert {push["channel"]: push["pub"]["data"] for push in heard} == {name: name for name in channels}
            for channel in channels:
                assert (await one.api("presence_stats", channel=channel)) == {"num_clients": 2, "num_users": 2}
        shards = [server.ask("PUBSUB", "SHARDCHANNELS", f"{unique_name}.*") for server in own_redis_cluster.servers]
        assert all(shards)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@asynccontextmanager
async def locked(url: str, table: str) -> AsyncIterator[None]:
    """Nobody reads it, or writes to it."""
    async with connected(url) as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {table}")
        yield


async def answers(node: Deployment, path: str) -> tuple[int, float]:
    """The status, and the seconds that it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with node.http.get(f"{node.url}/api/v1/{path}", headers=BEARER) as reply:
        return reply.status, loop.time() - began


@pytest.mark.shows("database.read_pool_size", "database.acquire_timeout")
async def test_reads_share_so_many_connections_and_wait_for_them(deploy: Deploy, postgres_url: str) -> None:
    one = "[database]\nread_pool_size = 1\nacquire_timeout = 0.2\ndeadline = 60"
    two = "[database]\nread_pool_size = 2\nacquire_timeout = 1.5\ndeadline = 60"  # to open the second may take a while
    for settings, status in ((one, 503), (two, 200)):
        async with deploy(settings) as node:
            async with locked(postgres_url, "orders"):
                first = asyncio.create_task(answers(node, "orders"))
                await until_waiting(postgres_url, "orderwire read")
                second, seconds = await answers(node, "products")
                assert second == status
                assert seconds < 2  # the default
            assert (await first)[0] == 200


@pytest.mark.shows("database.pool_size")
async def test_writes_share_so_many_connections(deploy: Deploy, postgres_url: str) -> None:
    items = {"items": [{"product_id": str(uuid4()), "quantity": 1}]}
    for size, status in ((1, 503), (2, 404)):
        async with deploy(f"[database]\npool_size = {size}\nacquire_timeout = 1.5\ndeadline = 60") as node:
            orders = f"{node.url}/api/v1/orders"
            async with locked(postgres_url, "products"):
                first = asyncio.create_task(node.http.post(orders, json=items, headers=BEARER))
                await until_waiting(postgres_url, "orderwire")
                async with node.http.post(f"{orders}/{uuid4()}/cancel", headers=BEARER) as second:
                    assert second.status == status
            async with await first as answered:
                assert answered.status == 422


async def until_waiting(url: str, pool: str) -> None:
    """Returns when a statement on one of the pool's connections waits for a lock."""
    async with connected(url) as connection:
        await until_blocked(connection, by=pool)


@pytest.mark.shows("database.deadline")
async def test_a_unit_of_work_has_so_long(deploy: Deploy, postgres_url: str) -> None:
    async with deploy("[database]\nacquire_timeout = 0.2\ndeadline = 0.4") as node, locked(postgres_url, "orders"):
        status, seconds = await answers(node, "orders")
    assert status == 503
    assert seconds < 2.4  # the default is 2.5


@pytest.mark.shows("orders.unpaid_expiry")
async def test_an_order_may_stay_unpaid_for_so_long(deploy: Deploy, postgres_url: str) -> None:
    await furnish(postgres_url)
    async with deploy("[orders]\nunpaid_expiry = 0") as node:
        assert (await place(node))["expires_at"] is None
    async with deploy("[orders]\nunpaid_expiry = 0.2") as node:
        order = await place(node)
        async with asyncio.timeout(10):
            while (await read(node, f"orders/{order['id']}"))["status"] != "expired":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (await read(node, f"products/{ACCOUNT.id}"))["stock"] == 8


@pytest.mark.shows("orders.draft_expiry")
async def test_an_order_may_stay_a_draft_for_so_long(deploy: Deploy, postgres_url: str) -> None:
    await furnish(postgres_url)
    async with deploy("[orders]\ndraft_expiry = 0") as node:
        assert (await place(node, draft=True))["expires_at"] is None
    async with deploy("[orders]\ndraft_expiry = 0.2") as node:
        order = await place(node, draft=True)
        async with asyncio.timeout(10):
            while (await read(node, f"orders/{order['id']}"))["status"] != "expired":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (await read(node, f"products/{ACCOUNT.id}"))["stock"] == 9


@pytest.mark.shows("orders.prices_include_tax")
async def test_taxes_are_in_the_prices_or_on_top(deploy: Deploy, postgres_url: str) -> None:
    await furnish(postgres_url)
    for setting, total in (("true", 100), ("false", 119)):
        async with deploy(f"[orders]\nprices_include_tax = {setting}") as node:
            assert (await place(node))["total"] == total


@pytest.mark.shows("payments.provider")
async def test_it_collects_the_money(deploy: Deploy, postgres_url: str) -> None:
    await furnish(postgres_url)
    for provider, expected in (("none", (409, None)), ("sandbox", (200, "sandbox"))):
        async with deploy(f'[payments]\nprovider = "{provider}"') as node:
            assert await pay(node) == expected


@pytest.mark.shows("payments.stripe_secret_key", "payments.stripe_webhook_secret", "payments.stripe_api_base")
async def test_stripe_is_asked_there_with_this_key_and_signs_with_that_secret(
    deploy: Deploy, postgres_url: str
) -> None:
    await furnish(postgres_url)
    webhook = "whsec_of_another_endpoint"
    async with stripe.standing_in() as standing_in:
        environment = {"PAYMENTS__STRIPE_WEBHOOK_SECRET": webhook, "PAYMENTS__STRIPE_API_BASE": standing_in.url}
        async with deploy(environment={**environment, "PAYMENTS__STRIPE_SECRET_KEY": "sk_of_nobody"}) as node:
            assert await pay(node) == (503, None)
        async with deploy(environment={**environment, "PAYMENTS__STRIPE_SECRET_KEY": stripe.SECRET_KEY}) as node:
            assert await pay(node) == (200, "stripe")
            for secret, status in ((webhook, 200), (stripe.WEBHOOK_SECRET, 403)):
                signature = WebhookSignature.generate_signature_header("{}", secret)
                headers = {"Stripe-Signature": signature}
                url = f"{node.url}/api/v1/payments/notices"
                async with node.http.post(url, data=b"{}", headers=headers) as reply:
                    assert reply.status == status


@pytest.mark.shows("orders.low_stock")
async def test_staff_are_told_of_so_few_pieces_that_are_left(deploy: Deploy, postgres_url: str) -> None:
    await furnish(postgres_url)  # of 9 pieces
    async with deploy("[orders]\nlow_stock = 7") as node, node.client("stock:low", token=of_account()) as client:
        for _ in range(3):
            await place(node)
        heard = [(await client.hear())["push"] for _ in range(4)]  # the orders too, for they are this account's own
    assert [each["pub"]["data"]["data"]["stock"] for each in heard if each["channel"] == "stock:low"] == [7]


async def furnish(postgres_url: str) -> None:
    """An account, and a product that one can order."""
    async with connected(postgres_url) as connection:
        who = (ACCOUNT.id, ACCOUNT.email, ACCOUNT.name, ACCOUNT.role, ACCOUNT.password_hash)
        await connection.execute("INSERT INTO accounts VALUES ($1, $2, $3, $4, $5)", *who)
        await connection.execute("INSERT INTO products VALUES ($1, 'A', 'A', 100, 'EUR', 9, 1900)", ACCOUNT.id)


async def pay(node: Deployment) -> tuple[int, str | None]:
    """The status, and who collected."""
    url = f"{node.url}/api/v1/orders/{(await place(node))['id']}/payment"
    async with node.http.post(url, json={"method": "pm_card_visa"}, headers=BEARER) as reply:
        return reply.status, (await reply.json()).get("provider")


async def place(node: Deployment, *, draft: bool = False) -> dict[str, Any]:
    """Of one piece of the only product."""
    body = {"items": [{"product_id": str(ACCOUNT.id), "quantity": 1}], "draft": draft}
    async with node.http.post(f"{node.url}/api/v1/orders", json=body, headers=BEARER) as reply:
        placed: dict[str, Any] = await reply.json()
    return placed


async def read(node: Deployment, path: str) -> dict[str, Any]:
    async with node.http.get(f"{node.url}/api/v1/{path}", headers=BEARER) as reply:
        found: dict[str, Any] = await reply.json()
    return found


@dataclass(frozen=True)
class Amqp:
    """Another service on RabbitMQ. `names` is the section that gives a node an exchange and queues of its own."""

    url: str
    prefix: str
    connection: AbstractConnection
    channel: AbstractChannel

    def names(self, *more: str) -> str:
        keys = ("exchange", "fanout_queue", "dead_letter_queue")
        return "\n".join(["[broker]", *(f'{key} = "{self.prefix}.{key}"' for key in keys), *more, ""])

    async def exchange(self) -> AbstractExchange:
        return await self.channel.get_exchange(f"{self.prefix}.exchange")

    async def queue(self, key: str) -> AbstractQueue:
        return await self.channel.get_queue(f"{self.prefix}.{key}")

    async def emit(self, body: bytes, headers: HeadersType | None = None) -> None:
        message = aio_pika.Message(body, content_type="application/cloudevents+json", headers=headers)
        await (await self.exchange()).publish(message, "invoice.sent")

    async def until_consumed(self) -> None:
        """Returns when a node listens: what is emitted before is nobody's."""
        async with asyncio.timeout(20):
            while not await self._consumers():  # noqa: ASYNC110 - RabbitMQ tells nobody
                await asyncio.sleep(0.02)

    async def _consumers(self) -> int:
        async with self.connection.channel() as channel:
            try:
                queue = await channel.get_queue(f"{self.prefix}.fanout_queue")
            except aiormq.exceptions.ChannelNotFoundEntity:
                return 0
            return queue.declaration_result.consumer_count or 0


@pytest.fixture
async def amqp(rabbitmq_url: str, unique_name: str) -> AsyncIterator[Amqp]:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        yield Amqp(rabbitmq_url, unique_name, connection, await connection.channel())


@pytest.fixture
def deploy_with_broker(deploy: Deploy, amqp: Amqp) -> DeployWithBroker:
    """A node with more lines in [broker], and other sections."""

    @asynccontextmanager
    async def deploy_with_broker(*broker: str, sections: str = "") -> AsyncIterator[Deployment]:
        async with deploy(amqp.names(*broker) + sections, {"BROKER__URL": amqp.url}) as node:
            await amqp.until_consumed()
            yield node

    return deploy_with_broker


def event(number: int, channel: str | None = None) -> bytes:
    told = {} if channel is None else {"channel": channel}
    about = {"id": str(number), "source": "/tests", "type": "invoice.sent", "subject": "7", "data": number}
    return orjson.dumps({"specversion": "1.0", **about, **told})


@pytest.mark.shows("broker.url", "broker.exchange", "broker.fanout_queue", "broker.dead_letter_queue")
async def test_events_go_by_the_names_it_is_told(deploy_with_broker: DeployWithBroker, amqp: Amqp) -> None:
    async with deploy_with_broker(sections=namespace("ns", *OPEN)) as node, node.client("ns:a") as client:
        await amqp.emit(event(1, "ns:a"))
        assert (await client.hear())["push"]["pub"]["data"]["data"] == 1
        await amqp.emit(b"no event")
        assert await first_in(await amqp.queue("dead_letter_queue")) == b"no event"


async def first_in(queue: AbstractQueue) -> bytes:
    async with asyncio.timeout(10), queue.iterator(no_ack=True) as messages:
        async for message in messages:
            return message.body
    raise EOFError


@pytest.mark.shows("broker.prefetch")
async def test_so_many_events_are_in_its_hands(
    deploy_with_broker: DeployWithBroker, amqp: Amqp, postgres_url: str
) -> None:
    kept = namespace("ns", *OPEN, *HISTORY)
    async with deploy_with_broker("prefetch = 2", sections=kept) as node, node.client("ns:a") as client:
        async with locked(postgres_url, "publications"):
            for number in range(5):
                await amqp.emit(event(number, "ns:a"))
            await until_waiting(postgres_url, "orderwire append")
            queue = await amqp.queue("fanout_queue")
            while (await queue.declare()).message_count != 3:  # noqa: ASYNC110 - RabbitMQ tells nobody
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            assert (await queue.declare()).message_count == 3
        assert [(await client.hear())["push"]["pub"]["offset"] for _ in range(5)] == [1, 2, 3, 4, 5]


@pytest.mark.shows("broker.fanout_partitions")
async def test_the_fan_out_has_so_many_queues(deploy_with_broker: DeployWithBroker, amqp: Amqp) -> None:
    kept = namespace("ns", *OPEN, *HISTORY)
    async with deploy_with_broker("fanout_partitions = 3", sections=kept) as node, node.client("ns:a") as client:
        keys = [str(number) for number in range(12)]
        for number, key in enumerate(keys):
            await amqp.emit(event(number, "ns:a"), {"cloudEvents:partitionkey": key})
        heard = [(await client.hear())["push"]["pub"] for _ in keys]
        assert [one["offset"] for one in heard] == list(range(1, 13))
        assert sorted(one["data"]["data"] for one in heard) == list(range(12))
        for key in ("fanout_queue", "fanout_queue.1", "fanout_queue.2"):
            assert (await amqp.queue(key)).declaration_result.consumer_count == 1


@pytest.mark.shows("broker.heartbeat")
async def test_a_line_that_went_dead_is_noticed(deploy: Deploy, amqp: Amqp) -> None:
    place = urlsplit(amqp.url)
    assert place.port is not None
    async with open_proxy(place.port) as proxy:
        far = urlunsplit(place._replace(netloc=f"{place.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"))
        async with deploy(amqp.names("heartbeat = 1"), {"BROKER__URL": far}) as node:
            proxy.silence()
            async with asyncio.timeout(10):  # it takes aiormq 18 with the default
                await node.until_ready("rabbitmq: degraded")
            proxy.restore()


@pytest.mark.shows("events.life_cycle")
@pytest.mark.parametrize(
    ("kind", "types"),
    [("client", ["client.connected", "client.disconnected"]), ("channel", ["channel.occupied", "channel.vacated"])],
)
async def test_other_services_hear_of_clients_or_channels(
    deploy_with_broker: DeployWithBroker, amqp: Amqp, kind: str, types: list[str]
) -> None:
    sections = f'[events]\nlife_cycle = ["{kind}"]\n' + namespace("ns", *OPEN, "presence = true")
    async with deploy_with_broker(sections=sections) as node:
        queue = await amqp.channel.declare_queue(exclusive=True)
        await queue.bind(await amqp.exchange(), "#")
        async with node.client("ns:a"):
            pass
        heard: list[str | None] = []
        async with asyncio.timeout(10), queue.iterator(no_ack=True) as messages:
            async for message in messages:
                heard.append(message.routing_key)
                if len(heard) == len(types):
                    break
    assert heard == types


@pytest.mark.shows("events.channels")
async def test_types_of_events_have_their_channels(deploy_with_broker: DeployWithBroker, amqp: Amqp) -> None:
    sections = '[events.channels]\n"invoice.sent" = "ns:{subject}"\n' + namespace("ns", *OPEN)
    async with deploy_with_broker(sections=sections) as node, node.client("ns:7") as client:
        await amqp.emit(event(1))
        assert (await client.hear())["push"]["channel"] == "ns:7"


@pytest.mark.shows("streams.retention")
@pytest.mark.usefixtures("retention_runs_often")
async def test_the_domains_channels_are_kept_so_long(deploy: Deploy) -> None:
    async with deploy("[streams]\nretention = 1") as node:
        await node.publish(PERSONAL, "soon gone")
        assert len(await history(node)) == 1
        while await history(node):  # noqa: ASYNC110 - as a reader
            await asyncio.sleep(0.05)


async def history(node: Deployment) -> list[object]:
    return list((await node.api("history", channel=PERSONAL, limit=-1))["publications"])


@pytest.mark.shows("streams.recovery_limit")
async def test_who_missed_more_is_told_to_reload(deploy: Deploy) -> None:
    kept = namespace("ns", *OPEN, *HISTORY, "force_recovery = true")
    async with deploy("[streams]\nrecovery_limit = 2\n" + kept) as node, node.client() as client:
        await node.publish("ns:a", 1, 2, 3)
        epoch = (await node.api("history", channel="ns:a"))["epoch"]
        for offset, recovered in ((0, False), (1, True)):
            await client.ask({"id": 2, "unsubscribe": {"channel": "ns:a"}})
            position = {"recover": True, "epoch": epoch, "offset": offset}
            said = (await client.ask({"id": 3, "subscribe": {"channel": "ns:a", **position}}))["subscribe"]
            assert said.get("recovered", False) is recovered


@pytest.mark.shows("streams.recent_bytes")
async def test_memory_keeps_so_much_and_the_stream_the_rest(deploy: Deploy) -> None:
    async def kept(recent_bytes: int) -> float:
        """The figure on the page of metrics, once a client that was away has been given everything."""
        channel = f"ns:{recent_bytes}"
        settings = f"[streams]\nrecent_bytes = {recent_bytes}\n"
        options = namespace("ns", *OPEN, *HISTORY, "force_recovery = true")
        async with deploy(settings + options) as node, node.client(channel) as client, node.client() as back:
            await node.publish(channel, *("x" * 500 for _ in range(10)))
            assert await client.offsets(channel, 10) == [*range(1, 11)]
            position = {"recover": True, "offset": 0, "epoch": ""}
            said = (await back.ask({"id": 2, "subscribe": {"channel": channel, **position}}))["subscribe"]
            assert len(said["publications"]) == 10
            figures = dict(line.split(" ") for line in (await node.metrics()).splitlines() if line[0] != "#")
            return float(figures["orderwire_recent_bytes"])

    assert await kept(2048) <= 2048
    assert await kept(1_000_000) > 5000


@pytest.mark.shows("streams.seen_retention")
@pytest.mark.usefixtures("retention_runs_often")
async def test_a_repetition_is_recognized_so_long(deploy: Deploy) -> None:
    async with deploy("[streams]\nseen_retention = 1\n" + namespace("ns", *OPEN, *HISTORY)) as node:
        same = {"channel": "ns:a", "data": 1, "idempotency_key": "k"}
        assert [(await node.api("publish", **same))["offset"] for _ in range(2)] == [1, 1]
        while (await node.api("publish", **same))["offset"] == 1:  # noqa: ASYNC110 - as a backend
            await asyncio.sleep(0.1)


async def lose(url: str, channel: str) -> None:
    """A publication of another node of which the bus says nothing."""
    async with open_streams(StreamsOptions(url)) as streams:
        await streams.append([Entry(channel, "/tests", str(uuid4()), b'"lost"', 0)])


async def hears(node: Deployment, url: str) -> bool:
    """Whether a client hears what was lost, rather soon."""
    async with node.client("ns:a") as client:
        await lose(url, "ns:a")
        try:
            return "push" in await asyncio.wait_for(client.hear(), 1)
        except TimeoutError:
            return False


@pytest.mark.shows("streams.head_check_interval")
async def test_what_the_bus_lost_is_found_so_soon(deploy: Deploy, postgres_url: str) -> None:
    kept = namespace("ns", *OPEN, *HISTORY)
    for interval, found in ((0.1, True), (3600, False)):
        settings = f"[streams]\nhead_check_interval = {interval}\nhead_check_interval_without_bus = 0.1\n"
        async with deploy(settings + kept) as node:
            await asyncio.sleep(0.5)  # what it looks at as it connects to the bus is another matter
            assert await hears(node, postgres_url) is found


@pytest.mark.shows("streams.head_check_interval_without_bus")
async def test_without_the_bus_it_looks_as_often(deploy: Deploy, postgres_url: str) -> None:
    away = {"REDIS__URL": f"redis://127.0.0.1:{free_port()}/0"}
    kept = namespace("ns", *OPEN, *HISTORY)
    for interval, found in ((0.1, True), (3600, False)):
        settings = f"[streams]\nhead_check_interval = 3600\nhead_check_interval_without_bus = {interval}\n"
        async with deploy(settings + kept, away, with_redis=False) as node:
            assert await hears(node, postgres_url) is found


@pytest.mark.shows("log.level", "log.format")
def test_the_log_is_as_it_should(postgres_url: str, tmp_path: Path) -> None:
    """Of a program that is told to serve at an address that is not this machine's: it warns, and ends."""

    def log(**settings: str) -> list[str]:
        nobody = f"127.0.0.1:{free_port()}"
        given = {"DATABASE__URL": f"postgresql://{nobody}/db", "REDIS__URL": f"redis://{nobody}/0"}
        given |= {"AUTH__TOKEN_SECRET": AUTH_SECRET, "SERVER__HOST": "192.0.2.1", **settings}
        environment: Mapping[str, str] = {f"ORDERWIRE_{name}": value for name, value in given.items()}
        done = subprocess.run(
            [sys.executable, "-m", "server", "serve"],
            env={"PATH": os.defpath, "ORDERWIRE_DATA_DIR": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        return [line for line in done.stderr.splitlines() if "schema_not_checked" in line]

    [line] = log(LOG__FORMAT="json")
    assert json.loads(line)["level"] == "warning"
    [line] = log(LOG__FORMAT="console")
    assert not line.startswith("{")
    assert not log(LOG__LEVEL="error")
