from __future__ import annotations

import gzip
import sys
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from server.compressing import preferred
from server.middlewares import HttpMetrics, middlewares

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Client = TestClient[web.Request, web.Application]
DECODED: Mapping[str | None, Callable[[bytes], bytes]] = {
    "zstd": zstd.decompress,
    "gzip": gzip.decompress,
    None: bytes,
}


@pytest.fixture
async def lists() -> AsyncIterator[Client]:
    """Of letters, as many as the path says; with an ETag, and known, where it says so."""

    async def listed(request: web.Request) -> web.Response:
        headers = {"ETag": request.query["etag"]} if "etag" in request.query else {}
        if "known" in request.query:
            return web.Response(status=304, headers=headers)
        return web.Response(body=b"x" * int(request.match_info["size"]), headers=headers)

    app = web.Application(middlewares=middlewares(HttpMetrics(CollectorRegistry()), allowed_hosts=(), body_timeout=1.0))
    app.router.add_get("/api/v1/list/{size}", listed)
    app.router.add_get("/file/{size}", listed)
    async with TestClient(TestServer(app), auto_decompress=False) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "accepted", "coding", "varies"),
    [
        ("/api/v1/list/2048", "gzip", "gzip", True),
        ("/api/v1/list/2048", "gzip, zstd", "zstd", True),
        ("/api/v1/list/100000", "gzip", "gzip", True),
        ("/api/v1/list/100000", "gzip, zstd", "zstd", True),
        ("/api/v1/list/2048", "identity", None, True),
        ("/api/v1/list/2047", "gzip, zstd", None, False),
        ("/api/v1/list/2048?etag=%221%22", "gzip, zstd", None, False),
        ("/api/v1/list/2048?etag=W/%221%22", "gzip, zstd", "zstd", True),
        ("/api/v1/list/2047?etag=W/%221%22", "gzip, zstd", None, True),
        ("/file/2048", "gzip, zstd", None, False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_large_answers_are_compressed_for_who_takes_them_so(
    lists: Client, method: str, path: str, accepted: str, coding: str | None, varies: bool
) -> None:
    async with lists.request(method, path, headers={"Accept-Encoding": accepted}) as reply:
        body = await reply.read()

    assert reply.headers.get("Content-Encoding") == coding
    assert ("Accept-Encoding" in reply.headers.get("Vary", "")) is varies
    assert reply.headers.get("ETag") == reply.url.query.get("etag")
    if method == "GET":
        assert len(body) == reply.content_length
        assert DECODED[coding](body) == b"x" * int(reply.url.name)
    else:
        assert body == b""


async def test_what_is_known_already_varies_as_what_would_have_been_sent(lists: Client) -> None:
    async with lists.get("/api/v1/list/4096?known&etag=W/%221%22", headers={"Accept-Encoding": "zstd"}) as reply:
        assert (reply.status, await reply.read(), reply.headers["Vary"]) == (304, b"", "Accept-Encoding")
        assert "Content-Encoding" not in reply.headers


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "zstd"),
        ("br, GZIP;q=0.5, *;q=0", "gzip"),
        ("zstd;q=0.5, gzip;q=0.8", "gzip"),
        ("zstd; q=0.8 , gzip ; q=0.8", "zstd"),
        ("gzip, zstd;q=0", "gzip"),
        ("gzip;q=1.000, zstd;q=0.999", "gzip"),
        ("gzip;q=0.5, identity", None),
        ("gzip, identity;q=0.5", "gzip"),
        ("gzip, identity", "gzip"),
        ("gzip;q=0, *", None),
        ("gzip; q=0.000", None),
        ("gzip;q=x, zstd;level=3", None),
        ("*", None),
        ("deflate, gzipped", None),
        (", ,", None),
        ("", None),
    ],
)
def test_the_coding_that_is_liked_best_is_chosen_and_of_two_liked_alike_the_better_one(
    accepted: str, coding: str | None
) -> None:
    assert preferred(accepted) == coding
