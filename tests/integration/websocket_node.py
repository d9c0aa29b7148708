"""One node's client side, on real sockets: an aiohttp server, a hub over given streams and bus, and clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry

from handlers.accounts.model import Account
from handlers.actor import Actor, Role
from handlers.audience import may_join as may_join_channel
from handlers.audience import parse_channel, personal_channel
from handlers.clock import utc_now
from handlers.ports.streams import Entry, Streams
from realtime.bus import Bus
from realtime.census import Census
from realtime.client_tokens import ClientTokenOptions, ClientTokens
from realtime.commands import Commands
from realtime.connections import Connections
from realtime.control import Control
from realtime.emulation import Emulation
from realtime.flusher import Flusher
from realtime.hub import Hub, HubOptions
from realtime.identities import Identities
from realtime.inbox import Inbox
from realtime.life_cycle import LifeCycle
from realtime.metrics import RealtimeMetrics
from realtime.namespaces import Namespaces
from realtime.nodes import Nodes
from realtime.operations import Operations
from realtime.presence import Presence
from realtime.presence_keeper import PresenceKeeper
from realtime.presence_memory import MemoryPresence
from realtime.publisher import Publisher
from realtime.rate_limits import UNLIMITED, RateLimits
from realtime.session_effects import ClientOptions
from realtime.survey import Survey
from realtime.tokens import TokenAuthority
from realtime.transports.batches import batch_of
from realtime.transports.entrance import Entrance
from server.transports import OPTIONAL, share_transports, transport_routes
from tests.peers import JSON, Object, Peer
from tests.realtime_options import CLIENT, HUB

PATH = "/connection/websocket"
VERSION = "0.1.0"
STAFF = Account(UUID(int=42), "staff@example.com", "Staff", Role.STAFF, "hash")
MINE = personal_channel(STAFF.id)
FEED = "orders:feed"
QUICK_HUB = replace(HUB, head_check_interval=0.2)
CLIENT_TOKEN_KEY = b"the key of a backend that makes tokens of its own"
DOMAIN_ONLY = Namespaces(retention=86_400)


class StaffOnly:
    """The audience page's own judgement, as if no order had an owner."""

    async def may_join(self, actor: Actor, channel: str) -> bool:
        return may_join_channel(actor, parse_channel(channel), owner=None)


class Client:
    """A WebSocket that says and understands one form of the protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, peer: Peer) -> None:
        self.socket = socket
        self._peer = peer

    async def send(self, payload: bytes) -> None:
        """As the form's kind of frame."""
        if self._peer.kind is aiohttp.WSMsgType.TEXT:
            await self.socket.send_str(payload.decode())
        else:
            await self.socket.send_bytes(payload)

    async def say(self, *commands: Object) -> None:
        await self.send(self._peer.say(commands))

    async def next(self) -> Any:
        """The next message."""
        message = await self.socket.receive(timeout=10)
        assert message.type is self._peer.kind, message
        payload = message.data.encode() if isinstance(message.data, str) else message.data
        [understood] = self._peer.understand(payload)
        return understood

    async def hear(self) -> Any:
        """The next message that is no ping."""
        while not (message := await self.next()):
            pass
        return message

    async def ask(self, command: Object) -> Any:
        await self.say(command)
        return await self.hear()

    async def closed(self) -> tuple[int, str]:
        """Read to the end; the close code and its reason."""
        while True:
            message = await self.socket.receive(timeout=10)
            if message.type is aiohttp.WSMsgType.CLOSE:
                await self.socket.close()  # the answer, which the server waits for
                return int(message.data), str(message.extra)
            assert message.type is self._peer.kind, message

    async def offsets(self, channel: str, up_to: int) -> list[int]:
        """Offsets of the pushes on `channel`, until `up_to` was heard."""
        heard: list[int] = []
        while not heard or heard[-1] != up_to:
            push = (await self.hear())["push"]
            if push["channel"] == channel:
                heard.append(push["pub"]["offset"])
        return heard


@dataclass
class Node:
    origin: str
    streams: Streams
    bus: Bus
    hub: Hub
    connections: Connections
    authority: TokenAuthority
    metrics: RealtimeMetrics
    registry: CollectorRegistry
    http: aiohttp.ClientSession
    peer: Peer = JSON

    @property
    def url(self) -> str:
        return self.origin + PATH

    def token(self, account: Account = STAFF) -> str:
        return self.authority.issue(account, utc_now()).value

    @asynccontextmanager
    async def socket(self, *, peer: Peer | None = None, **options: Any) -> AsyncIterator[Client]:
        """A client that has said nothing yet; of the node's form, unless another is given."""
        peer = peer or self.peer
        options = {"protocols": [peer.subprotocol], **options}
        async with self.http.ws_connect(self.url, autoclose=False, max_msg_size=0, **options) as socket:
            yield Client(socket, peer)

    @asynccontextmanager
    async def client(self, channel: str | None = None, *, subs: dict[str, Any] | None = None) -> AsyncIterator[Client]:
        """Connected, and subscribed to `channel`."""
        async with self.socket() as client:
            connected = await client.ask({"id": 1, "connect": {"token": self.token(), "subs": subs or {}}})
            assert "connect" in connected, connected
            if channel is not None:
                assert "subscribe" in await client.ask({"id": 2, "subscribe": {"channel": channel}})
            yield client

    async def publish(self, channel: str, *payloads: bytes, lose: bool = False) -> None:
        """As the fan-out does: append, then tell the nodes (or lose that)."""
        entries = [Entry(channel, "/tests", str(uuid4()), data, int(utc_now().timestamp() * 1000)) for data in payloads]
        published = list((await self.streams.append(entries)).values())
        if not lose:
            await self.bus.publish(published)

    async def epoch(self, channel: str) -> str:
        return (await self.streams.open([channel]))[channel].epoch

    def measured(self, name: str, labels: dict[str, str] | None = None) -> float:
        return self.registry.get_sample_value(f"orderwire_{name}", labels) or 0.0


@asynccontextmanager
async def running(
    streams: Streams,
    bus: Bus,
    options: ClientOptions = CLIENT,
    namespaces: Namespaces = DOMAIN_ONLY,
    presence: Presence | None = None,
    commands: Commands | None = None,
    life_cycle: LifeCycle | None = None,
    limits: RateLimits = UNLIMITED,
    tokens: ClientTokens | None = None,
    hub_options: HubOptions = QUICK_HUB,
) -> AsyncIterator[Node]:
    """A node that serves on a free port of the loopback."""
    registry = CollectorRegistry()
    metrics = RealtimeMetrics(registry)
    flusher = Flusher(metrics, batch_of, fewest=2)
    hub = Hub(streams, bus, flusher, metrics, hub_options)
    authority = TokenAuthority(b"a secret of at least 32 bytes.....", "orderwire", 900)
    publisher = Publisher(streams, bus, metrics)
    presence = presence or MemoryPresence()
    tokens = tokens or ClientTokens(ClientTokenOptions(hmac_key=CLIENT_TOKEN_KEY))
    keeper = PresenceKeeper(presence, bus, metrics, life_cycle, interval=0.2)
    identities = Identities(authority, tokens, has_personal=True, insecure=options.insecure)
    operations = Operations(namespaces, StaffOnly(), hub, publisher, keeper, tokens, insecure=options.insecure)
    uid = str(uuid4())
    connections = Connections(
        flusher,
        operations,
        identities,
        metrics,
        options,
        version=VERSION,
        node=uid,
        limits=limits,
        commands=commands,
        life_cycle=life_cycle,
    )
    census = Census(uid, "a node", VERSION, lambda: connections)
    nodes = Nodes(uid, bus, census.node, interval=0.2)
    emulation = Emulation(uid, bus, nodes, connections.find)
    survey = Survey(uid, bus, nodes, census.answers, metrics)
    app, entrance = web.Application(), Entrance(connections)
    app.on_response_prepare.append(share_transports(entrance))
    app.add_routes(transport_routes(OPTIONAL, entrance, connections, emulation))
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    inbox = Inbox(hub, Control(bus, lambda: connections), nodes, survey, emulation, metrics)
    endless = (
        bus.run(inbox.receive),
        hub.run(),
        publisher.run(),
        keeper.run(),
        connections.run(),
        nodes.run(),
        survey.run(),
    )
    async with asyncio.TaskGroup() as tasks:
        owned = [tasks.create_task(work) for work in endless]
        try:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            await until(lambda: bus.is_connected and connections.can_take_more)
            async with aiohttp.ClientSession() as http:
                origin = f"http://127.0.0.1:{port}"
                yield Node(origin, streams, bus, hub, connections, authority, metrics, registry, http)
        finally:
            await runner.cleanup()
            while running_still := [task for task in owned if not task.done()]:
                for task in running_still:  # below redis-py a cancellation can be lost
                    task.cancel()
                await asyncio.wait(running_still, timeout=0.5)


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until what it works on is done; for states that announce themselves to nobody."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - nothing sets an event for it
            await asyncio.sleep(0.002)


def texts(count: int, size: int = 10) -> Sequence[bytes]:
    return [orjson.dumps("x" * size) for _ in range(count)]
