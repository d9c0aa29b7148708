"""Tokens whose keys a backend publishes, over real HTTP; the backend rotates its keys and goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from realtime.bus_memory import MemoryExchange
from realtime.client_tokens import ClientTokenOptions, ClientTokens
from realtime.key_set import open_key_set
from realtime.namespaces import ChannelOptions, Namespaces
from storage.streams import StreamsOptions, open_streams
from tests.integration.websocket_node import Node, running

NAMESPACES = Namespaces(retention=86_400, has_personal=True, named={"room": ChannelOptions()})
FIRST, SECOND = ECKey.generate_key("P-256"), RSAKey.generate_key(2048)


@dataclass
class Backend:
    """Publishes the keys that it has, unless it is broken."""

    keys: dict[str, ECKey | RSAKey] = field(default_factory=dict)
    status: int = 200
    padding: int = 0

    async def publish(self, request: web.Request) -> web.StreamResponse:
        """In pieces, as they come over a network."""
        keys = [{**key.as_dict(private=False), "kid": key_id} for key_id, key in self.keys.items()]
        body = orjson.dumps({"keys": keys, "padding": "x" * self.padding})
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        for at in range(0, len(body), 50):
            await response.write(body[at : at + 50])
            await asyncio.sleep(0)
        return response


@pytest.fixture
async def backend() -> Backend:
    return Backend({"first": FIRST})


@pytest.fixture
async def node(postgres_url: str, backend: Backend) -> AsyncIterator[Node]:
    app = web.Application()
    app.router.add_get("/jwks.json", backend.publish)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
    async with open_key_set(url) as key_set, open_streams(StreamsOptions(postgres_url)) as streams:
        tokens = ClientTokens(ClientTokenOptions(), key_set)
        async with running(streams, MemoryExchange().bus(), namespaces=NAMESPACES, tokens=tokens) as started:
            yield started
    await runner.cleanup()


def signed(key_id: str, key: ECKey | RSAKey, **claims: Any) -> str:
    algorithm = "ES256" if isinstance(key, ECKey) else "RS256"
    return jwt.encode({"alg": algorithm, "kid": key_id}, claims, key, algorithms=[algorithm])


async def test_a_token_of_a_published_key_is_good_and_one_of_another_is_not(node: Node) -> None:
    async with node.socket() as client:
        assert "connect" in await client.ask({"id": 1, "connect": {"token": signed("first", FIRST, sub="42")}})
    async with node.socket() as client:
        await client.say({"id": 1, "connect": {"token": signed("first", ECKey.generate_key("P-256"), sub="42")}})
        assert await client.closed() == (3500, "invalid token")


async def test_a_key_that_the_set_lacks_is_no_key(node: Node) -> None:
    async with node.socket() as client:
        await client.say({"id": 1, "connect": {"token": signed("unheard of", FIRST, sub="42")}})
        assert await client.closed() == (3500, "invalid token")


async def test_a_subscription_and_its_refresh_are_looked_up_too(node: Node) -> None:
    async with node.socket() as client:
        await client.ask({"id": 1, "connect": {"token": signed("first", FIRST, sub="42")}})
        token = signed("first", FIRST, sub="42", channel="room:a")
        assert "subscribe" in await client.ask({"id": 2, "subscribe": {"channel": "room:a", "token": token}})
        assert "sub_refresh" in await client.ask({"id": 3, "sub_refresh": {"channel": "room:a", "token": token}})


@pytest.mark.parametrize("how", [{"status": 500}, {"padding": 300_000}], ids=["broken", "endless"])
async def test_while_the_set_cannot_be_had_clients_come_again_and_known_keys_are_good(
    node: Node, backend: Backend, how: dict[str, int]
) -> None:
    async with node.socket() as client:
        known = signed("first", FIRST, sub="42")
        assert "connect" in await client.ask({"id": 1, "connect": {"token": known}})
        backend.keys["second"] = SECOND
        for name, value in how.items():
            setattr(backend, name, value)
        new = signed("second", SECOND, sub="42")
        refused = (await client.ask({"id": 2, "refresh": {"token": new}}))["error"]
        assert (refused["code"], refused["temporary"]) == (100, True)
        assert "refresh" in await client.ask({"id": 3, "refresh": {"token": known}})
    async with node.socket() as client:
        refused = (await client.ask({"id": 1, "connect": {"token": new}}))["error"]
        assert (refused["code"], refused["temporary"]) == (100, True)
