"""The guarantees of `realtime.bus.Bus`, for every variant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from realtime.bus import Bus, Order, decode
from realtime.bus_memory import MemoryExchange
from realtime.bus_redis import RedisBusOptions, open_redis_bus
from realtime.metrics import RealtimeMetrics

NewBus = Callable[[], AbstractAsyncContextManager[Bus]]


@pytest.fixture(params=["memory", "redis", "redis cluster"])
def new_bus(request: pytest.FixtureRequest, unique_name: str) -> NewBus:
    """Each call opens the bus of one more node of the same deployment."""
    if request.param == "memory":
        exchange = MemoryExchange()

        @asynccontextmanager
        async def memory() -> AsyncIterator[Bus]:
            yield exchange.bus()

        return memory
    if request.param == "redis cluster":
        options = RedisBusOptions(request.getfixturevalue("own_redis_cluster").url, unique_name, is_cluster=True)
    else:
        options = RedisBusOptions(request.getfixturevalue("redis_url"), unique_name)
    return lambda: open_redis_bus(options, RealtimeMetrics(CollectorRegistry()))


Hear = Callable[[bytes], object]


def said(*bodies: bytes, kind: str = "test") -> list[Order]:
    return [Order(kind, body) for body in bodies]


@asynccontextmanager
async def listening(bus: Bus, hear: Hear) -> AsyncIterator[asyncio.Task[None]]:
    def receive(message: bytes) -> None:
        for item in decode(message):
            assert isinstance(item, Order)
            hear(item.body)

    task = asyncio.create_task(bus.run(receive))
    try:
        async with asyncio.timeout(5):
            while not bus.is_connected:
                await asyncio.wait([task], timeout=0.01)
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_every_node_hears_what_is_said_the_publisher_included(new_bus: NewBus) -> None:
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    async with (
        new_bus() as one,
        new_bus() as two,
        listening(one, lambda body: heard.put_nowait(("one", body))),
        listening(two, lambda body: heard.put_nowait(("two", body))),
    ):
        await one.publish(said(b"news"))
        assert {await heard.get(), await heard.get()} == {("one", b"news"), ("two", b"news")}


async def test_what_one_publisher_says_of_one_kind_arrives_in_order_and_once(new_bus: NewBus) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    sent = [b"%d" % number for number in range(300)]
    async with new_bus() as bus, listening(bus, heard.put_nowait):
        assert all(await asyncio.gather(*(bus.publish(said(body)) for body in sent)))
        assert await bus.publish(said(b"more", b"end"))
        assert [await heard.get() for _ in range(302)] == [*sent, b"more", b"end"]


async def test_one_call_may_speak_of_many_channels(new_bus: NewBus) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    kinds = [f"kind {number}" for number in range(100)]
    async with new_bus() as bus, listening(bus, heard.put_nowait):
        assert await bus.publish([item for kind in kinds for item in said(kind.encode(), kind=kind)])
        assert {await heard.get() for _ in kinds} == {kind.encode() for kind in kinds}


async def test_a_publisher_that_is_cancelled_takes_nothing_of_the_others_with_it(new_bus: NewBus) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    async with new_bus() as bus, listening(bus, heard.put_nowait):
        publishers = [asyncio.create_task(bus.publish(said(b"%d" % number))) for number in range(3)]
        await asyncio.sleep(0)
        publishers[0].cancel()
        assert await publishers[1]
        assert await publishers[2]
        assert [await heard.get() for _ in range(3)] == [b"0", b"1", b"2"]


async def test_it_may_be_any_bytes(new_bus: NewBus) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    body = bytes(range(256)) * 4096
    async with new_bus() as bus, listening(bus, heard.put_nowait):
        await bus.publish(said(body))
        assert await heard.get() == body


async def test_it_is_connected_only_while_it_runs(new_bus: NewBus) -> None:
    async with new_bus() as bus:
        assert not bus.is_connected
        async with listening(bus, lambda _: None):
            assert bus.is_connected
        assert not bus.is_connected


async def test_what_is_said_with_nobody_listening_is_lost_without_a_word(new_bus: NewBus) -> None:
    async with new_bus() as bus:
        await bus.publish(said(b"nobody hears this"))


async def test_a_receiver_that_raises_ends_the_run(new_bus: NewBus) -> None:
    def fail(_: bytes) -> None:
        raise LookupError("a bug")

    async with new_bus() as bus, listening(bus, fail) as task:
        await bus.publish(said(b"news"))
        await asyncio.wait([task])
        assert isinstance(task.exception(), LookupError)
