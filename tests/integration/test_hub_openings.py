"""Many who join at once, on real streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from handlers.ports.streams import Streams, StreamsAway
from realtime.bus_memory import MemoryExchange
from realtime.flusher import Flusher
from realtime.hub import Hub
from realtime.metrics import RealtimeMetrics
from realtime.protocol.messages import Subscribed
from storage.streams import StreamsOptions, open_streams
from tests.realtime_options import HUB
from tests.services.postgres import Postgres
from tests.subscribers import BareSubscriber

ONE_DEADLINE = 4.5  # seconds; a query is given up after 2.5, so two in a row take 5


@dataclass(eq=False)
class Joiner(BareSubscriber):
    joined: list[Subscribed] = field(default_factory=list)

    async def writable(self, *, is_more: bool) -> None:  # noqa: ARG002 - the protocol's
        return

    async def join(self, hub: Hub, channel: str) -> None:
        await hub.join(self, channel, None, self.joined.append)


@asynccontextmanager
async def running(streams: Streams) -> AsyncIterator[Hub]:
    metrics = RealtimeMetrics(CollectorRegistry())
    hub = Hub(streams, MemoryExchange().bus(), Flusher(metrics), metrics, HUB)
    async with asyncio.TaskGroup() as tasks:
        upkeep = tasks.create_task(hub.run())
        yield hub
        upkeep.cancel()


async def test_five_thousand_channels_that_are_opened_at_once_are_all_opened(postgres_url: str) -> None:
    joiners = [Joiner() for _ in range(5000)]
    async with open_streams(StreamsOptions(postgres_url)) as streams, running(streams) as hub:
        await asyncio.gather(*(joiner.join(hub, f"#{number}") for number, joiner in enumerate(joiners)))

        assert [len(joiner.joined) for joiner in joiners] == [1] * 5000
        assert all(joiner.joined[0].position.epoch for joiner in joiners)


async def test_all_who_join_while_postgresql_is_frozen_learn_it_within_one_deadline(
    own_postgres: Postgres, own_postgres_url: str
) -> None:
    async with open_streams(StreamsOptions(own_postgres_url)) as streams, running(streams) as hub:
        await Joiner().join(hub, "warm")
        await asyncio.to_thread(own_postgres.pause)
        same = [Joiner().join(hub, "orders:feed") for _ in range(6)]
        others = [Joiner().join(hub, f"#{number}") for number in range(1500)]

        async with asyncio.timeout(ONE_DEADLINE):
            outcomes = await asyncio.gather(*same, *others, return_exceptions=True)

        assert {type(outcome) for outcome in outcomes} == {StreamsAway}
        await asyncio.to_thread(own_postgres.resume)
        await Joiner().join(hub, "orders:feed")


async def test_a_joiner_that_goes_away_takes_the_opening_from_nobody(postgres_url: str) -> None:
    impatient, patient = Joiner(), Joiner()
    async with open_streams(StreamsOptions(postgres_url)) as streams, running(streams) as hub, asyncio.timeout(10):
        leaving = asyncio.create_task(impatient.join(hub, "orders:feed"))
        staying = asyncio.create_task(patient.join(hub, "orders:feed"))
        alone = asyncio.create_task(Joiner().join(hub, "#1"))
        await asyncio.sleep(0)
        leaving.cancel()
        alone.cancel()
        await staying
        with pytest.raises(asyncio.CancelledError):
            await leaving

        assert (len(impatient.joined), len(patient.joined)) == (0, 1)
