"""The guarantees of `realtime.bus.Bus`, for every variant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from realtime.bus import Bus, Receiver
from realtime.bus_memory import MemoryExchange
from realtime.bus_redis import RedisBusOptions, open_redis_bus
from realtime.metrics import RealtimeMetrics

NewBus = Callable[[], AbstractAsyncContextManager[Bus]]


@pytest.fixture(params=["memory", "redis"])
def new_bus(request: pytest.FixtureRequest, unique_name: str) -> NewBus:
    """Each call opens the bus of one more node of the same deployment."""
    if request.param == "memory":
        exchange = MemoryExchange()

        @asynccontextmanager
        async def memory() -> AsyncIterator[Bus]:
            yield exchange.bus()

        return memory
    options = RedisBusOptions(request.getfixturevalue("redis_url"), unique_name)
    return lambda: open_redis_bus(options, RealtimeMetrics(CollectorRegistry()))


@asynccontextmanager
async def listening(bus: Bus, receiver: Receiver) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(bus.run(receiver))
    try:
        async with asyncio.timeout(5):
            while not bus.is_connected:
                await asyncio.wait([task], timeout=0.01)
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_every_node_hears_a_message_the_publisher_included(new_bus: NewBus) -> None:
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    async with (
        new_bus() as one,
        new_bus() as two,
        listening(one, lambda message: heard.put_nowait(("one", message))),
        listening(two, lambda message: heard.put_nowait(("two", message))),
    ):
        await one.publish(b"news")
        assert {await heard.get(), await heard.get()} == {("one", b"news"), ("two", b"news")}


async def test_messages_of_one_publisher_arrive_in_order_and_once(new_bus: NewBus) -> None:
    """Those that are published together may arrive as one."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    sent = [b"%d." % number for number in range(300)]
    async with new_bus() as bus, listening(bus, heard.put_nowait):
        assert all(await asyncio.gather(*(bus.publish(message) for message in sent)))
        assert await bus.publish(b"end")
        arrived = b""
        while not arrived.endswith(b"end"):
            arrived += await heard.get()
        assert arrived == b"".join([*sent, b"end"])


async def test_a_publisher_that_is_cancelled_takes_no_message_with_it(new_bus: NewBus) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    async with new_bus() as bus, listening(bus, heard.put_nowait):
        publishers = [asyncio.create_task(bus.publish(b"%d" % number)) for number in range(3)]
        await asyncio.sleep(0)
        publishers[0].cancel()
        assert await publishers[1]
        assert await publishers[2]
        arrived = b""
        while len(arrived) < 3:
            arrived += await heard.get()
        assert arrived == b"012"


async def test_a_message_may_hold_any_bytes(new_bus: NewBus) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    message = bytes(range(256)) * 4096
    async with new_bus() as bus, listening(bus, heard.put_nowait):
        await bus.publish(message)
        assert await heard.get() == message


async def test_it_is_connected_only_while_it_runs(new_bus: NewBus) -> None:
    async with new_bus() as bus:
        assert not bus.is_connected
        async with listening(bus, lambda _: None):
            assert bus.is_connected
        assert not bus.is_connected


async def test_what_is_published_with_nobody_listening_is_lost_without_a_word(new_bus: NewBus) -> None:
    async with new_bus() as bus:
        await bus.publish(b"nobody hears this")


async def test_a_receiver_that_raises_ends_the_run(new_bus: NewBus) -> None:
    def fail(_: bytes) -> None:
        raise LookupError("a bug")

    async with new_bus() as bus, listening(bus, fail) as task:
        await bus.publish(b"news")
        await asyncio.wait([task])
        assert isinstance(task.exception(), LookupError)
