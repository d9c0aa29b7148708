from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from handlers.errors import NotFound
from server.middlewares import HttpMetrics, add_headers, middlewares

Client = TestClient[web.Request, web.Application]
ALLOWED = "https://shop.example"
ASKING = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,if-match"}


async def answer(_request: web.Request) -> web.Response:
    return web.json_response({}, headers={"ETag": '"1"'})


async def refuse(_request: web.Request) -> web.Response:
    raise NotFound


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    origins = [ALLOWED, "https://*.Shop.example", "http://[::1]:3000"]
    app = web.Application(
        middlewares=middlewares(
            HttpMetrics(CollectorRegistry()), allowed_hosts=(), body_timeout=1.0, allowed_origins=origins
        )
    )
    app.on_response_prepare.append(add_headers)
    app.router.add_get("/api/v1/things", answer)
    app.router.add_post("/api/v1/things", answer)
    app.router.add_get("/api/v1/refused", refuse)
    app.router.add_get("/page", answer)
    async with TestClient(TestServer(app)) as opened:
        yield opened


@pytest.mark.parametrize("origin", [ALLOWED, "https://www.shop.example", "HTTPS://SHOP.EXAMPLE", "http://[::1]:3000"])
@pytest.mark.parametrize("path", ["/api/v1/things", "/api/v1/refused", "/api/v1/nothing"])
async def test_pages_of_the_origins_may_read_every_answer(client: Client, origin: str, path: str) -> None:
    async with client.get(path, headers={"Origin": origin}) as reply:
        assert reply.headers["Access-Control-Allow-Origin"] == origin
        assert {"ETag", "X-Stream-Offset", "X-Request-Id"} <= set(
            reply.headers["Access-Control-Expose-Headers"].split(", ")
        )
        assert reply.headers["Timing-Allow-Origin"] == origin
        assert "Access-Control-Allow-Credentials" not in reply.headers
        assert "Origin" in reply.headers["Vary"]


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://1:3000",
        "https://elsewhere.example",
        "http://shop.example",
        "https://shop.example.evil.example",
        ALLOWED + ":8443",
    ],
)
async def test_no_other_page_may(client: Client, origin: str) -> None:
    for method in ("GET", "OPTIONS"):
        async with client.request(method, "/api/v1/things", headers={"Origin": origin, **ASKING}) as reply:
            assert reply.status < 300
            assert not [name for name in reply.headers if name.startswith("Access-Control-")]
            assert "Origin" in reply.headers["Vary"]  # a cache must not give this answer to another origin


async def test_a_browser_that_asks_before_is_told_what_may_be_sent(client: Client) -> None:
    async with client.options("/api/v1/things", headers={"Origin": ALLOWED, **ASKING}) as reply:
        assert (reply.status, await reply.read()) == (204, b"")
        assert reply.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS, POST"
        allowed = reply.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert {"authorization", "if-match", "idempotency-key", "content-type"} <= set(allowed)
        assert int(reply.headers["Access-Control-Max-Age"]) > 0


async def test_anybody_is_told_which_methods_a_path_takes(client: Client) -> None:
    async with client.options("/api/v1/things") as reply:
        assert (reply.status, reply.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    async with client.options("/api/v1/nothing") as reply:
        assert reply.status == 404
    async with client.delete("/api/v1/things", headers={"Origin": ALLOWED}) as reply:
        assert reply.status == 405


async def test_what_is_not_the_api_is_not_shared(client: Client) -> None:
    async with client.get("/page", headers={"Origin": ALLOWED}) as reply:
        assert "Access-Control-Allow-Origin" not in reply.headers
