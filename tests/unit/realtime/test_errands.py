"""Steps that are taken to the end, whoever asked for them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from handlers.ports.streams import StreamsAway
from realtime.bus import Order, decode
from realtime.bus_memory import MemoryExchange
from realtime.errands import Errands
from realtime.flusher import Flusher
from realtime.hub import Hub
from realtime.metrics import RealtimeMetrics
from tests.realtime_options import HUB


class Steps:
    """The first is under way until `may_end`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.may_end, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._error = error

    async def __call__(self) -> int:
        self.begun.set()
        await self.may_end.wait()
        self.ended.set()
        if self._error is not None:
            raise self._error
        return 3

    async def clear(self, channel: str) -> None:
        assert channel == "a"
        await self()


async def test_who_waits_is_told_what_came_of_it() -> None:
    errands, steps, failing = Errands(), Steps(), Steps(LookupError())
    steps.may_end.set()
    failing.may_end.set()
    async with errands.open():
        with pytest.raises(LookupError):
            await errands.run(failing)
        assert await errands.run(steps) == 3


@pytest.mark.parametrize(("error", "told"), [(None, []), (LookupError(), ["LookupError"])])
async def test_who_goes_away_ends_nothing(error: Exception | None, told: list[str]) -> None:
    errands, steps = Errands(), Steps(error)
    with capture_logs() as logged:
        async with errands.open():
            asking = asyncio.create_task(errands.run(steps))
            await steps.begun.wait()
            asking.cancel()
            await asyncio.wait([asking])
            steps.may_end.set()
            await asyncio.wait_for(steps.ended.wait(), 5)
    assert [each["error"] for each in logged] == told


async def test_who_waits_while_the_node_stops_is_told_that_nobody_knows() -> None:
    errands, steps = Errands(), Steps()

    async def node() -> None:
        async with errands.open():
            await steps.begun.wait()
            raise asyncio.CancelledError

    running = asyncio.create_task(node())
    await asyncio.sleep(0)
    with pytest.raises(StreamsAway):
        await asyncio.wait_for(errands.run(steps), 5)
    await asyncio.wait([running])
    with pytest.raises(StreamsAway):
        await errands.run(steps)


async def test_a_history_is_removed_on_all_nodes_although_who_wants_it_goes_away() -> None:
    streams, exchange, heard = Steps(), MemoryExchange(), asyncio.Queue[bytes](10)
    bus, metrics = exchange.bus(), RealtimeMetrics(CollectorRegistry())
    hub = Hub(cast("Any", streams), bus, Flusher(metrics), metrics, HUB)
    running = [asyncio.create_task(hub.run()), asyncio.create_task(bus.run(heard.put_nowait))]
    await asyncio.sleep(0)

    removing = asyncio.create_task(hub.remove_history("a"))
    await streams.begun.wait()
    removing.cancel()
    await asyncio.wait([removing])
    streams.may_end.set()

    [order] = decode(await asyncio.wait_for(heard.get(), 5))
    assert isinstance(order, Order)
    assert order.body == b"a"
    for task in running:
        task.cancel()
    await asyncio.wait(running)
