from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from server import health
from server.health import Health, State


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


async def broken() -> bool:
    raise OSError("no route")


async def never() -> bool:
    await asyncio.Event().wait()
    return True


@pytest.mark.parametrize("failing", [no, broken, never])
async def test_a_vital_part_that_fails_turns_the_node_red(
    failing: Callable[[], Awaitable[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.01)
    worst, states = await Health(vital={"postgresql": failing}, helpful={"redis": yes}).report()
    assert worst is State.RED
    assert states == {"postgresql": State.RED, "redis": State.FINE}


async def test_a_helpful_part_that_fails_only_degrades() -> None:
    worst, states = await Health(vital={"postgresql": yes}, helpful={"redis": no, "rabbitmq": yes}).report()
    assert worst is State.DEGRADED
    assert states == {"postgresql": State.FINE, "redis": State.DEGRADED, "rabbitmq": State.FINE}


async def test_ready_answers_one_line_for_each_part_and_live_answers_whatever_is_away() -> None:
    watched = Health(vital={"postgresql": no}, helpful={"redis": yes})
    async with _client(watched) as client:
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")
        assert (ready.status, await ready.text()) == (503, "red\npostgresql: red\nredis: fine\n")
        assert (live.status, await live.text()) == (200, "fine\n")


async def test_degraded_is_still_ready() -> None:
    async with _client(Health(vital={"postgresql": yes}, helpful={"redis": no})) as client:
        ready = await client.get("/health/ready")
        assert (ready.status, await ready.text()) == (200, "degraded\npostgresql: fine\nredis: degraded\n")
        assert ready.headers["Cache-Control"] == "no-store"


async def test_a_node_that_drains_is_not_ready() -> None:
    watched = Health(vital={"postgresql": yes}, helpful={})
    watched.start_draining()
    async with _client(watched) as client:
        ready = await client.get("/health/ready")
        assert (ready.status, await ready.text()) == (503, "red\npostgresql: fine\ndraining: red\n")


async def test_a_node_that_drains_keeps_no_connection_for_another_request() -> None:
    watched = Health(vital={"postgresql": yes}, helpful={})
    async with _client(watched) as client:
        before = await client.get("/health/live")
        watched.start_draining()
        while_draining = await client.get("/health/live")
    said = [answer.headers.get("Connection") for answer in (before, while_draining)]
    assert said == [None, "close"]


async def test_who_asks_at_the_same_time_gets_the_same_answer() -> None:
    asked = 0

    async def counted() -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return True

    watched = Health(vital={"postgresql": counted}, helpful={})
    reports = await asyncio.gather(*(watched.report() for _ in range(100)))

    assert (asked, {worst for worst, _ in reports}) == (1, {State.FINE})


async def test_an_answer_is_not_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ANSWER_KEPT", 0.0)
    answers = iter([True, False])

    async def worse() -> bool:
        return next(answers)

    watched = Health(vital={"postgresql": worse}, helpful={})
    assert [(await watched.report())[0] for _ in range(2)] == [State.FINE, State.RED]


def _client(watched: Health) -> TestClient[web.Request, web.Application]:
    app = web.Application()
    app.add_routes(watched.routes())
    app.on_response_prepare.append(watched.let_go)
    return TestClient(TestServer(app))
