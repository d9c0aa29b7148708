from __future__ import annotations

from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from prometheus_client import CollectorRegistry, Gauge

from server.crew import Berth, MetricsPage
from server.telemetry import PolledMetrics


async def idle() -> tuple[int, float]:
    return 0, 0.0


def page(number: int, folder: Path) -> MetricsPage:
    registry = CollectorRegistry()
    Gauge("berth", "Of the worker.", registry=registry).set(number)
    return MetricsPage(registry, PolledMetrics(registry, idle), Berth(number, 3, folder))


async def test_a_worker_that_answers_with_an_error_is_missing_from_the_page(tmp_path: Path) -> None:
    async def fail(_request: web.Request) -> web.Response:
        return web.Response(status=500, text="500: Internal Server Error")

    first, second = page(1, tmp_path), page(2, tmp_path)
    app = web.Application()
    app.router.add_get("/metrics", fail)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "3.sock")).start()
    try:
        async with second.shared():
            answer = await first.handle(make_mocked_request("GET", "/metrics"))
    finally:
        await runner.cleanup()
    assert isinstance(answer.body, bytes)
    told = [line for line in answer.body.decode().splitlines() if line.startswith("berth")]
    assert told == ['berth{worker="1"} 1.0', 'berth{worker="2"} 2.0']
