"""`python -m bench.orders.readers PORT TOKEN`: staff who look at orders, in a process of their own.

For each line "read RATE SECONDS" on standard input: so many lists of the newest 50 and as many single orders a second,
in turns, whether or not others were answered; it prints how many milliseconds each took from when it was due, as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import time
from typing import Final

import orjson
import uvloop

from bench.poster import HttpLine

_LINES: Final = 16
_PATIENCE: Final = 30.0  # seconds


class _Readers:
    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
        self._rng = random.Random(1)
        self._free: asyncio.LifoQueue[HttpLine] = asyncio.LifoQueue(_LINES)
        self._newest: list[str] = []
        self.lists: list[float] = []
        self.orders: list[float] = []

    async def read(self, rate: float, seconds: float) -> None:
        """Raises ConnectionError for an answer that is an error, or when there is no order."""
        await self._open()
        await self._list(time.perf_counter())
        self.lists.clear()
        began = time.perf_counter()
        async with asyncio.timeout(seconds + _PATIENCE), asyncio.TaskGroup() as requests:
            for number in range(round(2 * rate * seconds)):
                due = began + number / (2 * rate)
                if (wait := due - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                requests.create_task(self._order(due) if number % 2 else self._list(due))
        while not self._free.empty():
            self._free.get_nowait().close()

    async def _open(self) -> None:
        for _ in range(_LINES):
            _, line = await asyncio.get_running_loop().create_connection(HttpLine, "127.0.0.1", self._port)
            self._free.put_nowait(line)

    async def _list(self, due: float) -> None:
        listed = await self._get("/api/v1/orders?limit=50")
        self.lists.append(1000 * (time.perf_counter() - due))
        self._newest = [order["id"] for order in orjson.loads(listed)["items"]]
        if not self._newest:
            raise ConnectionError("there is no order")

    async def _order(self, due: float) -> None:
        await self._get(f"/api/v1/orders/{self._rng.choice(self._newest)}")
        self.orders.append(1000 * (time.perf_counter() - due))

    async def _get(self, path: str) -> bytes:
        line = await self._free.get()
        reply = await line.request(f"GET {path} {self._head}".encode())
        self._free.put_nowait(line)
        return reply


def main(port: str, token: str) -> None:
    os.nice(-5 if os.geteuid() == 0 else 0)  # it shares a core with PostgreSQL: waiting for that is not the server's
    gc.disable()
    for order in sys.stdin:
        _, rate, seconds = order.split()
        readers = _Readers(int(port), token)
        uvloop.run(readers.read(float(rate), float(seconds)))
        print(orjson.dumps({"lists": readers.lists, "orders": readers.orders}).decode(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
