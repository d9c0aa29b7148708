"""The load of a torture run: orders placed and moved on in an open loop, each request repeated until answered."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import orjson

from tests.torture.records import Change, Reply

ATTEMPT_TIMEOUT = aiohttp.ClientTimeout(total=5.0, connect=2.0)
PATIENCE = 45.0  # seconds that requests are repeated after the end of the load
OUTSTANDING = 150  # orders at most that wait for an answer; who comes then goes away, as people do
PAUSE = (0.05, 0.2)  # seconds before the second attempt; the upper end doubles up to the longest
LONGEST_PAUSE = 2.0
THINKING = 1.5  # mean seconds until somebody moves an order on

# What becomes of an order: the actions in turn. Some are cancelled and paid at the same time by two people.
FATES: Sequence[tuple[float, tuple[str, ...]]] = (
    (0.45, ()),
    (0.20, ("pay",)),
    (0.20, ("pay", "pack", "ship")),
    (0.10, ("cancel",)),
    (0.05, ("pay", "cancel")),
)


@dataclass(frozen=True, slots=True)
class Customer:
    id: str
    token: str


@dataclass(frozen=True, slots=True)
class Shop:
    """Who places what where: `urls` are the nodes' base addresses."""

    urls: Sequence[str]
    customers: Sequence[Customer]
    staff_token: str
    product_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Request:
    key: str
    action: str
    path: str
    token: str
    body: bytes


class Load:
    """Run `run`; `stop` ends the placing, and `run` returns when the last request has its answer.

    `in_flight` maps the key of each request now waiting for a reply to the node it waits for. `name` begins the keys:
    another load on the same shop needs another.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        shop: Shop,
        rng: random.Random,
        rate: float,
        on_placed: Callable[[str, str], None],
        *,
        name: str = "request",
    ) -> None:
        self.replies: list[Reply] = []
        self.unanswered: list[str] = []
        self.unexpected: Counter[str] = Counter()
        self.in_flight: dict[str, str] = {}
        self.turned_away = 0
        self.replayed = 0
        self._session = session
        self._shop = shop
        self._rng = rng
        self._rate = rate
        self._on_placed = on_placed
        self._name = name
        self._stopped = asyncio.Event()
        self._patience = float("inf")
        self._asking = 0
        self._sent = 0

    def stop(self) -> None:
        self._patience = asyncio.get_running_loop().time() + PATIENCE
        self._stopped.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        async with asyncio.TaskGroup() as orders:
            while not self._stopped.is_set():
                if self._asking < OUTSTANDING:
                    orders.create_task(self._order(), name="order")
                else:
                    self.turned_away += 1
                # Open loop: the next one is due whether or not earlier ones were answered.
                due += self._rng.expovariate(self._rate)
                await self._idle(due - loop.time())

    async def _idle(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stopped.wait()
        except TimeoutError:
            return

    async def _order(self) -> None:
        """The life of one order."""
        customer = self._rng.choice(self._shop.customers)
        weights, fates = zip(*((weight, actions) for weight, actions in FATES), strict=True)
        actions: tuple[str, ...] = self._rng.choices(fates, weights)[0]
        at_once = self._rng.random() < 0.2
        placed = await self._ask(self._placing(customer))
        if placed is None:
            return
        order_id = placed.change.id
        self._on_placed(order_id, customer.id)
        moves = [self._move(action, order_id, customer) for action in actions]
        if at_once:
            await asyncio.gather(*(self._ask(move) for move in moves))
            return
        for move in moves:
            await self._idle(self._rng.expovariate(1 / THINKING))
            if self._stopped.is_set():
                return
            await self._ask(move)

    def _placing(self, customer: Customer) -> _Request:
        products = self._rng.sample(self._shop.product_ids, self._rng.randint(1, 3))
        items = [{"product_id": product, "quantity": self._rng.randint(1, 3)} for product in products]
        return _Request(self._key(), "place", "/api/v1/orders", customer.token, orjson.dumps({"items": items}))

    def _move(self, action: str, order_id: str, customer: Customer) -> _Request:
        token = customer.token if action == "cancel" and self._rng.random() < 0.5 else self._shop.staff_token
        return _Request(self._key(), action, f"/api/v1/orders/{order_id}/{action}", token, b"")

    def _key(self) -> str:
        self._sent += 1
        return f"{self._name}-{self._sent}"

    async def _ask(self, request: _Request) -> Reply | None:
        """Repeat `request` until it has a definite answer; None when it was refused."""
        self._asking += 1
        try:
            return await self._repeat(request)
        finally:
            self._asking -= 1

    async def _repeat(self, request: _Request) -> Reply | None:
        shortest, longest = PAUSE
        while asyncio.get_running_loop().time() < self._patience:
            answer = await self._attempt(request)
            if answer is None:
                # Without growing pauses all who wait for an outage to end would be the next one.
                await asyncio.sleep(self._rng.uniform(shortest, longest))
                longest = min(LONGEST_PAUSE, 2 * longest)
                continue
            status, body = answer
            if status < 300:
                order = orjson.loads(body)
                reply = Reply(request.key, request.action, Change(order["id"], order["version"]))
                self.replies.append(reply)
                return reply
            # A move that two people made, or that an attempt without a reply had made already, is refused.
            if status != 409:
                self.unexpected[f"{request.action}: {status} {_code(body)}"] += 1
            return None
        self.unanswered.append(request.key)
        return None

    async def _attempt(self, request: _Request) -> tuple[int, bytes] | None:
        """Status and body, or None when nobody knows what became of it, or it has to be repeated."""
        url = self._rng.choice(self._shop.urls)
        headers = {"Authorization": f"Bearer {request.token}", "Idempotency-Key": request.key}
        if request.body:
            headers["Content-Type"] = "application/json"
        self.in_flight[request.key] = url
        try:
            async with self._session.post(
                url + request.path, data=request.body, headers=headers, timeout=ATTEMPT_TIMEOUT
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        finally:
            del self.in_flight[request.key]
        self.replayed += "Idempotency-Replayed" in response.headers
        again = response.status == 503 or _code(body) == "idempotency_key_in_flight"
        return None if again else (response.status, body)


def _code(body: bytes) -> str:
    try:
        problem: Mapping[str, object] = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(problem.get("code", ""))
