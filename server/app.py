"""Chooses the parts and joins them to one node. The only place that names variants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from socket import gethostname
from uuid import uuid4

from aiohttp import web
from prometheus_client import CollectorRegistry

from handlers.admission import Admission
from handlers.commands import Commands
from handlers.http import SERVICES, Services
from handlers.orders.expiry import Expiry
from handlers.payments import notices
from handlers.payments.settling import Settling
from handlers.ports.broker import Broker
from handlers.ports.payments import PaymentProvider
from handlers.products.telling_stock import TellingStock
from handlers.stats.adding_up import AddingUp
from handlers.work import Work
from realtime.broker_rabbitmq import open_rabbitmq
from realtime.bus import Bus
from realtime.bus_redis import open_redis_bus
from realtime.census import Census
from realtime.client_tokens import ClientTokens
from realtime.connections import Connections
from realtime.control import Control
from realtime.emulation import Emulation
from realtime.fanout import FanOut
from realtime.flusher import Flusher
from realtime.hub import Hub
from realtime.identities import Identities
from realtime.inbox import Inbox
from realtime.key_set import open_key_set
from realtime.life_cycle import LifeCycle
from realtime.metrics import RealtimeMetrics
from realtime.nodes import Nodes
from realtime.operations import Operations
from realtime.presence_keeper import PresenceKeeper
from realtime.presence_redis import open_redis_presence
from realtime.publisher import Publisher
from realtime.rabbitmq_topology import RabbitMQOptions
from realtime.relay import Relay
from realtime.server_api import ServerApi
from realtime.survey import Survey
from realtime.tokens import TokenAuthority
from realtime.transports.batches import batch_of
from realtime.transports.entrance import Entrance
from realtime.transports.server_api import ServerApiEndpoint
from server import asyncapi, openapi, options, stripe_provider
from server.crew import Berth, MetricsPage
from server.health import Health
from server.lifespan import Places
from server.middlewares import LOOPBACK_HOSTS, HttpMetrics, add_headers, middlewares
from server.passwords import Argon2Passwords
from server.problems import status_of
from server.routes import STREAMED, build_commands, build_routes, identify_by, page, server_api_routes
from server.sandbox import sandbox_routes
from server.settings import ClientToken, Settings
from server.telemetry import PolledMetrics, new_registry
from server.transports import WEBSOCKET_PATH, share_transports, transport_routes
from server.version import VERSION
from storage.broker import PostgresBroker, PostgresBrokerOptions
from storage.migrate import check_on
from storage.outbox import PostgresOutbox
from storage.postgres import Postgres, open_postgres
from storage.retention import Retention, RetentionOptions
from storage.sandbox import Sandbox
from storage.streams import StreamsOptions, open_streams


@dataclass(frozen=True, slots=True)
class Node:
    """`endless` are the parts that run as long as the node does, by name."""

    app: web.Application
    database: Postgres
    connections: Connections
    health: Health
    endless: Mapping[str, Callable[[], Awaitable[None]]]


@asynccontextmanager
async def open_node(settings: Settings, places: Places, berth: Berth | None = None) -> AsyncIterator[Node]:
    """A node whose parts are open but not running yet. None of them has to be reachable."""
    registry = await asyncio.to_thread(new_registry)  # reads /proc
    metrics = RealtimeMetrics(registry)
    authority = TokenAuthority(places.token_secret, settings.auth.token_issuer, settings.auth.token_ttl)
    async with (
        open_postgres(options.postgres_options(settings, places)) as postgres,
        open_streams(StreamsOptions(places.database_url)) as streams,
        open_redis_bus(options.bus_options(settings, places), metrics) as bus,
        open_redis_presence(options.presence_options(settings, places)) as presence,
        _open_broker(settings, places, postgres, metrics) as broker,
        _open_client_tokens(settings.client.token) as connecting,
        _open_client_tokens(_subscription_token(settings)) as subscribing,
        Argon2Passwords() as passwords,
        _open_provider(settings, postgres) as provider,
        Work(postgres) as work,
    ):
        rules = options.rules(settings)
        outbox = PostgresOutbox(places.database_url, postgres.reserve, postgres.bell)
        relay = Relay(outbox, broker, metrics)
        namespaces = options.namespaces(settings)
        flusher = Flusher(metrics, batch_of)
        hub = Hub(streams, bus, flusher, metrics, options.hub_options(settings))
        publisher = Publisher(streams, bus, metrics)
        life_cycle = LifeCycle(broker, metrics)
        told = settings.events.life_cycle
        keeper = PresenceKeeper(presence, bus, metrics, life_cycle if "channel" in told else None)
        has_personal = settings.client.subscribe_to_user_personal_channel.enabled
        insecure = settings.client.insecure
        identities = Identities(authority, connecting, has_personal=has_personal, insecure=insecure)
        operations = Operations(
            namespaces,
            Admission(work),
            hub,
            publisher,
            keeper,
            subscribing,
            insecure=insecure,
        )
        commands = Commands(work, rules, provider, build_commands(), status_of)
        uid = str(uuid4())
        connections = Connections(
            flusher,
            operations,
            identities,
            metrics,
            options.client_options(settings),
            version=VERSION,
            node=uid,
            limits=options.rate_limits(settings),
            commands=commands,
            life_cycle=life_cycle if "client" in told else None,
        )
        control = Control(bus, lambda: connections)
        census = Census(uid, _name(settings, berth), VERSION, lambda: connections)
        nodes = Nodes(uid, bus, census.node)
        fan_out_options = options.fan_out_options(settings, namespaces)
        queues = options.fan_out_queues(settings)

        def is_mine(partition: int) -> bool:
            return len(queues) == 1 or nodes.is_mine(partition)  # what is one stays where it is

        fan_outs = [
            FanOut(queue, broker, streams, bus, metrics, fan_out_options, is_mine=partial(is_mine, number))
            for number, queue in enumerate(queues)
        ]
        emulation = Emulation(uid, bus, nodes, connections.find)
        survey = Survey(uid, bus, nodes, census.answers, metrics)
        inbox = Inbox(hub, control, nodes, survey, emulation, metrics)
        retention = Retention(RetentionOptions(places.database_url, settings.streams.seen_retention))
        health = Health(
            vital={"postgresql": _answers(postgres), "schema": _fits(postgres)},
            helpful={"rabbitmq" if settings.broker.url else "broker": broker.is_reachable, "redis": _is_connected(bus)},
        )
        metrics_page = MetricsPage(registry, PolledMetrics(registry, outbox.backlog), berth)
        # In a thread: it looks into the folder of the web page.
        entrance = Entrance(connections)
        transports = transport_routes(options.wanted_transports(settings), entrance, connections, emulation)
        app = await asyncio.to_thread(_application, settings, health, transports, registry, metrics_page)
        app.on_response_prepare.append(share_transports(entrance))
        if (key := settings.http_api.key) is not None:
            most = settings.client.history_max_publication_limit
            api = ServerApi(namespaces, publisher, hub, keeper, control, nodes, survey, history_limit=most)
            app.add_routes(server_api_routes(ServerApiEndpoint(api, key.get_secret_value()).handle))
        app[SERVICES] = Services(work, rules, provider, passwords, authority, identify_by(authority))
        endless: dict[str, Callable[[], Awaitable[None]]] = {
            "bus": lambda: bus.run(inbox.receive),
            "hub": hub.run,
            "publisher": publisher.run,
            "presence": keeper.run,
            "life_cycle": life_cycle.run,
            "connections": connections.run,
            "nodes": nodes.run,
            "survey": survey.run,
            "relay": relay.run,
            "outbox": outbox.run,
            "retention": retention.run,
            "expiry": Expiry(work, rules).run,
            "adding_up": AddingUp(work).run,
            "telling_stock": TellingStock(work).run,
        }
        if provider is not None:
            endless["settling"] = Settling(work, provider).run
        if isinstance(provider, Sandbox):
            app.add_routes(sandbox_routes(provider))
            endless["sandbox"] = partial(provider.run, partial(notices.receive, work, provider))
        endless |= {f"fan_out {number}": fan_out.run for number, fan_out in enumerate(fan_outs)}
        endless |= {f"child {number}": child.run for number, child in enumerate(places.children)}
        async with metrics_page.shared():
            yield Node(app, postgres, connections, health, endless)


@asynccontextmanager
async def _open_broker(
    settings: Settings, places: Places, postgres: Postgres, metrics: RealtimeMetrics
) -> AsyncIterator[Broker]:
    names = settings.broker
    if names.url is None:
        queues = PostgresBrokerOptions(options.fan_out_queues(settings), names.dead_letter_queue)
        yield PostgresBroker(places.database_url, postgres.pool, postgres.reserve, queues)
        return
    rabbitmq_options = RabbitMQOptions(
        names.url.get_secret_value(),
        names.exchange,
        names.fanout_queue,
        names.dead_letter_queue,
        names.heartbeat,
        names.fanout_partitions,
    )
    async with open_rabbitmq(rabbitmq_options, metrics) as rabbitmq:
        yield rabbitmq


@asynccontextmanager
async def _open_provider(settings: Settings, postgres: Postgres) -> AsyncIterator[PaymentProvider | None]:
    match options.provider(settings):
        case stripe_provider.NAME:
            async with stripe_provider.open_stripe(options.stripe_options(settings)) as provider:
                yield provider
        case Sandbox.name:
            yield Sandbox(postgres.pool)
        case _:
            yield None


@asynccontextmanager
async def _open_client_tokens(given: ClientToken) -> AsyncIterator[ClientTokens]:
    options_ = options.client_token_options(given)
    if given.jwks_public_endpoint is None:
        yield ClientTokens(options_)
        return
    async with open_key_set(given.jwks_public_endpoint) as key_set:
        yield ClientTokens(options_, key_set)


def _subscription_token(settings: Settings) -> ClientToken:
    own = settings.client.subscription_token
    return own if own.enabled else settings.client.token


def _application(
    settings: Settings,
    health: Health,
    transports: Sequence[web.RouteDef],
    registry: CollectorRegistry,
    metrics_page: MetricsPage,
) -> web.Application:
    hosts: Sequence[str] = settings.server.allowed_hosts
    if not hosts and settings.is_embedded:
        hosts = sorted(LOOPBACK_HOSTS)
    app = web.Application(
        middlewares=middlewares(
            HttpMetrics(registry),
            allowed_hosts=hosts,
            body_timeout=settings.server.body_timeout,
            allowed_origins=settings.server.allowed_origins,
            streamed=STREAMED,
        ),
        client_max_size=settings.server.max_body_bytes,
    )
    app.on_response_prepare.extend((add_headers, health.let_go))
    broker = settings.broker
    app.add_routes(
        build_routes(
            transports=transports,
            openapi=page(openapi.document),
            asyncapi=page(
                partial(asyncapi.document, broker.exchange, WEBSOCKET_PATH, has_rabbitmq=broker.url is not None)
            ),
            health=health.routes(),
            metrics=metrics_page.handle,
            web_folder=_web_folder(),
            swagger_ui_folder=_swagger_ui_folder(),
        )
    )
    return app


def _name(settings: Settings, berth: Berth | None) -> str:
    """Of the node, for people."""
    place = f"{gethostname()}:{settings.server.port}"
    return place if berth is None else f"{place}/{berth.number}"


def _web_folder() -> Path:
    """web/ beside this package's modules in an installation, one folder up in a checkout."""
    installed = Path(__file__).parent / "web"
    return installed if installed.exists() else installed.parent.parent / "web"


def _swagger_ui_folder() -> Path | None:
    """Of the files in its wheel, which is an extra; none of its code is imported."""
    wheel = find_spec("swagger_ui")
    return None if wheel is None or wheel.origin is None else Path(wheel.origin).parent / "static"


def _answers(postgres: Postgres) -> Callable[[], Awaitable[bool]]:
    async def answers() -> bool:
        async with postgres.reserve.connection() as connection:
            await connection.execute("SELECT 1")
        return True

    return answers


def _fits(postgres: Postgres) -> Callable[[], Awaitable[bool]]:
    async def fits() -> bool:
        async with postgres.reserve.connection() as connection:
            await check_on(connection)
        return True

    return fits


def _is_connected(bus: Bus) -> Callable[[], Awaitable[bool]]:
    async def is_connected() -> bool:
        return bus.is_connected

    return is_connected
