from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
import structlog
from aiohttp import ClientError, web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from handlers import timing
from handlers.errors import NotFound
from handlers.http import TRACEPARENT
from server.middlewares import LOOPBACK_HOSTS, HttpMetrics, add_headers, middlewares, observe

Client = TestClient[web.Request, web.Application]


async def answer(request: web.Request) -> web.Response:
    return web.json_response({"traceparent": request[TRACEPARENT], "bound": structlog.contextvars.get_contextvars()})


async def refuse(_request: web.Request) -> web.Response:
    raise NotFound


async def fail(_request: web.Request) -> web.Response:
    raise ZeroDivisionError("secret")


async def move(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/thing/1")


async def fail_late(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"the beginning")
    raise ZeroDivisionError("secret")


async def socket(request: web.Request) -> web.WebSocketResponse:
    opened = web.WebSocketResponse()
    await opened.prepare(request)
    await opened.send_str("hello")
    await opened.close()
    return opened


@asynccontextmanager
async def serving(registry: CollectorRegistry, *, allowed_hosts: Iterable[str] = ()) -> AsyncIterator[Client]:
    app = web.Application(middlewares=middlewares(HttpMetrics(registry), allowed_hosts=allowed_hosts, body_timeout=1.0))
    app.on_response_prepare.append(add_headers)
    app.router.add_get("/thing/{id}", answer)
    app.router.add_get("/api/v1/thing", answer)
    app.router.add_get("/health/live", answer)
    for handler in (refuse, fail, move, fail_late, socket):
        app.router.add_get(f"/{handler.__name__}", handler)
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def client(registry: CollectorRegistry) -> AsyncIterator[Client]:
    async with serving(registry) as opened:
        yield opened


async def test_a_sane_request_id_is_kept_and_echoed(client: Client) -> None:
    response = await client.get("/thing/1", headers={"X-Request-Id": "req-7"})

    assert response.headers["X-Request-Id"] == "req-7"
    assert (await response.json())["bound"]["request_id"] == "req-7"


@pytest.mark.parametrize("given", ["", "a b", "ä", "x" * 129, "<script>"])
async def test_any_other_request_id_is_replaced(client: Client, given: str) -> None:
    response = await client.get("/thing/1", headers={"X-Request-Id": given})

    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-Id"])


async def test_a_trace_goes_on_through_the_request_and_its_log_lines(client: Client) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"

    body = await (await client.get("/thing/1", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})).json()

    assert body["traceparent"].startswith(f"00-{trace}-")
    assert body["bound"]["trace_id"] == trace


async def test_nothing_of_one_request_is_bound_in_the_next_on_the_same_connection(client: Client) -> None:
    first = await (await client.get("/thing/1", headers={"X-Request-Id": "one"})).json()
    second = await (await client.get("/thing/1")).json()

    assert first["bound"]["request_id"] == "one"
    assert second["bound"]["request_id"] != "one"
    assert structlog.contextvars.get_contextvars() == {}


async def test_each_request_is_counted_by_its_route_and_logged_without_its_query(
    client: Client, registry: CollectorRegistry
) -> None:
    with capture_logs() as logs:
        for path in ("/thing/1?token=secret", "/thing/2", "/nothing/here", "/refuse"):
            await client.get(path)

    def count(route: str, status: str) -> float | None:
        labels = {"method": "GET", "route": route, "status": status}
        return registry.get_sample_value("orderwire_http_requests_total", labels)

    assert (count("/thing/{id}", "200"), count("unmatched", "404"), count("/refuse", "404")) == (2, 1, 1)
    timed = {"method": "GET", "route": "/thing/{id}"}
    assert registry.get_sample_value("orderwire_http_request_seconds_count", timed) == 2
    assert [(entry["event"], entry["status"]) for entry in logs] == [
        ("http_request", 200),
        ("http_request", 200),
        ("http_request", 404),
        ("http_request", 404),
    ]
    assert "secret" not in repr(logs)


async def test_no_path_ends_a_line_of_the_log(client: Client) -> None:
    with capture_logs() as logs:
        await client.get("/thing/1%0Ahttp_request")

    assert [entry["path"] for entry in logs] == ["/thing/1%0Ahttp_request"]


async def test_who_goes_before_there_is_an_answer_makes_no_error_of_the_server(registry: CollectorRegistry) -> None:
    async def gone(_request: web.Request) -> web.Response:
        raise asyncio.CancelledError

    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await observe(HttpMetrics(registry))(make_mocked_request("GET", "/thing/1"), gone)

    assert [entry["status"] for entry in logs] == [499]


async def said(client: Client, request: bytes) -> bytes:
    """The first line of the answer to these bytes."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            return await reader.readline()
    finally:
        writer.close()


async def test_a_body_that_nobody_wants_is_not_waited_for(client: Client) -> None:
    head = b"POST /nothing/here HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"

    assert await said(client, head) == b"HTTP/1.1 404 Not Found\r\n"


async def test_an_outlandish_method_makes_no_label_of_its_own(client: Client, registry: CollectorRegistry) -> None:
    response = await client.request("PROPFIND", "/thing/1")

    assert response.status == 405
    labels = {"method": "other", "route": "unmatched", "status": "405"}
    assert registry.get_sample_value("orderwire_http_requests_total", labels) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/refuse", 404, "not_found"),
        ("GET", "/nothing/here", 404, "not_found"),
        ("PUT", "/refuse", 405, "method_not_allowed"),
        ("GET", "/fail", 500, "internal"),
    ],
)
async def test_every_refusal_is_a_problem_document(
    client: Client, method: str, path: str, status: int, code: str
) -> None:
    with capture_logs():
        response = await client.request(method, path)
    problem = await response.json(content_type="application/problem+json")

    assert (response.status, problem["status"], problem["code"]) == (status, status, code)
    assert problem["request_id"] == response.headers["X-Request-Id"]
    assert "secret" not in repr(problem)


async def test_head_is_refused_with_the_same_head_and_no_body(client: Client) -> None:
    response = await client.head("/refuse")

    assert (response.status, response.content_type) == (404, "application/problem+json")
    assert await response.read() == b""


async def test_an_unexpected_exception_is_logged_with_its_traceback(client: Client) -> None:
    with capture_logs() as logs:
        await client.get("/fail")

    (failure,) = [entry for entry in logs if entry["event"] == "request_failed"]
    assert failure["exc_info"]


async def test_a_redirect_is_no_problem(client: Client) -> None:
    response = await client.get("/move", allow_redirects=False)

    assert (response.status, response.headers["Location"]) == (302, "/thing/1")


async def test_an_answer_that_breaks_off_is_not_completed_by_another(client: Client) -> None:
    with capture_logs():
        async with client.get("/fail_late") as response:
            with pytest.raises(ClientError):
                await response.read()


async def test_a_socket_passes_untouched_and_is_counted_but_not_timed(registry: CollectorRegistry) -> None:
    async with serving(registry) as client, client.ws_connect("/socket") as opened:
        assert await opened.receive_str() == "hello"
        assert (await opened.receive()).type.name == "CLOSE"

    labels = {"method": "GET", "route": "/socket"}
    assert registry.get_sample_value("orderwire_http_requests_total", {**labels, "status": "101"}) == 1
    assert registry.get_sample_value("orderwire_http_request_seconds_count", labels) is None


async def test_no_answer_says_which_versions_run(registry: CollectorRegistry) -> None:
    async with serving(registry) as client:
        opened = await client.ws_connect("/socket")
        answers = [await client.get("/thing/1"), await client.get("/nowhere"), opened._response]
        assert [answer.headers.get("Server") for answer in answers] == [None] * 3


async def test_answers_are_not_sniffed_framed_or_kept(client: Client) -> None:
    api, page = await client.get("/api/v1/thing"), await client.get("/thing/1")

    for response in (api, page):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert api.headers["Cache-Control"] == "no-store"
    assert "Cache-Control" not in page.headers


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "localhost.",
        "localhost.:8000",
        "127.0.0.1",
        "127.0.0.1:8000",
        "[::1]:8000",
        "[::1]",
    ],
)
async def test_a_host_on_the_list_is_served_with_any_port(registry: CollectorRegistry, host: str) -> None:
    async with serving(registry, allowed_hosts=LOOPBACK_HOSTS) as client:
        assert (await client.get("/thing/1", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "localhost:", "localhost..", ""]
)
async def test_a_foreign_host_is_misdirected_also_for_a_socket(registry: CollectorRegistry, host: str) -> None:
    async with serving(registry, allowed_hosts=LOOPBACK_HOSTS) as client:
        response = await client.get("/thing/1", headers={"Host": host})
        upgrade = await client.get("/socket", headers={"Host": host, "Upgrade": "websocket", "Connection": "Upgrade"})

        assert (response.status, upgrade.status) == (421, 421)
        assert (await response.json(content_type="application/problem+json"))["code"] == "misdirected"


async def test_a_host_is_one_however_the_list_writes_it(registry: CollectorRegistry) -> None:
    async with serving(registry, allowed_hosts=["Orders.Example."]) as client:
        assert (await client.get("/thing/1", headers={"Host": "orders.example"})).status == 200


async def test_who_names_no_host_is_misdirected(registry: CollectorRegistry) -> None:
    """Only HTTP/1.0 may leave it out."""
    async with serving(registry, allowed_hosts=LOOPBACK_HOSTS) as client:
        assert await said(client, b"GET /thing/1 HTTP/1.0\r\n\r\n") == b"HTTP/1.0 421 Misdirected Request\r\n"


async def test_probes_ask_by_address(registry: CollectorRegistry) -> None:
    async with serving(registry, allowed_hosts=["orders.example"]) as client:
        assert (await client.get("/health/live", headers={"Host": "10.0.0.7:8000"})).status == 200


async def test_an_answer_tells_how_long_it_took_and_how_long_the_database() -> None:
    work_done = 0.02

    async def work(_request: web.Request) -> web.Response:
        async def look() -> None:
            timing.add_database(work_done)

        await asyncio.gather(asyncio.create_task(look()), asyncio.create_task(look()))
        return web.Response()

    app = web.Application(middlewares=middlewares(HttpMetrics(CollectorRegistry()), allowed_hosts=(), body_timeout=1.0))
    app.on_response_prepare.append(add_headers)
    app.router.add_get("/api/v1/thing", work)
    app.router.add_get("/page", work)
    async with TestClient(TestServer(app)) as client:
        for _ in range(2):  # each has its own
            async with client.get("/api/v1/thing") as reply:
                told = dict(re.findall(r"(\w+);dur=([\d.]+)", reply.headers["Server-Timing"]))
            assert float(told["db"]) == 40.0
            assert 0 <= float(told["total"]) < 1000
        async with client.get("/page") as reply:
            assert "Server-Timing" not in reply.headers
