"""What clients leave behind goes at once: no cycle is left to the garbage collector, which seldom comes.

A full collection stalls the event loop for longer than a client should notice, so the server does without.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from os import dup
from socket import SHUT_RDWR, socket
from uuid import uuid4

import orjson
import pytest

from tests.deployment import HISTORY, OPEN, Deploy, Deployment, namespace, of_account, signed
from tests.integration.http_stream import Listener

TIMES = 10
PLAIN = {"Content-Type": "application/json"}
SERVERS = ("aiohttp.web", "handlers.", "realtime.", "server.", "storage.")
SETTINGS = "[http_stream]\nenabled = true\n[sse]\nenabled = true\n" + namespace(
    "ns", *OPEN, *HISTORY, "presence = true"
)


async def leaves(node: Deployment) -> None:
    async with node.client("ns:a") as client:
        await client.ask({"id": 9, "publish": {"channel": "ns:a", "data": 1}})


async def is_cut(node: Deployment) -> None:
    async with node.client("ns:a") as client:
        line = client.socket.get_extra_info("socket")
        shutdown(line.fileno())


def shutdown(number: int) -> None:
    with socket(fileno=dup(number)) as line:
        line.shutdown(SHUT_RDWR)


async def is_refused(node: Deployment) -> None:
    assert (await node.connect("no token"))["closed"] == 3500


async def breaks_the_protocol(node: Deployment) -> None:
    async with node.client() as client:
        await client.socket.send_str("no command")
        await client.socket.receive()


async def is_disconnected(node: Deployment) -> None:
    async with node.client() as client:
        await node.api("disconnect", user="42")
        await client.socket.receive()


async def streams(node: Deployment) -> None:
    hello = orjson.dumps({"id": 1, "connect": {"token": signed(sub="42")}})
    async with node.http.post(f"{node.url}/connection/http_stream", data=hello, headers=PLAIN) as response:
        assert "connect" in await Listener(response).hear()


async def listens_to_events(node: Deployment) -> None:
    hello = orjson.dumps({"id": 1, "connect": {"token": signed(sub="42")}}).decode()
    async with node.http.get(f"{node.url}/connection/sse", params={"cf_connect": hello}) as response:
        assert "connect" in await Listener(response).hear()


async def orders(node: Deployment) -> None:
    headers = {"Authorization": f"Bearer {of_account()}", "Idempotency-Key": str(uuid4())}
    items = [{"product_id": str(uuid4()), "quantity": 1}]
    async with node.http.post(f"{node.url}/api/v1/orders", json={"items": items}, headers=headers) as reply:
        assert reply.status == 422


async def order_together(node: Deployment) -> None:
    async with asyncio.TaskGroup() as crowd:
        for _ in range(8):
            crowd.create_task(orders(node))


async def sends_nonsense(node: Deployment) -> None:
    headers = {"Authorization": f"Bearer {of_account()}"}
    async with node.http.post(f"{node.url}/api/v1/orders", data=b"{", headers=headers) as reply:
        assert reply.status in {400, 415}


async def reads(node: Deployment) -> None:
    assert await node.status("/api/v1/orders", Authorization=f"Bearer {of_account()}") == 200


async def asks_for_what_is_not_there(node: Deployment) -> None:
    assert await node.status("/api/v1/orders/7", Authorization=f"Bearer {of_account()}") == 404


async def is_nobody(node: Deployment) -> None:
    assert await node.status("/api/v1/orders") == 401


async def publishes(node: Deployment) -> None:
    await node.publish("ns:a", 1)
    assert "error" in await node.api("publish", channel="unknown:a", data=1)


@pytest.mark.parametrize(
    "does",
    [
        leaves,
        streams,
        listens_to_events,
        orders,
        order_together,
        sends_nonsense,
        is_cut,
        is_refused,
        breaks_the_protocol,
        is_disconnected,
        reads,
        asks_for_what_is_not_there,
        is_nobody,
        publishes,
    ],
    ids=lambda does: does.__name__,
)
async def test_a_client_leaves_no_cycle(deploy: Deploy, does: Callable[[Deployment], Awaitable[None]]) -> None:
    async with deploy(SETTINGS) as node:
        for _ in range(TIMES):
            await does(node)
        with unreachable() as found:
            await asyncio.sleep(0)  # the tasks of the last one begin to end
            before = len(asyncio.all_tasks())
            for _ in range(TIMES):
                await does(node)
            async with asyncio.timeout(5):
                while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - the server's, which nobody else may await
                    await asyncio.sleep(0.01)
        assert not found


@contextmanager
def unreachable() -> Iterator[Counter[str]]:
    """By type, once the block is over: how many of the server's objects only the garbage collector could free. (The
    clients are in this process too.)"""
    found: Counter[str] = Counter()
    while gc.collect():
        pass
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        types = (f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
        found.update(name for name in types if name.startswith(SERVERS))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
