"""A worker among the workers of its machine, and the metrics of all of them as one page.

Whoever scrapes the port that they share gets to one of them, never knowing which. So each asks the others, by sockets
in a folder that is theirs alone, and labels what it got: `worker="2"`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from server.telemetry import PolledMetrics

log = structlog.get_logger(__name__)

_PATIENCE: Final = 1.0  # seconds; a worker that does not answer is missing from the page
_PATH: Final = "/metrics"


@dataclass(frozen=True, slots=True)
class Berth:
    """`number`, from 1, among `count` workers; `folder` is where they find each other."""

    number: int
    count: int
    folder: Path

    @property
    def others(self) -> Iterator[int]:
        return (number for number in range(1, self.count + 1) if number != self.number)

    def socket_of(self, number: int) -> Path:
        return self.folder / f"{number}.sock"


class MetricsPage:
    """`GET /metrics`."""

    def __init__(self, registry: CollectorRegistry, polled: PolledMetrics, berth: Berth | None) -> None:
        self._registry = registry
        self._polled = polled
        self._berth = berth

    async def handle(self, _request: web.Request) -> web.Response:
        body = await (self._own() if self._berth is None else self._of_all(self._berth))
        return _page(body)

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Meanwhile the other workers, if there are some, are answered."""
        if self._berth is None:
            yield
            return
        app = web.Application()
        app.add_routes([web.get(_PATH, self._handle_one)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.UnixSite(runner, str(self._berth.socket_of(self._berth.number))).start()
            yield
        finally:
            await runner.cleanup()

    async def _handle_one(self, _request: web.Request) -> web.Response:
        return _page(await self._own())

    async def _own(self) -> bytes:
        await self._polled.refresh()
        return await asyncio.to_thread(generate_latest, self._registry)  # reads /proc, and grows with the routes

    async def _of_all(self, berth: Berth) -> bytes:
        others = list(berth.others)
        pages = await asyncio.gather(self._own(), *(_asked(berth, number) for number in others))
        told = {number: page for number, page in zip([berth.number, *others], pages, strict=True) if page is not None}
        return await asyncio.to_thread(_merged, told)


def _page(body: bytes) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _asked(berth: Berth, number: int) -> bytes | None:
    connector = aiohttp.UnixConnector(str(berth.socket_of(number)))
    timeout = aiohttp.ClientTimeout(total=_PATIENCE)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"http://worker{_PATH}", raise_for_status=True) as response,
        ):
            return await response.read()
    except (aiohttp.ClientError, TimeoutError):
        log.warning("worker_tells_no_metrics", worker_asked=number)
        return None


def _merged(pages: Mapping[int, bytes]) -> bytes:
    families: dict[str, Metric] = {}
    for number, page in sorted(pages.items()):
        for family in text_string_to_metric_families(page.decode()):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            whole.samples += [
                sample._replace(labels={**sample.labels, "worker": str(number)}) for sample in family.samples
            ]
    registry = CollectorRegistry()
    registry.register(_Known(families.values()))
    return generate_latest(registry)


class _Known(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
