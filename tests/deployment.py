"""A whole node from settings as an operator writes them, in this process, on the run's real PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from uuid import uuid4

import aiohttp
from joserfc import jwt
from joserfc.jwk import OctKey

from handlers.accounts.model import Account
from handlers.actor import Role
from handlers.clock import utc_now
from realtime.tokens import TokenAuthority
from server.serve import Started, serve
from server.settings import Settings
from tests.integration.websocket_node import Client
from tests.peers import JSON

AUTH_SECRET = "a secret of 32 bytes or more for accounts"
TOKEN_KEY = "a key of 32 bytes or more for tokens"
API_KEY = "a key for backends"
ACCOUNT = Account(uuid4(), "staff@example.com", "Staff", Role.STAFF, "hash")


@dataclass(frozen=True)
class Deployment:
    """`stop` is SIGTERM. Whatever the settings do not change, they leave as config.toml has it."""

    url: str
    http: aiohttp.ClientSession
    stop: asyncio.Event

    @asynccontextmanager
    async def socket(self, **options: Any) -> AsyncIterator[Client]:
        """A client that has said nothing yet."""
        options = {"protocols": [JSON.subprotocol], **options}
        url = f"{self.url}/connection/websocket"
        async with self.http.ws_connect(url, autoclose=False, max_msg_size=0, **options) as socket:
            yield Client(socket, JSON)

    @asynccontextmanager
    async def client(self, *channels: str, token: str | None = None) -> AsyncIterator[Client]:
        """Connected, by default as user 42 of a backend, and subscribed to the channels."""
        async with self.socket() as client:
            hello = await client.ask({"id": 1, "connect": {"token": token or signed(sub="42")}})
            assert "connect" in hello, hello
            for channel in channels:
                said = await client.ask({"id": 2, "subscribe": {"channel": channel}})
                assert "subscribe" in said, said
            yield client

    async def connect(self, token: str = "") -> dict[str, Any]:
        """The answer to a client's first command: `connect`, or `error`, or the code that it is closed with."""
        async with self.socket() as client:
            await client.say({"id": 1, "connect": {"token": token} if token else {}})
            message = await client.socket.receive(timeout=10)
            if message.type is aiohttp.WSMsgType.CLOSE:
                return {"closed": message.data}
            answer: dict[str, Any] = message.json()
            return answer

    async def api(self, method: str, **fields: object) -> dict[str, Any]:
        """The result of a method of the server API, or its error."""
        headers = {"X-API-Key": API_KEY}
        async with self.http.post(f"{self.url}/api/{method}", json=fields, headers=headers) as reply:
            answer = await reply.json()
        result: dict[str, Any] = answer.get("result", answer)
        return result

    async def publish(self, channel: str, *payloads: object) -> None:
        for payload in payloads:
            result = await self.api("publish", channel=channel, data=payload)
            assert "error" not in result, result

    async def status(self, path: str, **headers: str) -> int:
        async with self.http.get(self.url + path, headers=headers) as reply:
            return reply.status

    async def metrics(self) -> str:
        async with self.http.get(f"{self.url}/metrics") as reply:
            return await reply.text()

    async def until_ready(self, wanted: str) -> None:
        """Returns when the node says so of itself, or of a part: "redis: degraded"."""
        async with asyncio.timeout(20):
            while wanted not in await self._readiness():  # noqa: ASYNC110 - as a balancer would
                await asyncio.sleep(0.02)

    async def _readiness(self) -> Sequence[str]:
        async with self.http.get(f"{self.url}/health/ready") as reply:
            return (await reply.text()).splitlines()


NOTHING: Mapping[str, str] = MappingProxyType({})


class Deploy(Protocol):
    """`text` is config.toml's; the variables are without their prefix. `with_redis` False: none is expected to be
    reached."""

    def __call__(
        self, text: str = "", environment: Mapping[str, str] = NOTHING, *, with_redis: bool = True
    ) -> AbstractAsyncContextManager[Deployment]: ...


@asynccontextmanager
async def deployed(settings: Settings, folder: Path, *, with_redis: bool) -> AsyncIterator[Deployment]:
    """Serving when the block begins, drained and gone when it ends."""
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()

    def announce(what: Started) -> None:
        started.set_result(what.url)

    environ = {"ORDERWIRE_DATA_DIR": str(folder)}
    serving = asyncio.create_task(serve(settings, environ, stop, with_demo=False, announce=announce))
    try:
        await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            deployment = Deployment(await started, http, stop)
            await asyncio.sleep(0.02)  # it keeps its answer for a while, and joins the bus in a moment
            await deployment.until_ready("fine" if with_redis else "degraded")
            yield deployment
    finally:
        stop.set()
        await serving


def signed(key: str = TOKEN_KEY, **claims: object) -> str:
    """A token as the users' own backend makes it."""
    return jwt.encode({"alg": "HS256"}, dict(claims), OctKey.import_key(key), algorithms=["HS256"])


def of_account(secret: str = AUTH_SECRET, issuer: str = "orderwire") -> str:
    """A token as signing in gives it."""
    return TokenAuthority(secret.encode(), issuer, 900.0).issue(ACCOUNT, utc_now()).value


def soon(seconds: int) -> int:
    return int(time.time()) + seconds


def namespace(name: str, *options: str) -> str:
    return "\n".join(["[[channel.namespaces]]", f'name = "{name}"', *options, ""])


HISTORY = ("history_size = 100", 'history_ttl = "1h"')
OPEN = ("allow_subscribe_for_client = true", "allow_publish_for_client = true")
