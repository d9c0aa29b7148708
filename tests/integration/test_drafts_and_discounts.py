"""Drafts, discounts and taxes over REST, on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from handlers.accounts.model import Account
from handlers.actor import Role
from handlers.products.model import Product
from tests.rest import PostgresRest, serving

ORDERS = "/api/v1/orders"
DISCOUNTS = "/api/v1/discounts"


@pytest.fixture
async def rest(postgres_url: str) -> AsyncIterator[PostgresRest]:
    async with serving(postgres_url) as opened:
        yield opened


def wanted(*products: tuple[Product, int], **more: object) -> dict[str, Any]:
    return {"items": [{"product_id": str(each.id), "quantity": quantity} for each, quantity in products], **more}


async def counted(rest: PostgresRest, staff: Account) -> dict[str, int]:
    """Orders by status, as the statistics have it."""
    totals = (await rest.call("GET", "/api/v1/stats/orders", staff)).body["totals"]
    return {each["status"]: each["orders"] for total in totals for each in total["by_status"]}


async def test_a_draft_is_changed_and_placed_and_counts_from_then_on(rest: PostgresRest) -> None:
    customer, staff = await rest.an_account(), await rest.an_account(Role.STAFF)
    mug, pot = await rest.a_product(price=250), await rest.a_product(price=1200)

    draft = await rest.call("POST", ORDERS, customer, json=wanted((mug, 2), (pot, 1), draft=True))
    path = draft.headers["Location"]
    edited = await rest.call("PATCH", path, customer, json=wanted((pot, 3), note="soon"), headers={"If-Match": '"1"'})

    assert (draft.status, draft.body["status"], draft.body["total"]) == (201, "draft", 1700)
    assert (edited.status, edited.body["total"], len(edited.body["items"])) == (200, 3600, 1)
    read = await rest.call("GET", path, customer)
    assert {**read.body, "stream": None} == {**edited.body, "stream": None}
    assert (await rest.call("GET", f"/api/v1/products/{pot.id}", customer)).body["stock"] == pot.stock
    assert await counted(rest, staff) == {}
    found = await rest.call("GET", f"{ORDERS}?status=draft&q={pot.sku}", customer)
    assert [each["id"] for each in found.body["items"]] == [draft.body["id"]]

    placed = await rest.call("POST", f"{path}/place", customer, headers={"If-Match": '"2"'})
    again = await rest.call("POST", f"{path}/place", customer)

    assert (placed.status, placed.body["status"], placed.body["version"]) == (200, "placed", 3)
    assert placed.body["created_at"] == draft.body["created_at"]
    assert (again.status, again.code) == (409, "illegal_transition")
    assert (await rest.call("GET", f"/api/v1/products/{pot.id}", customer)).body["stock"] == pot.stock - 3
    assert await counted(rest, staff) == {"placed": 1}
    history = (await rest.call("GET", f"{path}/history", customer)).body["items"]
    assert [change["action"] for change in history] == ["draft", "edit", "place"]
    async with rest.postgres.pool.connection() as connection:
        told = await connection.fetch("SELECT type, body FROM outbox ORDER BY id")
    assert [row["type"] for row in told] == ["order.drafted", "order.edited", "order.created"]
    assert orjson.loads(told[-1]["body"])["data"] == placed.body


async def test_a_draft_that_is_changed_is_read_and_found_as_it_is_now_and_no_other_changes_with_it(
    rest: PostgresRest,
) -> None:
    customer, mug, cup = await rest.an_account(), await rest.a_product(price=250), await rest.a_product(price=300)
    pot = await rest.a_product(price=5000, currency="USD", tax_rate=1900)
    draft = await rest.call("POST", ORDERS, customer, json=wanted((mug, 1), (cup, 1), draft=True))
    other = await rest.call("POST", ORDERS, customer, json=wanted((mug, 1), (cup, 1), draft=True))
    path = draft.headers["Location"]

    edited = await rest.call("PATCH", path, customer, json=wanted((pot, 1)))

    async def found(query: str) -> list[str]:
        return [each["id"] for each in (await rest.call("GET", f"{ORDERS}?{query}", customer)).body["items"]]

    read = (await rest.call("GET", path, customer)).body
    assert {**read, "stream": None} == {**edited.body, "stream": None}
    assert await found("total_from=5000") == await found(f"q={pot.sku}") == [draft.body["id"]]
    assert await found(f"q={cup.sku}") == [other.body["id"]]
    kept = (await rest.call("GET", other.headers["Location"], customer)).body
    assert {**kept, "stream": None} == {**other.body, "stream": None}


async def test_a_draft_that_cannot_be_placed_stays_one_and_one_that_is_dropped_is_never_counted(
    rest: PostgresRest,
) -> None:
    customer, staff, mug = await rest.an_account(), await rest.an_account(Role.STAFF), await rest.a_product(stock=1)
    path = (await rest.call("POST", ORDERS, customer, json=wanted((mug, 2), draft=True))).headers["Location"]

    refused = await rest.call("POST", f"{path}/place", customer)
    assert (refused.status, refused.code, refused.faults) == (409, "out_of_stock", [("/items/0", "out_of_stock")])
    assert (await rest.call("GET", path, customer)).body["status"] == "draft"
    unpaid = await rest.call("POST", f"{path}/payment", customer, json={"method": "pm_card_visa"})
    assert (unpaid.status, unpaid.code) == (409, "not_payable")

    assert (await rest.call("POST", f"{path}/cancel", customer)).body["status"] == "cancelled"
    assert await counted(rest, staff) == {}
    assert (await rest.call("GET", f"/api/v1/products/{mug.id}", customer)).body["stock"] == 1


async def test_of_an_order_that_is_placed_nobody_changes_what_is_in_it(rest: PostgresRest) -> None:
    customer, mug = await rest.an_account(), await rest.a_product()
    path = (await rest.place(customer, mug)).headers["Location"]

    for changes in (wanted((mug, 2)), {"discount_code": "X"}, {"discount_code": None}):
        refused = await rest.call("PATCH", path, customer, json=changes)
        assert (refused.status, refused.code) == (409, "illegal_transition")
    unchanged = await rest.call("PATCH", path, customer, json={"items": None})
    assert (unchanged.status, unchanged.body["version"]) == (200, 1)


async def test_a_discount_is_made_shown_changed_and_told(rest: PostgresRest) -> None:
    staff, customer = await rest.an_account(Role.STAFF), await rest.an_account()
    body = {"code": "spring-26", "rate": 1250, "ends_at": "2100-01-01T00:00:00Z", "max_uses": 2}

    made = await rest.call("POST", DISCOUNTS, staff, json=body)
    path = made.headers["Location"]
    twice = await rest.call("POST", DISCOUNTS, staff, json={**body, "code": "Spring-26"})
    changes = {"max_uses": None, "ends_at": "2100-02-01T01:00:00+01:00"}
    ended = await rest.call("PATCH", path, staff, json=changes, headers={"If-Match": '"1"'})

    assert (made.status, made.body["code"], made.body["rate"], made.body["uses"]) == (201, "SPRING-26", 1250, 0)
    assert (twice.status, twice.code) == (409, "conflict")
    assert (ended.body["max_uses"], ended.body["version"], ended.headers["ETag"]) == (None, 2, '"2"')
    assert ended.body["ends_at"] == "2100-02-01T00:00:00.000000Z"
    assert (await rest.call("GET", path, staff)).body == ended.body
    assert (await rest.call("GET", path, staff, headers={"If-None-Match": '"2"'})).status == 304
    listed = await rest.call("GET", DISCOUNTS, staff)
    assert (listed.body["items"], listed.body["stream"]["channel"]) == ([ended.body], "discounts:all")
    for method, where in (("GET", DISCOUNTS), ("GET", path)):
        assert (await rest.call(method, where, customer)).code == "forbidden"
    assert (await rest.call("POST", DISCOUNTS, customer, json=body)).code == "forbidden"
    assert (await rest.call("PATCH", path, customer, json={})).code == "forbidden"


async def test_what_happens_to_a_discount_happens_to_no_other(rest: PostgresRest) -> None:
    staff, customer, mug = await rest.an_account(Role.STAFF), await rest.an_account(), await rest.a_product()
    other, path = [
        (await rest.call("POST", DISCOUNTS, staff, json={"code": code, "rate": 100})).headers["Location"]
        for code in ("OTHER", "ONE")
    ]
    before = (await rest.call("GET", other, staff)).body

    await rest.call("POST", ORDERS, customer, json=wanted((mug, 1), discount_code="ONE"))
    edited = await rest.call("PATCH", path, staff, json={"max_uses": 7})

    assert (edited.body["uses"], edited.body["max_uses"]) == (1, 7)
    assert (await rest.call("GET", path, staff)).body == edited.body
    assert (await rest.call("GET", other, staff)).body == before


@pytest.mark.parametrize("starts_at", [None, "2030-01-01T00:00:00Z"])
async def test_a_discount_is_not_over_before_it_begins(rest: PostgresRest, starts_at: str | None) -> None:
    body = {"code": "LATE", "rate": 100, "starts_at": starts_at, "ends_at": starts_at or "2020-01-01T00:00:00Z"}
    refused = await rest.call("POST", DISCOUNTS, await rest.an_account(Role.STAFF), json=body)
    assert (refused.status, refused.faults) == (422, [("/ends_at", "out_of_range")])


async def test_discounts_are_listed_page_by_page_in_order_of_code(rest: PostgresRest) -> None:
    staff = await rest.an_account(Role.STAFF)
    for code in ("C", "A", "D", "B"):
        await rest.call("POST", DISCOUNTS, staff, json={"code": code, "rate": 100})

    first = await rest.call("GET", f"{DISCOUNTS}?limit=2", staff)
    second = await rest.call("GET", f"{DISCOUNTS}?limit=2&cursor={first.body['next']}", staff)

    assert [each["code"] for each in first.body["items"]] == ["A", "B"]
    assert ([each["code"] for each in second.body["items"]], second.body["next"]) == (["C", "D"], None)


async def test_a_draft_comes_to_what_its_own_discount_takes_off(rest: PostgresRest) -> None:
    staff, customer, mug = await rest.an_account(Role.STAFF), await rest.an_account(), await rest.a_product(price=1000)
    for code, rate in (("FIVE", 500), ("TEN", 1000), ("TWENTY", 2000)):
        await rest.call("POST", DISCOUNTS, staff, json={"code": code, "rate": rate})

    draft = await rest.call("POST", ORDERS, customer, json=wanted((mug, 1), discount_code="TEN", draft=True))
    placed = await rest.call("POST", f"{draft.headers['Location']}/place", customer)

    assert (draft.body["discount"], placed.body["discount"]) == (100, 100)


async def test_discount_and_taxes_of_an_order_are_kept_and_given_back_with_it(rest: PostgresRest) -> None:
    staff, customer = await rest.an_account(Role.STAFF), await rest.an_account()
    mug, book = await rest.a_product(price=1190, tax_rate=1900), await rest.a_product(price=535, tax_rate=700)
    discount = (await rest.call("POST", DISCOUNTS, staff, json={"code": "TEN", "rate": 1000})).headers["Location"]

    placed = await rest.call("POST", ORDERS, customer, json=wanted((mug, 1), (book, 2), discount_code="ten"))

    assert (placed.body["subtotal"], placed.body["discount"], placed.body["total"]) == (2260, 226, 2034)
    assert [(line["discount"], line["total"]) for line in placed.body["items"]] == [(119, 1071), (107, 963)]
    assert placed.body["taxes"] == [{"rate": 700, "net": 900, "amount": 63}, {"rate": 1900, "net": 900, "amount": 171}]
    read = (await rest.call("GET", placed.headers["Location"], customer)).body
    del read["stream"]
    assert read == placed.body
    assert (await rest.call("GET", discount, staff)).body["uses"] == 1
    assert await counted(rest, staff) == {"placed": 1}
    await rest.call("POST", f"{placed.headers['Location']}/cancel", customer)
    assert (await rest.call("GET", discount, staff)).body["uses"] == 0


async def test_of_many_who_use_the_last_of_a_discount_at_once_only_so_many_get_it(rest: PostgresRest) -> None:
    staff, customer, mug = await rest.an_account(Role.STAFF), await rest.an_account(), await rest.a_product()
    discount = await rest.call("POST", DISCOUNTS, staff, json={"code": "FEW", "rate": 500, "max_uses": 3})

    answers = await asyncio.gather(
        *(rest.call("POST", ORDERS, customer, json=wanted((mug, 1), discount_code="FEW")) for _ in range(12))
    )

    refused = [answer for answer in answers if answer.status != 201]
    assert len(refused) == 9
    assert {(answer.code, *answer.faults) for answer in refused} == {("invalid", ("/discount_code", "bad_discount"))}
    assert (await rest.call("GET", f"/api/v1/products/{mug.id}", customer)).body["stock"] == mug.stock - 3
    assert (await rest.call("GET", discount.headers["Location"], staff)).body["uses"] == 3
