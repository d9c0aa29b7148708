"""Products over REST, on PostgreSQL: staff add and change them, everybody sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import orjson
import pytest

from handlers.actor import Role
from handlers.products import service
from handlers.products.telling_stock import TellingStock
from handlers.work import Work
from storage.products import SQL
from tests.doubles import CAUSE, a_product
from tests.rest import PostgresRest, serving

PRODUCTS = "/api/v1/products"
TOLD = ["product.changed", "stock.changed"]
CUP = {"sku": "CUP-01", "name": "Cup", "price": 900, "currency": "EUR"}


@pytest.fixture
async def rest(postgres_url: str) -> AsyncIterator[PostgresRest]:
    async with serving(postgres_url) as opened:
        yield opened


async def test_a_product_is_added_sold_repriced_and_taken_off_sale(rest: PostgresRest) -> None:
    staff, customer = await rest.an_account(Role.STAFF), await rest.an_account()

    made = await rest.call("POST", PRODUCTS, staff, json={**CUP, "stock": 10, "tax_rate": 1900})
    path, items = made.headers["Location"], [{"product_id": made.body["id"], "quantity": 2}]
    placed = await rest.call("POST", "/api/v1/orders", customer, json={"items": items})
    dearer = await rest.call("PATCH", path, staff, json={"price": 1000, "name": None}, headers={"If-Match": '"2"'})
    later = await rest.call("POST", "/api/v1/orders", customer, json={"items": items})
    gone = await rest.call("PATCH", path, staff, json={"for_sale": False})
    refused = [
        await rest.call("POST", "/api/v1/orders", customer, json={"items": [{**items[0], "quantity": quantity}]})
        for quantity in (2, 7)  # of 6 that are left
    ]

    assert (made.status, made.headers["ETag"], made.body["version"]) == (201, '"1"', 1)
    assert made.body == {**CUP, "id": made.body["id"], "stock": 10, "tax_rate": 1900, "for_sale": True, "version": 1}
    assert (placed.body["total"], later.body["total"]) == (1800, 2000)
    assert dearer.body == {**made.body, "price": 1000, "stock": 8, "version": 3}
    for answer in refused:
        assert (answer.status, answer.faults) == (422, [("/items/0/product_id", "not_for_sale")])
    assert gone.body == {**made.body, "price": 1000, "stock": 6, "for_sale": False, "version": 5}
    assert (await rest.call("GET", path, customer)).body == gone.body
    assert (await rest.call("GET", path, customer, headers={"If-None-Match": gone.headers["ETag"]})).status == 304
    for query, found in (("", 1), ("?for_sale=false", 1), ("?for_sale=true", 0)):
        listed = await rest.call("GET", f"{PRODUCTS}{query}", customer)
        assert (len(listed.body["items"]), listed.body["stream"]["channel"]) == (found, "products:all")


async def test_what_happens_to_a_product_happens_to_no_other(rest: PostgresRest) -> None:
    staff, other, product = await rest.an_account(Role.STAFF), await rest.a_product(), await rest.a_product()
    path = f"/api/v1/products/{product.id}"

    edited = await rest.call("PATCH", path, staff, json={"name": "Better", "price": 1, "for_sale": False})
    fewer = await rest.call("POST", f"{path}/stock", staff, json={"pieces": -1})

    assert (edited.body["name"], fewer.body["stock"]) == ("Better", product.stock - 1)
    assert (await rest.call("GET", path, staff)).body == fewer.body
    async with rest.postgres.read() as uow:
        assert await uow.products.get(other.id) == other


async def test_a_delivery_that_is_sent_twice_counts_once(rest: PostgresRest) -> None:
    staff, product = await rest.an_account(Role.STAFF), await rest.a_product(stock=1)
    path, key = f"{PRODUCTS}/{product.id}/stock", {"Idempotency-Key": "delivery-17"}

    first = await rest.call("POST", path, staff, json={"pieces": 24}, headers=key)
    again = await rest.call("POST", path, staff, json={"pieces": 24}, headers=key)
    other = await rest.call("POST", path, staff, json={"pieces": 25}, headers=key)
    broken = await rest.call("POST", path, staff, json={"pieces": -5}, headers={"If-Match": '"2"'})
    stale = await rest.call("POST", path, staff, json={"pieces": -5}, headers={"If-Match": '"2"'})
    too_many = await rest.call("POST", path, staff, json={"pieces": -21})

    assert (first.status, first.body["stock"], first.headers["ETag"]) == (200, 25, '"2"')
    assert (again.raw, again.headers["Idempotency-Replayed"]) == (first.raw, "true")
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert (broken.body["stock"], stale.status) == (20, 412)
    assert (too_many.status, too_many.code, too_many.faults) == (409, "out_of_stock", [("/pieces", "out_of_stock")])
    assert (await rest.call("GET", f"{PRODUCTS}/{product.id}", staff)).body["stock"] == 20


async def test_a_product_that_is_added_twice_is_there_once(rest: PostgresRest) -> None:
    staff, key = await rest.an_account(Role.STAFF), {"Idempotency-Key": "cup"}

    made = await rest.call("POST", PRODUCTS, staff, json=CUP, headers=key)
    again = await rest.call("POST", PRODUCTS, staff, json=CUP, headers=key)
    same_sku = await rest.call("POST", PRODUCTS, staff, json={**CUP, "name": "Other"})

    assert (again.status, again.raw, again.headers["Location"]) == (201, made.raw, made.headers["Location"])
    assert (same_sku.status, same_sku.code) == (409, "conflict")
    assert len((await rest.call("GET", PRODUCTS, staff)).body["items"]) == 1


async def test_customers_and_strangers_change_nothing(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product()
    path = f"{PRODUCTS}/{product.id}"

    for method, where, body in (
        ("POST", PRODUCTS, CUP),
        ("PATCH", path, {"price": 1}),
        ("POST", f"{path}/stock", {"pieces": 1}),
    ):
        assert (await rest.call(method, where, customer, json=body)).status == 403
        assert (await rest.call(method, where, json=body)).status == 401
    assert (await rest.call("GET", path, customer)).body["version"] == 1


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"sku": "", "name": ""}, [("/sku", "wrong_length"), ("/name", "wrong_length")]),
        ({"sku": "S" * 65, "name": "\0"}, [("/sku", "wrong_length"), ("/name", "nul_character")]),
        ({"price": -1, "stock": 10**9 + 1}, [("/price", "out_of_range"), ("/stock", "out_of_range")]),
        ({"price": 10**10 + 1, "tax_rate": 10_001}, [("/price", "out_of_range"), ("/tax_rate", "out_of_range")]),
        ({"currency": "eur", "for_sale": "true"}, [("/currency", "wrong_type"), ("/for_sale", "wrong_type")]),
        ({"colour": "red"}, [("/colour", "unknown_field")]),
    ],
)
async def test_what_cannot_be_a_product_is_refused_with_every_fault(
    rest: PostgresRest, changes: dict[str, object], faults: list[tuple[str, str]]
) -> None:
    refused = await rest.call("POST", PRODUCTS, await rest.an_account(Role.STAFF), json={**CUP, **changes})
    assert (refused.status, refused.faults) == (422, faults)


async def test_a_text_that_is_too_long_is_told_so_in_characters(rest: PostgresRest) -> None:
    body = {**CUP, "sku": "", "name": "N" * 201}
    refused = await rest.call("POST", PRODUCTS, await rest.an_account(Role.STAFF), json=body)
    assert [fault["detail"] for fault in refused.body["errors"]] == [
        "String should have at least 1 character",
        "String should have at most 200 characters",
    ]


@pytest.mark.parametrize("given", ["yes", "1", "", "True", "null"])
async def test_whether_for_sale_is_asked_with_true_or_false(rest: PostgresRest, given: str) -> None:
    refused = await rest.call("GET", f"{PRODUCTS}?for_sale={given}", await rest.an_account())
    assert (refused.status, refused.faults) == (400, [("/for_sale", "wrong_type")])


async def test_orders_and_deliveries_at_the_same_time_lose_no_piece(rest: PostgresRest) -> None:
    staff, customer, product = (
        await rest.an_account(Role.STAFF),
        await rest.an_account(),
        await rest.a_product(stock=20),
    )
    path = f"{PRODUCTS}/{product.id}"

    answers = await asyncio.gather(
        *(rest.place(customer, product, 1) for _ in range(30)),
        *(rest.call("POST", f"{path}/stock", staff, json={"pieces": 2}) for _ in range(10)),
        *(rest.call("PATCH", path, staff, json={"price": 300 + number}) for number in range(10)),
    )

    placed = sum(answer.status == 201 for answer in answers)
    now = (await rest.call("GET", path, staff)).body
    assert {answer.status for answer in answers} <= {200, 201, 409}
    assert (now["stock"], now["version"]) == (20 + 20 - placed, 1 + placed + 20)


async def test_what_is_told_of_products_is_each_as_it_is_then(rest: PostgresRest) -> None:
    staff, customer, product = (
        await rest.an_account(Role.STAFF),
        await rest.an_account(),
        await rest.a_product(stock=20),
    )
    path = f"{PRODUCTS}/{product.id}"
    async with Work(rest.database) as work:
        telling = TellingStock(work)
        placed = await rest.place(customer, product, 3)
        await rest.place(customer, product, 1)
        assert await telling.tell(timedelta())
        after_orders = (await rest.call("GET", path, staff)).body
        await rest.call("POST", f"/api/v1/orders/{placed.body['id']}/cancel", customer)
        assert await telling.tell(timedelta())
        after_cancelling = (await rest.call("GET", path, staff)).body
        assert not await telling.tell(timedelta())
        edited = (await rest.call("PATCH", path, staff, json={"name": "Better"})).body

    async with rest.postgres.pool.connection() as connection:
        rows = await connection.fetch("SELECT body FROM outbox WHERE type = ANY ($1) ORDER BY id", TOLD)
    told = [orjson.loads(row["body"]) for row in rows]
    assert [(event["type"], event["subject"]) for event in told] == [
        ("stock.changed", "products"),
        ("stock.changed", "products"),
        ("product.changed", str(product.id)),
    ]
    assert [event["data"] for event in told] == [{"items": [after_orders]}, {"items": [after_cancelling]}, edited]
    assert (after_orders["stock"], after_cancelling["stock"]) == (16, 19)


async def test_what_is_changed_by_who_knows_of_no_versions_makes_one_and_is_told(rest: PostgresRest) -> None:
    staff, customer, product = await rest.an_account(Role.STAFF), await rest.an_account(), await rest.a_product()
    path = f"{PRODUCTS}/{product.id}"
    async with rest.postgres.pool.connection() as connection:  # as the code before 0010 does, or an operator's script
        await connection.execute("UPDATE products SET stock = 7 WHERE id = $1", product.id)

    read = await rest.call("GET", path, customer, headers={"If-None-Match": '"1"'})
    edited = await rest.call("PATCH", path, staff, json={"price": 1}, headers={"If-Match": '"1"'})

    assert (read.status, edited.status) == (200, 412)
    assert (read.body["stock"], read.body["version"]) == (7, 2)
    async with Work(rest.database) as work:
        assert await TellingStock(work).tell(timedelta())
    assert await stocks_told(rest) == [[(product.sku, 7, 2)]]


async def test_thousands_of_changes_are_told_once_for_each_product_and_not_all_at_once(rest: PostgresRest) -> None:
    skus = await many_change(rest)

    async with Work(rest.database) as work:
        began = time.monotonic()
        while not await TellingStock(work).tell(timedelta(seconds=0.3)):
            began = time.monotonic()
        took = time.monotonic() - began
        assert not await TellingStock(work).tell(timedelta())

    told = await stocks_told(rest)
    assert [len(event) for event in told] == [100, 100, 50]
    assert sorted(sku for event in told for sku, _, _ in event) == skus
    assert took >= 0.1
    async with rest.postgres.pool.connection() as connection:
        assert await connection.fetchval("SELECT count(DISTINCT xmin::text) FROM outbox") == 3  # transactions


async def test_a_portion_is_not_compared_with_each_change_that_is_untold(rest: PostgresRest) -> None:
    async with rest.postgres.pool.connection() as connection:
        await connection.execute("ANALYZE stock_changes")  # empty: the worst that there can be a plan for
        await connection.execute(f"PREPARE take (uuid[]) AS {SQL['take_untold']}")
        plan = [row[0].strip() for row in await connection.fetch("EXPLAIN EXECUTE take ('{}')")]

    [changes] = [step for step in plan if step.startswith("Filter: ")]
    assert "hashed SubPlan" in changes
    assert not [step for step in plan if "Hash Cond: " in step]


async def test_nodes_that_tell_of_the_stock_at_once_tell_of_each_product_once(rest: PostgresRest) -> None:
    skus = await many_change(rest)

    async with Work(rest.database) as work:
        while any(await asyncio.gather(*(TellingStock(work).tell(timedelta()) for _ in range(4)))):
            pass

    assert sorted(sku for event in await stocks_told(rest) for sku, _, _ in event) == skus


async def test_stock_is_told_once_in_an_interval(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product(stock=20)

    async with Work(rest.database) as work:
        await rest.place(customer, product, 1)
        assert await TellingStock(work).tell(timedelta())
        await rest.place(customer, product, 2)
        assert not await TellingStock(work).tell(timedelta(minutes=1))
        assert await TellingStock(work).tell(timedelta())

    assert await stocks_told(rest) == [[(product.sku, 19, 2)], [(product.sku, 17, 3)]]


async def test_stock_that_a_node_claimed_before_it_died_is_told_by_the_next(rest: PostgresRest) -> None:
    skus = await many_change(rest)

    async with rest.database.transaction() as uow:
        first, *_ = await service.claim_untold(uow, timedelta())
    async with rest.database.transaction() as uow:
        await service.tell_stock(uow, first, CAUSE)
    async with Work(rest.database) as work:
        assert await TellingStock(work).tell(timedelta())

    assert sorted(sku for event in await stocks_told(rest) for sku, _, _ in event) == skus


async def test_stock_is_told_although_the_clock_was_an_hour_ahead_when_it_was_told_last(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product(stock=20)
    async with rest.postgres.pool.connection() as connection:  # of a primary that is gone
        await connection.execute("UPDATE stock_changes_head SET told_at = clock_timestamp() + '1 hour'::interval")

    async with Work(rest.database) as work:
        await rest.place(customer, product, 1)
        assert await TellingStock(work).tell()

    assert await stocks_told(rest) == [[(product.sku, 19, 2)]]


async def many_change(rest: PostgresRest) -> list[str]:
    """30 times each. Returns the SKUs of the products."""
    made = [a_product(sku=f"SKU-{number:03}") for number in range(250)]
    await rest.products(*made)
    async with rest.postgres.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO stock_changes (product_id) SELECT id FROM products CROSS JOIN generate_series(1, 30)"
        )
    return [product.sku for product in made]


async def stocks_told(rest: PostgresRest) -> list[list[tuple[str, int, int]]]:
    """The SKU, stock and version of each product, by event."""
    async with rest.postgres.pool.connection() as connection:
        rows = await connection.fetch("SELECT body FROM outbox WHERE type = 'stock.changed' ORDER BY id")
    events = [orjson.loads(row["body"])["data"]["items"] for row in rows]
    return [[(item["sku"], item["stock"], item["version"]) for item in items] for items in events]
