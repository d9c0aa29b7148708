"""`python -m bench.returners URL TOKEN CHANNEL COUNT`: many clients lose their connections at once, and return.

Says "ready" when all have joined, "cut" after the line "cut" on standard input has cut them all; after the line
"return MISSED" it prints, as JSON, how they came back, and after "idle SECONDS" how often they were pinged.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import uvloop

from bench.wire import Subscriber, host_and_port

AT_ONCE = 100  # connections being opened at the same time, at the start
FIRST_DELAY, LONGEST_DELAY = 0.5, 20.0  # seconds: an SDK's, of which it waits a random part
PATIENCE = 30.0  # seconds after which one that is not back is missing


@dataclass(frozen=True, slots=True)
class Returned:
    """`seconds` until the last was back; `slowest`: of the longest attempt that succeeded, from dialing to the reply.
    `recovered`: those that got all that they missed, in order. `attempts` of all together."""

    back: int
    recovered: int
    attempts: int
    seconds: float
    slowest: float


@dataclass(frozen=True, slots=True)
class Idled:
    """`open`: clients that are still connected; `pings` that they have got together; `longest` that one of them has
    waited for the next, in seconds."""

    open: int
    pings: int
    longest: float


class _Client(Subscriber):
    def __init__(self, host: str, token: str, channel: str, since: Mapping[str, object] | None) -> None:
        super().__init__(host, token, channel)
        self._since = since
        self.pings = 0
        self.pinged_at = time.monotonic()
        self.longest = 0.0
        self.position: dict[str, object] = {}
        self.offsets: list[int] = []

    def subscription(self) -> dict[str, object]:
        asked = super().subscription()
        return asked if self._since is None else {**asked, "recover": True, **self._since}

    def on_ping(self) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self.pinged_at)
        self.pinged_at = now
        self.pings += 1

    def on_subscribed(self, result: Mapping[str, Any]) -> None:
        self.position = {"offset": result.get("offset", 0), "epoch": result["epoch"]}
        self.offsets = [publication["offset"] for publication in result.get("publications", ())]
        if self._since is not None and not result.get("recovered"):
            self.offsets = []
        super().on_subscribed(result)


class _Crowd:
    def __init__(self, url: str, token: str, channel: str) -> None:
        self._host, self._port = host_and_port(url)
        self._token = token
        self._channel = channel
        self._clients: list[_Client] = []
        self._attempts = 0
        self._slowest = 0.0

    async def come(self, count: int) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one() -> _Client:
            async with gate:
                return await self._dial(None)

        self._clients = list(await asyncio.gather(*(one() for _ in range(count))))

    async def idle(self, seconds: float) -> Idled:
        for client in self._clients:
            client.pings, client.longest, client.pinged_at = 0, 0.0, time.monotonic()
        await asyncio.sleep(seconds)
        now = time.monotonic()
        waited = [max(client.longest, now - client.pinged_at) for client in self._clients]
        still_there = sum(not client.lost.done() for client in self._clients)
        return Idled(still_there, sum(client.pings for client in self._clients), max(waited))

    async def cut(self) -> None:
        for client in self._clients:
            assert client.transport is not None
            client.transport.abort()
        await asyncio.gather(*(client.lost for client in self._clients))

    async def come_back(self, missed: int) -> Returned:
        began, self._attempts, self._slowest = time.monotonic(), 0, 0.0
        results = await asyncio.gather(*(self._return(client) for client in self._clients))
        seconds = time.monotonic() - began
        back = [new for new in results if new is not None]
        recovered = sum(
            new is not None and _is_gapless(old, new) and len(new.offsets) >= missed
            for old, new in zip(self._clients, results, strict=True)
        )
        self._clients = back
        return Returned(len(back), recovered, self._attempts, seconds, self._slowest)

    async def _return(self, client: _Client) -> _Client | None:
        deadline, delay = time.monotonic() + PATIENCE, FIRST_DELAY
        while time.monotonic() < deadline:
            await asyncio.sleep(random.uniform(0, delay))
            self._attempts += 1
            began = time.monotonic()
            try:
                new = await self._dial(client.position)
            except (OSError, TimeoutError):
                delay = min(LONGEST_DELAY, delay * 2)
            else:
                self._slowest = max(self._slowest, time.monotonic() - began)
                return new
        return None

    async def _dial(self, since: Mapping[str, object] | None) -> _Client:
        """Raises OSError, and TimeoutError as an SDK would: it waits 5 seconds for a reply."""
        loop = asyncio.get_running_loop()
        client: _Client | None = None
        try:
            async with asyncio.timeout(5.0):
                _, client = await loop.create_connection(
                    lambda: _Client(f"{self._host}:{self._port}", self._token, self._channel, since),
                    self._host,
                    self._port,
                )
                await client.joined
        except TimeoutError:
            if client is not None and client.transport is not None:
                client.transport.abort()
            raise
        return client


def _is_gapless(old: _Client, new: _Client) -> bool:
    first = int(str(old.position["offset"])) + 1
    return new.offsets == [*range(first, first + len(new.offsets))]


async def _main(url: str, token: str, channel: str, count: str) -> None:
    crowd = _Crowd(url, token, channel)
    await crowd.come(int(count))
    gc.freeze()
    print("ready", flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        if line[0] == "cut":
            await crowd.cut()
            print("cut", flush=True)
        elif line[0] == "idle":
            print(orjson.dumps(await crowd.idle(float(line[1]))).decode(), flush=True)
        else:
            print(orjson.dumps(await crowd.come_back(int(line[1]))).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
