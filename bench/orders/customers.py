"""`python -m bench.orders.customers PORT TOKEN ...`: customers who place orders, in a process of their own.

For each line on standard input it prints what was placed, as JSON. "place SECONDS": 64 customers, each with the next
order when the one before was answered. "offer RATE SECONDS": so many orders a second, whether or not others were
answered.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import uvloop

from bench.measure import Spread, spread
from bench.orders.shop import PRODUCTS, product_id
from bench.poster import HttpLine

CUSTOMERS: Final = 64
LINES: Final = 3
MOST: Final = 3  # pieces of a product
_PATIENCE: Final = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Placed:
    """What was answered: orders, and pieces in them; in so many seconds, and after how many milliseconds each. Others
    were `refused`."""

    orders: int
    pieces: int
    seconds: float
    time: Spread
    refused: int = 0

    @classmethod
    def parse(cls, line: str) -> Placed:
        found = orjson.loads(line)
        return cls(**{**found, "time": Spread(**found["time"])})


class Customers:
    """One run on connections of its own."""

    def __init__(self, port: int, tokens: Sequence[str]) -> None:
        self._port = port
        self._tokens = tokens
        self._run = os.urandom(6).hex()
        self._rng = random.Random(self._run)
        self._free: asyncio.LifoQueue[HttpLine] = asyncio.LifoQueue(CUSTOMERS)
        self._asked = self._pieces = self._refused = 0
        self._times: list[float] = []

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(CUSTOMERS):
            _, line = await loop.create_connection(HttpLine, "127.0.0.1", self._port)
            self._free.put_nowait(line)

    def close(self) -> None:
        while not self._free.empty():
            self._free.get_nowait().close()

    async def place(self, seconds: float) -> Placed:
        began = time.perf_counter()

        async def customer() -> None:
            while (now := time.perf_counter()) < began + seconds:
                await self._order(now)

        async with asyncio.timeout(seconds + _PATIENCE), asyncio.TaskGroup() as customers:
            for _ in range(CUSTOMERS):
                customers.create_task(customer())
        return self._placed(began)

    async def offer(self, rate: float, seconds: float) -> Placed:
        began = time.perf_counter()
        async with asyncio.timeout(seconds + _PATIENCE), asyncio.TaskGroup() as orders:
            for number in range(round(rate * seconds)):
                due = began + number / rate
                if (wait := due - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                orders.create_task(self._order(due))
        return self._placed(began)

    async def _order(self, due: float) -> None:
        message, pieces = self.message()
        line = await self._free.get()
        try:
            await line.request(message)
        except ConnectionError as refused:
            self._refused += 1
            if self._refused == 1:
                print(refused, file=sys.stderr)
        else:
            self._pieces += pieces
            self._times.append(1000 * (time.perf_counter() - due))
        finally:
            self._free.put_nowait(line)

    def message(self) -> tuple[bytes, int]:
        """The next request, and the pieces that it orders."""
        self._asked += 1
        quantities = self._rng.choices(range(1, MOST + 1), k=LINES)
        numbers = self._rng.sample(range(1, PRODUCTS + 1), LINES)
        items = ",".join(
            f'{{"product_id":"{product_id(number)}","quantity":{quantity}}}'
            for number, quantity in zip(numbers, quantities, strict=True)
        )
        body = f'{{"items":[{items}]}}'
        head = (
            f"POST /api/v1/orders HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Authorization: Bearer {self._rng.choice(self._tokens)}\r\nIdempotency-Key: {self._run}-{self._asked}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return f"{head}{body}".encode(), sum(quantities)

    def _placed(self, began: float) -> Placed:
        elapsed = time.perf_counter() - began
        return Placed(len(self._times), self._pieces, elapsed, spread(self._times), self._refused)


async def _obey(order: Sequence[str], customers: Customers) -> Placed:
    await customers.open()
    try:
        if order[0] == "place":
            return await customers.place(float(order[1]))
        return await customers.offer(float(order[1]), float(order[2]))
    finally:
        customers.close()


def main(port: str, *tokens: str) -> None:
    for order in sys.stdin:
        placed = uvloop.run(_obey(order.split(), Customers(int(port), tokens)))
        print(orjson.dumps(placed).decode(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
