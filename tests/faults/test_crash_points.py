"""Money and pieces are conserved whatever step of paying the server dies in, by kill -9: one order, one charge and one
refund for each that was asked for, and who repeats a request with its key gets the first answer."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
import asyncpg
import orjson
import pytest

from tests.services.dying import CRASH_POINTS
from tests.services.orderwire import Orderwire, reachable_folder
from tests.torture.load import Shop
from tests.torture.stage import SECRET, STOCK, furnish

STORIES = 20  # that begin with each start of the server; 240 in all
LONGEST_PHASE = 20.0  # seconds
PATIENCE = 60.0
PLANS = (
    "pay",
    "pay late",
    "decline",
    "lose",
    "refund",
    "refund all",
    "cancel",
    "cancel unpaid",
    "twice",
    "ask",
    "race",
)

RARE = {"orders are written together, and not committed"}
"""Of these there is one for sure."""

DISCOUNT = "A-TENTH"
HELD = ["placed", "payment_failed", "paid", "packed"]
"""Of these statuses, and of no other that comes up here, an order has its pieces, and its discount."""


@dataclass(frozen=True)
class Asked:
    """A request with a key, and its first answer."""

    path: str
    token: str
    key: str
    body: bytes
    status: int
    answer: bytes


@dataclass
class Crowd:
    """People who repeat what they ask for until they are answered."""

    session: aiohttp.ClientSession
    shop: Shop
    rng: random.Random
    answered: list[Asked] = field(default_factory=list)
    refused: set[tuple[str, str]] = field(default_factory=set)
    """By the plan and the code."""

    async def story(self, number: int) -> None:
        customer = self.rng.choice(self.shop.customers)
        product = self.rng.choice(self.shop.product_ids)
        wanted: dict[str, object] = {"items": [{"product_id": product, "quantity": self.rng.randint(1, 3)}]}
        wanted |= {"draft": number % 3 == 0, "discount_code": DISCOUNT if number % 2 else None}
        placed = await self.ask("orders", customer.token, f"place/{number}", wanted)
        assert placed is not None
        order = orjson.loads(placed)
        if wanted["draft"]:
            await self.ask(f"orders/{order['id']}/place", customer.token, f"place draft/{number}", None)

        async def pay(method: str, key: str = "pay") -> None:
            path = f"orders/{order['id']}/payment"
            await self.ask(path, customer.token, f"{key}/{number}", {"method": method})

        async def pay_surely() -> None:
            # An attempt that the server died in may have come to nothing: then it is the customer's turn again.
            for attempt in itertools.count():
                await pay("pm_card_visa", f"pay/{attempt}")
                if await self.settled(order["id"], customer.token) == "succeeded":
                    return

        async def staff(path: str, body: object = None, key: str = "") -> None:
            await self.ask(f"orders/{order['id']}/{path}", self.shop.staff_token, f"{key or path}/{number}", body)

        match PLANS[number % len(PLANS)]:
            case "pay":
                await pay("pm_card_visa")
            case "pay late":
                await pay("pm_usBankAccount_success")
            case "decline":
                await pay("pm_card_visa_chargeDeclined", "first")
                await self.settled(order["id"], customer.token)
                await pay("pm_card_visa", "second")
            case "lose":
                await pay("pm_sandbox_lostReply")
            case "refund":
                await pay_surely()
                await asyncio.gather(*(staff("refunds", {"amount": 40}, f"refund/{part}") for part in range(2)))
            case "refund all":
                await pay_surely()
                await staff("refunds", {}, "all")
            case "cancel":
                await pay("pm_card_visa")
                await staff("cancel")
            case "cancel unpaid":
                await pay("pm_card_visa_chargeDeclined")
                await staff("cancel")
            case "twice":
                await asyncio.gather(*(pay("pm_card_visa", f"pay/{way}") for way in range(3)))
            case "ask":
                await pay("pm_card_authenticationRequired")
                await staff("cancel")
            case "race":
                await asyncio.gather(pay("pm_card_visa"), staff("cancel"))

    async def ask(self, path: str, token: str, key: str, body: object) -> bytes | None:
        """The answer, or None where it was refused."""
        sent = b"" if body is None else orjson.dumps(body)
        while (answer := await self.attempt(path, token, key, sent)) is None:  # noqa: ASYNC110 it is another process
            await asyncio.sleep(self.rng.uniform(0.05, 0.2))
        status, read, _ = answer
        if status >= 300:
            assert status == 409, (path, status, read)
            if path.endswith("/place"):  # an attempt without a reply had done it
                return None
            number = int(key.rpartition("/")[2])
            self.refused.add((PLANS[number % len(PLANS)], orjson.loads(read)["code"]))
            return None
        if not path.endswith(("/cancel", "/place")):  # whose repetition is told by the order's status
            self.answered.append(Asked(path, token, key, sent, status, read))
        return read

    async def settled(self, order_id: str, token: str) -> str:
        """How its payment stands in the end: who paid while the server died may be told that it is not known yet."""
        url, headers = f"{self.shop.urls[0]}/api/v1/orders/{order_id}/payment", {"Authorization": f"Bearer {token}"}
        while True:
            with suppress(aiohttp.ClientError, OSError):
                async with self.session.get(url, headers=headers) as response:
                    status: str = (await response.json())["status"] if response.status == 200 else "processing"
                    if status != "processing":
                        return status
            await asyncio.sleep(self.rng.uniform(0.05, 0.2))

    async def attempt(self, path: str, token: str, key: str, body: bytes) -> tuple[int, bytes, bool] | None:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
        if body:
            headers["Content-Type"] = "application/json"
        try:
            async with self.session.post(f"{self.shop.urls[0]}/api/v1/{path}", data=body, headers=headers) as response:
                read = await response.read()
        except (aiohttp.ClientError, OSError):
            return None
        is_first = "Idempotency-Replayed" not in response.headers
        again = response.status == 503 or b"idempotency_key_in_flight" in read
        return None if again else (response.status, read, is_first)


@pytest.fixture
def node(postgres_url: str, redis_url: str, unique_name: str) -> Iterator[Orderwire]:
    environment = {
        "ORDERWIRE_DATABASE__URL": postgres_url,
        "ORDERWIRE_REDIS__URL": redis_url,
        "ORDERWIRE_REDIS__BUS_CHANNEL": unique_name,
        "ORDERWIRE_PAYMENTS__PROVIDER": "sandbox",
        "ORDERWIRE_AUTH__TOKEN_SECRET": SECRET,
    }
    with reachable_folder() as folder:
        node = Orderwire(folder, environment=environment, program="tests.services.dying")
        try:
            yield node
        finally:
            node.stop()


@pytest.fixture
async def crowd(postgres_url: str, node: Orderwire) -> AsyncIterator[Crowd]:
    shop = await furnish(postgres_url, [node], seed=3)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("""
        INSERT INTO discounts (id, code, rate, starts_at, version, created_at, updated_at)
        VALUES (gen_random_uuid(), 'A-TENTH', 1000, now(), 1, now(), now())
    """)
    await connection.close()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Crowd(session, shop, random.Random(5))


@contextmanager
def dying_at(node: Orderwire, point: str, count: int) -> Iterator[None]:
    node.spawn(CRASH_AT=f"{point}:{count}")
    yield
    assert node.stop() == -signal.SIGKILL, node.log()[-3000:]


@pytest.mark.timeout(150)
async def test_money_and_pieces_are_conserved_at_every_crash_point(
    node: Orderwire, crowd: Crowd, postgres_url: str
) -> None:
    numbers = iter(range(STORIES * len(CRASH_POINTS)))
    async with asyncio.TaskGroup() as stories:
        for point in CRASH_POINTS:
            with dying_at(node, point, 1 if point in RARE else crowd.rng.randint(1, 3)):
                for _ in range(STORIES):
                    stories.create_task(crowd.story(next(numbers)))
                async with asyncio.timeout(LONGEST_PHASE):
                    while node.is_running:  # noqa: ASYNC110 it is another process
                        await asyncio.sleep(0.02)
        node.spawn()
    connection = await asyncpg.connect(postgres_url)
    try:
        await _settled(connection)
        await _judge(connection, crowd)
    finally:
        await connection.close()
    assert crowd.refused <= {
        *((plan, "illegal_transition") for plan in PLANS if "cancel" in plan),  # an attempt without a reply had done it
        *((plan, "illegal_transition") for plan in ("ask", "race")),
        *((plan, "not_payable") for plan in ("twice", "race")),
    }


async def _settled(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Nothing is under way any more. Nobody waits for the pauses between two times that a provider is asked."""
    under_way = """
        SELECT (SELECT count(*) FROM refunds WHERE status = 'pending')
            + (SELECT count(*) FROM payments WHERE status = 'processing')
            + (SELECT count(*) FROM payments AS p JOIN orders AS o ON o.id = p.order_id
               WHERE o.status = 'cancelled' AND p.status NOT IN ('succeeded', 'cancelled'))
            + (SELECT count(*) FROM outbox)
    """
    async with asyncio.timeout(PATIENCE):
        while await connection.fetchval(under_way):
            await connection.execute("UPDATE payments SET ask_at = now() WHERE ask_at > now() + '1 second'")
            await asyncio.sleep(0.2)


async def _judge(connection: asyncpg.Connection[asyncpg.Record], crowd: Crowd) -> None:
    placed = [each for each in crowd.answered if each.path == "orders"]
    assert await connection.fetchval("SELECT count(*) FROM orders") == len(placed) == STORIES * len(CRASH_POINTS)

    # The bank statement is what the orders say: all of a paid one less what was given back, nothing of another.
    for row in await connection.fetch("""
        SELECT o.id, o.status, o.total, o.refunded, coalesce(sum(m.amount), 0)::bigint AS balance,
            count(*) FILTER (WHERE m.amount > 0) AS charges
        FROM orders AS o
        LEFT JOIN payments AS p ON p.order_id = o.id
        LEFT JOIN sandbox_movements AS m ON m.reference = p.reference
        GROUP BY o.id
    """):
        is_paid = row["status"] in {"paid", "refunded"}
        assert row["balance"] == (row["total"] - row["refunded"] if is_paid else 0), row
        assert row["charges"] <= 1, row

    # One refund for each that was asked for, each given once and none without having been asked for.
    asked = [orjson.loads(each.answer) for each in crowd.answered if each.path.endswith("/refunds")]
    requested = await connection.fetch("SELECT id::text, amount FROM refunds WHERE reason = 'requested'")
    assert sorted(tuple(row) for row in requested) == sorted((each["id"], each["amount"]) for each in asked)
    given = await connection.fetch("SELECT id, -amount FROM sandbox_movements WHERE amount < 0")
    refunds = await connection.fetch("SELECT id::text, amount FROM refunds WHERE status = 'succeeded'")
    assert sorted(map(tuple, given)) == sorted(map(tuple, refunds))

    for row in await connection.fetch(
        """
        SELECT p.id, p.stock, coalesce(sum(l.quantity) FILTER (WHERE o.status = ANY($1)), 0) AS held
        FROM products AS p
        LEFT JOIN order_lines AS l ON l.product_id = p.id
        LEFT JOIN orders AS o ON o.id = l.order_id
        GROUP BY p.id
        """,
        HELD,
    ):
        assert row["stock"] + row["held"] == STOCK, row

    used = "SELECT count(*) FROM orders WHERE discount_code = $1 AND status = ANY($2)"
    uses = await connection.fetchval("SELECT uses FROM discounts WHERE code = $1", DISCOUNT)
    assert uses == await connection.fetchval(used, DISCOUNT, HELD) > 0

    for each in crowd.answered:
        again = await crowd.attempt(each.path, each.token, each.key, each.body)
        assert again == (each.status, each.answer, False), each
