"""What orders come to: counted with each change, added up later, told to dashboards."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import orjson
import pytest

from handlers.accounts.model import Account
from handlers.actor import Actor, Role
from handlers.events import Cause
from handlers.orders import service as orders
from handlers.orders.model import REQUESTED, TRANSITIONS, Action, Status
from handlers.orders.schemas import OrderBody
from handlers.ports.domain import Quantity
from handlers.products.model import Product
from handlers.rules import Rules
from handlers.stats import service
from handlers.stats.adding_up import AddingUp
from handlers.stats.model import Count, Span, Window
from handlers.work import Work
from storage.postgres import Postgres, open_postgres
from storage.retention import Retention, RetentionOptions
from tests.database_options import postgres_options
from tests.deployment import ACCOUNT, Deploy, of_account
from tests.doubles import a_product
from tests.integration.websocket_node import Client
from tests.rest import PostgresRest, serving

NOW = datetime(2026, 1, 31, 23, 59, 30, tzinfo=UTC)
AT_ONCE = timedelta(0)
STAFF = Actor(uuid4(), Role.STAFF)


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Postgres]:
    async with open_postgres(postgres_options(postgres_url)) as opened:
        yield opened


class Shop:
    """Two products in two currencies, one customer, and whatever becomes of their orders."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres
        self.customer = Account(uuid4(), "ada@example.com", "Ada", Role.CUSTOMER, "$")
        self.staff = Account(STAFF.account_id, "sam@example.com", "Sam", Role.STAFF, "$")
        self.products = [Product(uuid4(), f"SKU-{money}", money, 100, money, 10_000) for money in ("EUR", "USD")]
        self.orders: list[OrderBody] = []

    async def open(self) -> None:
        async with self.postgres.transaction() as unit:
            await unit.accounts.add(self.customer)
            await unit.accounts.add(self.staff)
            for product in self.products:
                await unit.products.add(product)

    async def place(self, at: datetime = NOW, *, product: int = 0, quantity: int = 1) -> OrderBody:
        actor = Actor(self.customer.id, Role.CUSTOMER)
        items = [Quantity(self.products[product].id, quantity)]
        async with self.postgres.transaction() as unit:
            order = await orders.place(unit, actor, items, Cause(at), Rules())
        self.orders.append(order)
        return order

    async def move_on(self, rng: random.Random) -> None:
        """One of the orders, in one of the ways that there are."""
        order = rng.choice(self.orders)
        ways = [action for action in REQUESTED if order.status in TRANSITIONS[action].sources]
        if ways:
            async with self.postgres.transaction() as unit:
                moved = await orders.advance(unit, STAFF, order.id, rng.choice(ways), Cause(order.updated_at))
            self.orders[self.orders.index(order)] = moved

    async def add_up(self, now: datetime = NOW) -> bool:
        async with self.postgres.transaction() as unit:
            return await service.add_up(unit, Cause(now), AT_ONCE)

    def counted(self, span: Span) -> list[Count]:
        """What there should be of it."""
        numbers: Counter[tuple[datetime, str, Any]] = Counter()
        totals: Counter[tuple[datetime, str, Any]] = Counter()
        refunded: Counter[tuple[datetime, str, Any]] = Counter()
        for order in self.orders:
            begin = datetime(1970, 1, 1, tzinfo=UTC) if span is Span.EVER else span.begin(order.created_at)
            numbers[begin, order.currency, order.status] += 1
            totals[begin, order.currency, order.status] += order.total
            refunded[begin, order.currency, order.status] += order.refunded
        return [Count(span, *key, numbers[key], totals[key], refunded[key]) for key in sorted(numbers)]

    async def shown(self, span: Span) -> Sequence[Count]:
        """What there is of it."""
        long_ago = datetime(2000, 1, 1, tzinfo=UTC)
        async with self.postgres.read() as unit:
            if span is Span.EVER:
                return [count for count in await unit.stats.recent(Window.shown(NOW)) if count.span is span]
            return await unit.stats.series(span, long_ago, datetime(2100, 1, 1, tzinfo=UTC))


@pytest.fixture
async def shop(postgres: Postgres) -> Shop:
    shop = Shop(postgres)
    await shop.open()
    return shop


async def test_at_every_moment_the_counts_are_those_of_the_orders_there_are(shop: Shop) -> None:
    rng = random.Random(11)
    await shop.place()
    for _ in range(120):
        match rng.randrange(5):
            case 0 | 1:
                at = NOW + timedelta(seconds=rng.randrange(90), hours=rng.randrange(2))
                await shop.place(at, product=rng.randrange(2), quantity=rng.randrange(1, 4))
            case 2 | 3:
                await shop.move_on(rng)
            case _:
                await shop.add_up()
        span = rng.choice(list(Span))
        assert list(await shop.shown(span)) == shop.counted(span)
    while await shop.add_up():
        pass
    for span in Span:
        assert list(await shop.shown(span)) == shop.counted(span)


async def test_a_draft_is_counted_where_it_was_placed_whatever_becomes_of_it(shop: Shop) -> None:
    customer, items = Actor(shop.customer.id, Role.CUSTOMER), [Quantity(shop.products[0].id, 2)]
    began = Cause(NOW - timedelta(hours=2))
    async with shop.postgres.transaction() as unit:
        draft = await orders.place(unit, customer, items, began, Rules(), as_draft=True)
        await orders.place_draft(unit, customer, draft.id, Cause(NOW), Rules())
    placed = Count(Span.HOUR, Span.HOUR.begin(NOW), "EUR", Status.PLACED, 1, draft.total, 0)

    assert await shop.shown(Span.HOUR) == [placed]
    async with shop.postgres.transaction() as unit:
        await orders.advance(unit, customer, draft.id, Action.CANCEL, Cause(NOW))
    assert await shop.shown(Span.HOUR) == [replace(placed, status=Status.CANCELLED)]


async def test_several_nodes_that_add_up_while_orders_are_placed_count_each_once(
    shop: Shop, postgres: Postgres
) -> None:
    placing = True

    async def node() -> int:
        count = 0
        async with Work(postgres) as work:
            while placing or await AddingUp(work).add_up(AT_ONCE):
                count += await AddingUp(work).add_up(AT_ONCE)
                await asyncio.sleep(0)
        return count

    nodes = [asyncio.create_task(node()) for _ in range(3)]
    await asyncio.gather(*(shop.place(quantity=1 + n % 3) for n in range(100)))
    placing = False
    done = sum(await asyncio.gather(*nodes))

    assert list(await shop.shown(Span.EVER)) == shop.counted(Span.EVER)
    async with postgres.pool.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM order_deltas") == 0
        rows = await connection.fetch("SELECT body FROM outbox WHERE type = 'orders.counted' ORDER BY id")
    told = [orjson.loads(row["body"])["data"] for row in rows]
    assert [stats["version"] for stats in told] == list(range(1, len(told) + 1))
    assert done <= len(told)
    assert [stats["totals"][0]["orders"] for stats in told] == sorted(stats["totals"][0]["orders"] for stats in told)
    assert told[-1]["totals"][0]["orders"] == 100


async def test_what_fails_half_way_has_added_up_nothing(shop: Shop, postgres: Postgres) -> None:
    await shop.place()

    async def add_up_and_fail() -> None:
        async with postgres.transaction() as unit:
            assert await service.add_up(unit, Cause(NOW), AT_ONCE)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await add_up_and_fail()

    assert list(await shop.shown(Span.EVER)) == shop.counted(Span.EVER)
    assert await shop.add_up()
    assert list(await shop.shown(Span.EVER)) == shop.counted(Span.EVER)


async def test_it_is_added_up_once_in_an_interval_and_by_one(shop: Shop, postgres: Postgres) -> None:
    await shop.place()
    async with postgres.transaction() as unit:
        assert await unit.stats.claim(AT_ONCE) == 1
        async with postgres.transaction() as another:
            assert await another.stats.claim(AT_ONCE) is None
    async with postgres.transaction() as unit:
        assert await unit.stats.claim(timedelta(hours=1)) is None
        assert await unit.stats.claim(AT_ONCE) == 2


async def test_it_is_added_up_although_the_clock_was_an_hour_ahead_when_that_was_done_last(
    shop: Shop, postgres: Postgres
) -> None:
    await shop.place()
    async with postgres.pool.connection() as connection:  # of a primary that is gone
        await connection.execute("UPDATE order_stats_head SET added_up_at = clock_timestamp() + '1 hour'::interval")

    async with postgres.transaction() as unit:
        assert await unit.stats.claim(timedelta(seconds=1)) == 1


async def test_a_series_is_from_its_beginning_to_before_its_end_added_up_or_not(shop: Shop) -> None:
    noon = NOW.replace(hour=12, minute=0, second=0)
    hour = timedelta(hours=1)
    for number in range(4):
        await shop.place(noon + number * hour, product=1)
        await shop.place(noon + number * hour, product=0)

    async def told() -> list[tuple[datetime, str]]:
        async with shop.postgres.read() as unit:
            found = await unit.stats.series(Span.HOUR, noon + hour, noon + 3 * hour)
        return [(count.begins_at, count.currency) for count in found]

    waiting = await told()
    await shop.add_up()

    expected = [(noon + number * hour, money) for number in (1, 2) for money in ("EUR", "USD")]
    assert waiting == await told() == expected


async def test_what_was_lately_includes_the_first_span_of_each_kind_and_nothing_before(shop: Shop) -> None:
    window = Window.shown(NOW)
    for begin in (window.minutes, window.hours, window.days):
        await shop.place(begin)
        await shop.place(begin - timedelta(microseconds=1))
    await shop.add_up()

    async with shop.postgres.read() as unit:
        found = [count for count in await unit.stats.recent(window) if count.span is not Span.EVER]

    expected = [
        count
        for span in (Span.MINUTE, Span.HOUR, Span.DAY)
        for count in shop.counted(span)
        if count.begins_at >= window.since(span)
    ]
    assert sorted(found, key=lambda count: (count.span, count.begins_at)) == sorted(
        expected, key=lambda count: (count.span, count.begins_at)
    )
    assert {(count.span, count.begins_at) for count in found} >= {
        (Span.MINUTE, window.minutes),
        (Span.HOUR, window.hours),
        (Span.DAY, window.days),
    }


async def test_of_what_is_no_longer_kept_nothing_comes_back(shop: Shop, postgres_url: str) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=400)
    await shop.place(long_ago)
    await shop.add_up(long_ago)
    assert await shop.shown(Span.MINUTE)
    assert await shop.shown(Span.HOUR)

    deleted = await Retention(RetentionOptions(postgres_url, seen=1000)).clean()
    await shop.move_on(random.Random(1))
    await shop.add_up(datetime.now(UTC))

    assert (deleted["minutes"], deleted["hours"]) == (1, 1)
    assert (await shop.shown(Span.MINUTE), await shop.shown(Span.HOUR)) == ([], [])
    assert list(await shop.shown(Span.DAY)) == shop.counted(Span.DAY)


@pytest.fixture
async def rest(postgres_url: str) -> AsyncIterator[PostgresRest]:
    async with serving(postgres_url) as opened:
        yield opened


async def test_staff_read_what_orders_come_to_at_once(rest: PostgresRest) -> None:
    customer, staff = await rest.an_account(), await rest.an_account(Role.STAFF)
    mug = await rest.a_product(price=250)
    placed = [await rest.place(customer, mug, quantity) for quantity in (1, 2)]
    await rest.call("POST", f"{placed[0].headers['Location']}/pay", staff)

    found = await rest.call("GET", "/api/v1/stats/orders", staff)

    by_status = [{"status": "paid", "orders": 1, "total": 250}, {"status": "placed", "orders": 1, "total": 500}]
    assert found.body["totals"] == [{"currency": "EUR", "orders": 2, "revenue": 250, "by_status": by_status}]
    assert [(day["orders"], day["revenue"]) for day in found.body["days"]] == [(2, 250)]
    assert sum(minute["orders"] for minute in found.body["minutes"]) == 2
    assert found.body["stream"]["channel"] == "stats:orders"
    assert found.headers["X-Stream-Offset"] == str(found.body["stream"]["offset"])


async def test_a_series_tells_each_span_by_status(rest: PostgresRest) -> None:
    customer, staff = await rest.an_account(), await rest.an_account(Role.STAFF)
    placed = await rest.place(customer, await rest.a_product(price=250))
    day = placed.body["created_at"][:10]

    found = await rest.call("GET", "/api/v1/stats/orders/series?per=day", staff)
    begun = {"since": f"{day}T00:00:00Z", "before": f"{day}T00:00:00.000001Z"}
    of_day = await rest.call("GET", f"/api/v1/stats/orders/series?per=day&{urlencode(begun)}", staff)
    before = await rest.call("GET", f"/api/v1/stats/orders/series?per=hour&before={day}T00:00:00Z", staff)

    assert found.body["items"] == [
        {
            "begins_at": f"{day}T00:00:00.000000Z",
            "currency": "EUR",
            "orders": 1,
            "revenue": 0,
            "by_status": [{"status": "placed", "orders": 1, "total": 250}],
        }
    ]
    assert of_day.body == found.body
    assert before.body == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("query", "faults"),
    [
        ("", [("/per", "missing")]),
        ("per=ever", [("/per", "wrong_type")]),
        ("per=week", [("/per", "wrong_type")]),
        ("per=day&since=2026-01-01", [("/since", "wrong_type")]),
        ("per=minute&since=2026-01-01T00:00:00Z&before=2026-01-02T00:00:00Z", [("/since", "out_of_range")]),
        ("per=day&since=1970-01-01T00:00:00Z&before=9999-12-31T23:59:59Z", [("/since", "out_of_range")]),
    ],
)
async def test_each_fault_of_what_is_asked_for_is_told(
    rest: PostgresRest, query: str, faults: list[tuple[str, str]]
) -> None:
    staff = await rest.an_account(Role.STAFF)
    refused = await rest.call("GET", f"/api/v1/stats/orders/series?{query}", staff)
    assert (refused.status, refused.faults) == (400, faults)


@pytest.mark.parametrize("query", ["before=1970-01-01T00:00:00Z", "since=9999-12-31T23:59:59Z"])
async def test_a_time_without_orders_is_empty(rest: PostgresRest, query: str) -> None:
    found = await rest.call("GET", f"/api/v1/stats/orders/series?per=day&{query}", await rest.an_account(Role.STAFF))
    assert (found.status, found.body["items"]) == (200, [])


@pytest.mark.parametrize("path", ["", "/series?per=day"])
async def test_it_is_for_staff(rest: PostgresRest, path: str) -> None:
    refused = await rest.call("GET", f"/api/v1/stats/orders{path}", await rest.an_account())
    assert (refused.status, refused.code) == (403, "forbidden")


async def test_a_dashboard_has_the_latest_and_hears_what_changes(deploy: Deploy, postgres_url: str) -> None:
    mug, staff = a_product(price=250), of_account()
    async with open_postgres(postgres_options(postgres_url)) as database, database.transaction() as unit:
        await unit.accounts.add(ACCOUNT)
        await unit.products.add(mug)
    body = {"items": [{"product_id": str(mug.id), "quantity": 2}]}
    headers = {"Authorization": f"Bearer {staff}"}
    wanted = {"channel": "stats:orders", "recover": True, "offset": 0, "epoch": ""}
    async with deploy("") as node:
        async with node.client("stats:orders", token=staff) as early:
            async with node.http.post(f"{node.url}/api/v1/orders", json=body, headers=headers) as reply:
                assert reply.status == 201
            heard = await counted(early)
        assert [(total["orders"], total["revenue"]) for total in heard["totals"]] == [(1, 0)]
        async with node.client(token=staff) as late:
            answer = (await late.ask({"id": 2, "subscribe": wanted}))["subscribe"]
        assert answer["recovered"]
        assert [publication["data"]["data"] for publication in answer["publications"]] == [heard]
        async with node.http.get(f"{node.url}/api/v1/stats/orders", headers=headers) as reply:
            loaded = await reply.json()
        assert {key: loaded[key] for key in ("version", "totals", "days")} == {
            key: heard[key] for key in ("version", "totals", "days")
        }
        assert loaded["stream"]["offset"] == answer["offset"]


async def counted(client: Client) -> Any:
    while True:
        push = (await client.hear())["push"]
        if push["channel"] == "stats:orders":
            return push["pub"]["data"]["data"]
