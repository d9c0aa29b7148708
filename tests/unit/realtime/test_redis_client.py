"""What redis-py lets through when it connects, and how long that may take."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from realtime.redis_client import PATIENCE_SECONDS, REDIS_AWAY, open_line, open_redis, redis_errors

ABORTS = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


@pytest.fixture
def resetting() -> Iterator[str]:
    """Of a server that accepts connections and resets them at once."""

    def serve() -> None:
        with suppress(OSError):  # until it is shut down
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTS)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield "redis://{}:{}".format(*listening.getsockname())
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
async def busy_loop() -> AsyncIterator[None]:
    """Each turn lasts so long that a connection is made and lost in one."""

    async def keep_busy() -> None:
        while True:
            time.sleep(0.002)  # noqa: ASYNC251
            await asyncio.sleep(0)

    task = asyncio.create_task(keep_busy())
    yield
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.usefixtures("busy_loop")
async def test_a_connection_that_ends_in_the_turn_in_which_it_is_made_is_away(resetting: str) -> None:
    for _ in range(10):
        async with open_redis(resetting) as redis:
            with pytest.raises(REDIS_AWAY), redis_errors():
                await redis.ping()


async def test_a_server_that_takes_the_connection_and_answers_nothing_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = "redis://:password@{}:{}".format(*silent.getsockname())
        async with open_line(url) as line:
            saying = asyncio.create_task(line.say("SUBSCRIBE", "c"))
            try:
                await asyncio.wait([saying], timeout=15 * PATIENCE_SECONDS)
                assert saying.done()
                assert isinstance(saying.exception(), REDIS_AWAY)
            finally:
                saying.cancel()
                await asyncio.wait([saying])
