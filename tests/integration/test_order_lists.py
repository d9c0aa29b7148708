"""Lists of orders: filtered, searched, sorted and paged, on PostgreSQL and over REST."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import orjson
import pytest

from handlers.accounts.model import Account
from handlers.actor import Actor, Role
from handlers.orders.lists import Mark, OrderFilter, OrderSort
from handlers.orders.model import Action, Change, Line, Order, Status
from handlers.ports.domain import UnitOfWork
from handlers.products.model import Product
from storage import orders as storage_orders
from storage.known_orders import KnownOrders
from storage.pool import connect
from storage.postgres import Postgres, open_postgres
from tests.database_options import postgres_options
from tests.doubles import listed
from tests.many_orders import REGULAR, make_orders
from tests.rest import PostgresRest, serving

BEGIN = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Postgres]:
    async with open_postgres(postgres_options(postgres_url)) as opened:
        yield opened


@dataclass(frozen=True)
class Shop:
    """Sixty orders of three customers, all that a filter can tell apart many times."""

    customers: list[UUID]
    orders: list[Order]


@pytest.fixture
async def shop(postgres: Postgres) -> Shop:
    rng = random.Random(5)
    customers = [Account(uuid4(), f"{name}@example.com", name, Role.CUSTOMER, "$") for name in ("ada", "bob", "cyd")]
    products = [Product(uuid4(), f"SKU-{n}", f"Product {n}", 100 * n, "EUR", 1000) for n in (1, 2, 3)]
    async with postgres.transaction() as unit:
        for customer in customers:
            await unit.accounts.add(customer)
        for product in products:
            await unit.products.add(product)
        orders = [await _placed(unit, rng.choice(customers), rng.choice(products), rng) for _ in range(60)]
    return Shop([customer.id for customer in customers], orders)


async def _placed(unit: UnitOfWork, customer: Account, product: Product, rng: random.Random) -> Order:
    """Many at the same moment, and with the same total."""
    created = BEGIN + timedelta(minutes=rng.randrange(20))
    order = Order(
        id=uuid4(),
        number=0,
        customer_id=customer.id,
        status=rng.choice(list(Status)),
        version=1,
        currency="EUR",
        lines=(Line(product.id, product.sku, product.name, product.price, rng.randrange(1, 4)),),
        created_at=created,
        updated_at=created + timedelta(minutes=rng.randrange(20)),
    )
    return await unit.orders.add(order, Change.of(order, Action.PLACE, Actor(customer.id, Role.CUSTOMER)))


def _filters(shop: Shop) -> Iterator[OrderFilter]:
    """Each kind of filter by itself, then many together."""
    rng = random.Random(7)
    choices: Mapping[str, Any] = {
        "customer_id": shop.customers,
        "statuses": [frozenset({Status.PLACED}), frozenset({Status.PAID, Status.EXPIRED})],
        "created_from": [BEGIN + timedelta(minutes=5)],
        "created_before": [BEGIN + timedelta(minutes=15)],
        "total_from": [200, 201],
        "total_to": [300, 299],
    }
    yield OrderFilter()
    for name, values in choices.items():
        yield from (OrderFilter(**{name: value}) for value in values)
    for _ in range(30):
        yield OrderFilter(**{name: rng.choice(values) for name, values in choices.items() if rng.random() < 0.5})


@pytest.mark.parametrize("sort", OrderSort)
async def test_page_by_page_a_list_is_what_was_asked_for_in_its_order(
    postgres: Postgres, shop: Shop, sort: OrderSort
) -> None:
    for which in _filters(shop):
        async with postgres.read() as unit:
            found: list[Order] = []
            after = which.begin(sort)
            while page := (await unit.orders.page_with("-", which, sort, after=after, limit=7)).state:
                found += page
                after = Mark.of(page[-1], sort)
        assert found == list(listed(shop.orders, which, sort)), which


@pytest.fixture
async def library(postgres: Postgres) -> dict[int, Order]:
    """By number."""
    ada = Account(uuid4(), "ada.lovelace@example.com", "Ada Lovelace", Role.CUSTOMER, "$")
    bob = Account(uuid4(), "bob@example.org", "Bob Mug", Role.CUSTOMER, "$")
    mug = Product(uuid4(), "COP-MUG-01", "Copper mug", 250, "EUR", 1000)
    pot = Product(uuid4(), "GLA-TEA-02", "Glass teapot", 900, "EUR", 1000)
    async with postgres.transaction() as unit:
        for account in (ada, bob):
            await unit.accounts.add(account)
        for product in (mug, pot):
            await unit.products.add(product)
        rng = random.Random(1)
        placed = [await _placed(unit, who, what, rng) for who, what in ((ada, mug), (ada, pot), (bob, pot))]
    return {order.number: order for order in placed}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("lovelace", [1, 2]),
        ("LOVELACE mug", [1]),
        ("mug", [1, 3]),
        ("ada.lovelace@example.com", [1, 2]),
        ("COP-MUG-01", [1]),
        ('"glass teapot"', [2, 3]),
        ('"teapot glass"', []),
        ("teapot -bob", [2]),
        ("bob or copper", [1, 3]),
        ("#2", [2]),
        ("3", [3]),
        ("99", []),
        ("teap", []),
        ("?!", []),
        ("' & | ! <-> :* (", []),
    ],
)
async def test_words_are_looked_for_in_customers_and_products(
    postgres: Postgres, library: dict[int, Order], text: str, numbers: list[int]
) -> None:
    sort = OrderSort.CHEAPEST
    async with postgres.read() as unit:
        found = (await unit.orders.page_with("-", OrderFilter(text=text), sort, after=sort.begin, limit=10)).state
    assert sorted(order.number for order in found) == numbers
    assert [library[order.number] for order in found] == list(found)


@pytest.fixture
async def rest(postgres_url: str) -> AsyncIterator[PostgresRest]:
    async with serving(postgres_url) as opened:
        yield opened


async def test_a_list_is_asked_for_behind_a_question_mark(rest: PostgresRest) -> None:
    customer, staff = await rest.an_account(), await rest.an_account(Role.STAFF)
    cheap, dear = await rest.a_product(price=100), await rest.a_product(price=900)
    placed = [await rest.place(customer, product) for product in (cheap, dear, cheap, dear)]
    await rest.call("POST", f"{placed[3].headers['Location']}/pay", staff)
    moment = placed[1].body["created_at"]

    async def numbers(**query: str) -> list[int]:
        found = await rest.call("GET", f"/api/v1/orders?{urlencode(query)}", staff)
        assert found.status == 200, found.body
        return [order["number"] for order in found.body["items"]]

    assert await numbers(status="paid") == [4]
    assert await numbers(status="paid,placed", sort="created") == [1, 2, 3, 4]
    assert await numbers(sort="-total") == [4, 2, 3, 1]
    assert await numbers(total_from="900", sort="total") == [2, 4]
    assert await numbers(total_to="899", q=str(cheap.sku)) == [3, 1]
    assert await numbers(created_from=moment) == [4, 3, 2]
    assert await numbers(created_before=moment.replace("Z", "+00:00")) == [1]
    assert await numbers(customer_id=str(staff.id)) == []
    assert await numbers(customer_id=str(customer.id), q="#2") == [2]
    assert await numbers(sort="-updated", limit="1") == [4]


async def test_a_page_goes_on_where_the_one_before_ended_in_each_order(rest: PostgresRest) -> None:
    customer = await rest.an_account()
    product = await rest.a_product()
    for quantity in (3, 1, 2, 2, 1):
        await rest.place(customer, product, quantity)
    for sort, numbers in (("-total", [1, 4, 3, 5, 2]), ("total", [2, 5, 3, 4, 1]), ("created", [1, 2, 3, 4, 5])):
        found: list[int] = []
        following: str | None = ""
        while following is not None:
            cursor = {"cursor": following} if following else {}
            page = await rest.call("GET", f"/api/v1/orders?{urlencode({'sort': sort, 'limit': 2, **cursor})}", customer)
            found += [order["number"] for order in page.body["items"]]
            following = page.body["next"]
        assert found == numbers


async def test_of_each_order_only_the_fields_are_sent_that_were_asked_for(rest: PostgresRest) -> None:
    customer = await rest.an_account()
    placed = await rest.place(customer, await rest.a_product())

    some = await rest.call("GET", "/api/v1/orders?fields=total,status", customer)
    none_more = await rest.call("GET", "/api/v1/orders?fields=id", customer)

    whole = {key: placed.body[key] for key in ("id", "version", "status", "total")}
    assert some.body["items"] == [whole]
    assert none_more.body["items"] == [{"id": placed.body["id"], "version": 1}]
    assert some.body["stream"]["channel"] == f"#{customer.id}"


async def test_customers_find_nobody_elses_orders_whatever_they_look_for(rest: PostgresRest) -> None:
    customer, other = await rest.an_account(), await rest.an_account()
    product = await rest.a_product()
    await rest.place(customer, product)
    await rest.place(other, product)

    for query, numbers in (
        ({"customer_id": str(other.id)}, []),
        ({"customer_id": str(customer.id)}, [1]),
        ({"q": product.sku}, [1]),
        ({"q": "2"}, []),
    ):
        found = await rest.call("GET", f"/api/v1/orders?{urlencode(query)}", customer)
        assert [order["number"] for order in found.body["items"]] == numbers


@pytest.mark.parametrize(
    ("query", "faults"),
    [
        ("status=placed,sold", [("/status/1", "wrong_type")]),
        ("status=", [("/status/0", "wrong_type")]),
        ("sort=name", [("/sort", "wrong_type")]),
        ("fields=id,secret", [("/fields/1", "wrong_type")]),
        ("created_from=yesterday", [("/created_from", "wrong_type")]),
        ("created_from=2026-02-30T00:00:00Z", [("/created_from", "wrong_type")]),
        ("created_before=0001-01-01T00:00:00%2B14:00", [("/created_before", "wrong_type")]),
        ("created_before=2026-01-01T00:00:00", [("/created_before", "wrong_type")]),
        ("total_from=-1&total_to=1e3", [("/total_from", "wrong_type"), ("/total_to", "wrong_type")]),
        ("total_from=99999999999999999999", [("/total_from", "out_of_range")]),
        ("q=", [("/q", "wrong_length")]),
        ("q=a%00b", [("/q", "nul_character")]),
        ("customer_id=7", [("/customer_id", "wrong_type")]),
        ("color=red", [("/color", "unknown_field")]),
        ("status=paid&status=placed", [("/status", "repeated")]),
        ("cursor=LWNyZWF0ZWQ6MTox&sort=total", [("/cursor", "bad_cursor")]),
    ],
)
async def test_each_fault_of_what_is_asked_for_is_told(
    rest: PostgresRest, query: str, faults: list[tuple[str, str]]
) -> None:
    refused = await rest.call("GET", f"/api/v1/orders?{query}", await rest.an_account())
    assert (refused.status, refused.faults) == (400, faults)


MANY = 20_000
FEW = 5_500  # rows: some milliseconds. To find fifty of one order in a hundred takes as many, of however many there are
ASKED = [
    OrderFilter(),
    OrderFilter(customer_id=REGULAR),
    OrderFilter(statuses=frozenset({Status.EXPIRED})),
    OrderFilter(statuses=frozenset({Status.PLACED, Status.PAID})),
    OrderFilter(statuses=frozenset({Status.DELIVERED})),
    OrderFilter(text="lovelace"),
    OrderFilter(text="copper"),
    OrderFilter(text="family3"),
    OrderFilter(text="SKU-7"),
    OrderFilter(text="12345"),
    OrderFilter(customer_id=REGULAR, statuses=frozenset({Status.DELIVERED}), text="copper"),
    OrderFilter(total_from=20_000),
]


async def test_no_list_reads_much_more_than_it_shows(postgres: Postgres, postgres_url: str) -> None:
    """Whatever is asked for and in whichever order; and a page far down costs no more than the first."""
    async with connect(postgres_url, name="test") as connection:
        await make_orders(connection, MANY)
        middle = await connection.fetchval("SELECT created_at FROM orders WHERE number = $1", MANY // 2)
    costly: list[tuple[int, OrderFilter, OrderSort]] = []
    for which in ASKED:
        for sort in OrderSort:
            rows = await _rows_read(postgres, which, sort, which.begin(sort))
            if rows > FEW:
                costly.append((rows, which, sort))
    assert costly == [], "\n".join(map(str, costly))
    newest = OrderSort.NEWEST
    far_down = await _rows_read(postgres, OrderFilter(), newest, Mark(middle, MANY // 2))
    assert far_down <= await _rows_read(postgres, OrderFilter(), newest, newest.begin)


async def _rows_read(postgres: Postgres, which: OrderFilter, sort: OrderSort, after: Mark) -> int:
    """Rows of tables that all steps of the plan have looked at, also those that they did not want."""
    async with postgres.readers.connection() as connection:
        explaining = _Explaining(connection)
        orders = storage_orders.PostgresOrders(explaining, KnownOrders())  # type: ignore[arg-type]
        await orders.page_with("orders:feed", which, sort, after=after, limit=50)
    assert explaining.plan is not None
    return _looked_at(explaining.plan)


class _Explaining:
    """A connection that tells how it would answer, and does not."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.plan: Mapping[str, Any] | None = None

    def is_in_transaction(self) -> bool:
        return False

    async def fetch(self, query: str, *arguments: object) -> list[dict[str, None]]:
        told = await self._connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *arguments)
        self.plan = orjson.loads(told)[0]["Plan"]
        return [{"id": None, "epoch": None}]


def _looked_at(step: Mapping[str, Any]) -> int:
    if step["Node Type"] == "Bitmap Index Scan":
        return 0  # it marks places, and looks at none
    own = sum(step.get(kind, 0) for kind in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"))
    return int(own * step["Actual Loops"]) + sum(_looked_at(part) for part in step.get("Plans", ()))


@pytest.mark.parametrize("text", ["-" * 40, "mug " + "- " * 90, "-!" * 90, '-""' * 60, "- -" * 60, "-_" * 90])
async def test_a_line_of_dashes_is_looked_for_as_everything_else(rest: PostgresRest, text: str) -> None:
    staff = await rest.an_account(Role.STAFF)
    for path in ("orders", "exports/orders"):
        async with rest.client.get(f"/api/v1/{path}?{urlencode({'q': text})}", headers=rest.bearer(staff)) as found:
            assert found.status == 200


async def test_what_must_not_be_there_is_so_behind_whatever(rest: PostgresRest) -> None:
    customer = await rest.an_account()
    await rest.place(customer, await rest.a_product())
    for text in ("-thing", "- -thing", "-, -thing", "a- -thing", "---thing", '"a" - -thing'):
        path = f"/api/v1/orders?{urlencode({'q': text})}"
        assert (await rest.call("GET", path, customer)).body["items"] == [], text
    assert len((await rest.call("GET", "/api/v1/orders?q=a--thing", customer)).body["items"]) == 1


async def test_an_order_is_found_by_all_of_its_address(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product()
    address = {"name": "Ada", "line1": "1 Main St", "city": "Springfield", "region": "Illinois", "country": "US"}
    body = {"items": [{"product_id": str(product.id), "quantity": 1}], "address": address}
    assert (await rest.call("POST", "/api/v1/orders", customer, json=body)).status == 201
    for word in ("ada", "main", "springfield", "illinois"):
        assert len((await rest.call("GET", f"/api/v1/orders?q={word}", customer)).body["items"]) == 1, word


async def test_what_a_slash_joins_is_found_word_by_word(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product()
    address = {"name": "AC/DC", "line1": "Flat 3/14 High Street", "city": "Springfield", "country": "US"}
    body = {"items": [{"product_id": str(product.id), "quantity": 1}], "address": address}
    assert (await rest.call("POST", "/api/v1/orders", customer, json=body)).status == 201
    for words in ("AC/DC", "ac", "dc", "dc 14", "3/14", '"flat 3"', '"14 high street"', '"3/14 high"'):
        path = f"/api/v1/orders?{urlencode({'q': words})}"
        assert len((await rest.call("GET", path, customer)).body["items"]) == 1, words
