from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from uuid import uuid4

import orjson
import pytest

from handlers.actor import Role
from handlers.audience import order_channel, personal_channel
from handlers.orders.schemas import OrderBody
from tests.rest import PostgresRest, serving


@pytest.fixture
async def rest(postgres_url: str) -> AsyncIterator[PostgresRest]:
    async with serving(postgres_url) as opened:
        yield opened


async def test_an_order_is_placed_at_the_price_of_now_and_found_where_it_says(rest: PostgresRest) -> None:
    customer, mug, pot = await rest.an_account(), await rest.a_product(price=250), await rest.a_product(price=1200)
    items = [{"product_id": str(pot.id), "quantity": 1}, {"product_id": str(mug.id), "quantity": 3}]

    placed = await rest.call("POST", "/api/v1/orders", customer, json={"items": items})

    assert placed.status == 201
    assert {"status": "placed", "version": 1, "currency": "EUR", "total": 1950}.items() <= placed.body.items()
    assert [(item["sku"], item["total"]) for item in placed.body["items"]] == [(pot.sku, 1200), (mug.sku, 750)]
    found = await rest.call("GET", placed.headers["Location"], customer)
    stream = found.body.pop("stream")
    assert (found.status, found.body) == (200, placed.body)
    assert stream["channel"] == order_channel(placed.body["id"])
    assert (found.headers["X-Stream-Offset"], found.headers["X-Stream-Epoch"]) == (
        str(stream["offset"]),
        stream["epoch"],
    )
    left = await rest.call("GET", f"/api/v1/products/{mug.id}", customer)
    assert left.body["stock"] == mug.stock - 3


async def test_placing_leaves_one_event_with_the_order_as_it_was_answered(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product()
    trace = "0af7651916cd43dd8448eb211c80319c"

    placed = await rest.call(
        "POST",
        "/api/v1/orders",
        customer,
        json={"items": [{"product_id": str(product.id), "quantity": 1}]},
        headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"},
    )

    async with rest.postgres.pool.connection() as connection:
        row = await connection.fetchrow("SELECT event_id, type, subject, body FROM outbox")
    assert row is not None
    event = orjson.loads(row["body"])
    assert (row["type"], row["subject"], row["event_id"]) == ("order.created", placed.body["id"], event["id"])
    assert (event["data"], event["recipient"]) == (placed.body, str(customer.id))
    assert event["traceparent"].startswith(f"00-{trace}-")


async def test_staff_take_an_order_through_its_states(rest: PostgresRest) -> None:
    customer, staff = await rest.an_account(), await rest.an_account(Role.STAFF)
    order = (await rest.place(customer, await rest.a_product())).body["id"]

    steps = ("pay", "pack", "ship", "deliver")
    answers = [await rest.call("POST", f"/api/v1/orders/{order}/{step}", staff) for step in steps]

    assert [(answer.status, answer.body["status"], answer.body["version"]) for answer in answers] == [
        (200, "paid", 2),
        (200, "packed", 3),
        (200, "shipped", 4),
        (200, "delivered", 5),
    ]
    assert [answer.headers["ETag"] for answer in answers] == ['"2"', '"3"', '"4"', '"5"']
    assert await rest.count("outbox") == 6  # with the payment by hand


async def test_a_cancelled_order_gives_its_pieces_back_once(rest: PostgresRest) -> None:
    customer, product = await rest.an_account(), await rest.a_product(stock=5)
    order = (await rest.place(customer, product, 5)).body["id"]

    first = await rest.call("POST", f"/api/v1/orders/{order}/cancel", customer)
    second = await rest.call("POST", f"/api/v1/orders/{order}/cancel", customer)

    assert (first.body["status"], second.status, second.code) == ("cancelled", 409, "illegal_transition")
    assert (await rest.call("GET", f"/api/v1/products/{product.id}", customer)).body["stock"] == 5


async def test_of_two_who_advance_an_order_at_once_one_is_refused(rest: PostgresRest) -> None:
    customer, staff = await rest.an_account(), await rest.an_account(Role.STAFF)
    order = (await rest.place(customer, await rest.a_product())).body["id"]

    async with rest.postgres.pool.connection() as other, other.transaction():
        await other.execute("SELECT FROM orders WHERE id = $1 FOR UPDATE", order)
        payers = [asyncio.create_task(rest.call("POST", f"/api/v1/orders/{order}/pay", staff)) for _ in range(2)]
        await rest.until_blocked(2)
    answers = await asyncio.gather(*payers)

    assert Counter(answer.status for answer in answers) == {200: 1, 409: 1}
    assert await rest.count("outbox") == 3  # with the payment by hand


@pytest.mark.parametrize("action", [None, "pay", "pack", "ship", "deliver", "cancel"])
async def test_an_order_of_others_cannot_be_told_from_none(rest: PostgresRest, action: str | None) -> None:
    owner, stranger = await rest.an_account(), await rest.an_account()
    order = (await rest.place(owner, await rest.a_product())).body["id"]
    method, step = ("GET", "") if action is None else ("POST", f"/{action}")

    others = await rest.call(method, f"/api/v1/orders/{order}{step}", stranger)
    none = await rest.call(method, f"/api/v1/orders/{uuid4()}{step}", stranger)

    assert (others.status, others.code) == (404, "not_found")
    assert {**others.body, "request_id": ""} == {**none.body, "request_id": ""}


@pytest.mark.parametrize("action", ["pay", "pack", "ship", "deliver"])
async def test_customers_do_not_move_their_own_orders_on(rest: PostgresRest, action: str) -> None:
    customer = await rest.an_account()
    order = (await rest.place(customer, await rest.a_product())).body["id"]

    refused = await rest.call("POST", f"/api/v1/orders/{order}/{action}", customer)

    assert (refused.status, refused.code) == (403, "forbidden")


async def test_a_paid_order_is_cancelled_by_staff_only(rest: PostgresRest) -> None:
    customer, staff = await rest.an_account(), await rest.an_account(Role.STAFF)
    order = (await rest.place(customer, await rest.a_product())).body["id"]
    await rest.call("POST", f"/api/v1/orders/{order}/pay", staff)

    refused = await rest.call("POST", f"/api/v1/orders/{order}/cancel", customer)
    done = await rest.call("POST", f"/api/v1/orders/{order}/cancel", staff)

    assert (refused.code, done.body["status"]) == ("illegal_transition", "cancelled")


async def test_lists_go_page_by_page_with_the_position_of_the_channel_that_continues_them(rest: PostgresRest) -> None:
    customer, other, staff = await rest.an_account(), await rest.an_account(), await rest.an_account(Role.STAFF)
    product = await rest.a_product()
    for account in (customer, other, customer, customer):
        await rest.place(account, product)

    first = await rest.call("GET", "/api/v1/orders?limit=2", customer)
    second = await rest.call("GET", f"/api/v1/orders?limit=2&cursor={first.body['next']}", customer)
    everything = await rest.call("GET", "/api/v1/orders", staff)

    assert [order["number"] for order in first.body["items"] + second.body["items"]] == [4, 3, 1]
    assert second.body["next"] is None
    assert first.body["stream"]["channel"] == personal_channel(customer.id)
    assert [order["number"] for order in everything.body["items"]] == [4, 3, 2, 1]
    assert everything.body["stream"]["channel"] == "orders:feed"
    assert everything.headers["X-Stream-Offset"] == str(everything.body["stream"]["offset"])


async def test_a_hundred_buyers_of_the_last_ten_pieces_make_ten_orders(rest: PostgresRest) -> None:
    product = await rest.a_product(stock=10)
    buyers = [await rest.an_account() for _ in range(10)]

    answers = await asyncio.gather(*(rest.place(buyers[turn % 10], product) for turn in range(100)))

    assert Counter(answer.status for answer in answers) == {201: 10, 409: 90}
    assert {answer.code for answer in answers if answer.status == 409} == {"out_of_stock"}
    assert (await rest.count("orders"), await rest.count("outbox")) == (10, 11)  # one of them tells that few are left
    assert (await rest.call("GET", f"/api/v1/products/{product.id}", buyers[0])).body["stock"] == 0


async def test_buyers_of_the_same_products_in_opposite_order_do_not_block_each_other(rest: PostgresRest) -> None:
    customer = await rest.an_account()
    items = [{"product_id": str((await rest.a_product()).id), "quantity": 1} for _ in range(5)]

    answers = await asyncio.gather(
        *(
            rest.call("POST", "/api/v1/orders", customer, json={"items": items if turn % 2 else items[::-1]})
            for turn in range(40)
        )
    )

    assert {answer.status for answer in answers} == {201}


async def test_who_has_the_version_that_there_is_is_not_sent_it_again(rest: PostgresRest) -> None:
    customer, staff = await rest.an_account(), await rest.an_account(Role.STAFF)
    placed = await rest.place(customer, await rest.a_product())
    path, tag = placed.headers["Location"], placed.headers["ETag"]

    known = [
        await rest.call("GET", path, customer, headers={"If-None-Match": given})
        for given in (tag, f"W/{tag}", f'"7", {tag}', "*")
    ]
    await rest.call("POST", f"{path}/pay", staff)
    news = await rest.call("GET", path, customer, headers={"If-None-Match": tag})

    assert {(answer.status, answer.raw, answer.headers["ETag"]) for answer in known} == {(304, b"", '"1"')}
    assert {"X-Stream-Offset", "X-Stream-Epoch"} <= set(known[0].headers)
    assert (news.status, news.headers["ETag"], news.body["status"]) == (200, '"2"', "paid")


async def test_an_order_is_changed_only_if_it_still_is_what_the_one_who_changes_it_has_seen(rest: PostgresRest) -> None:
    customer, staff = await rest.an_account(), await rest.an_account(Role.STAFF)
    placed = await rest.place(customer, await rest.a_product())
    path, seen = placed.headers["Location"], {"If-Match": placed.headers["ETag"]}

    paid = await rest.call("POST", f"{path}/pay", staff, headers=seen)
    refused = await rest.call("POST", f"{path}/cancel", staff, headers=seen)
    whatever = await rest.call("POST", f"{path}/cancel", staff, headers={"If-Match": "*"})

    assert (paid.status, paid.headers["ETag"]) == (200, '"2"')
    assert (refused.status, refused.code) == (412, "version_mismatch")
    assert (whatever.status, whatever.body["status"]) == (200, "cancelled")


async def test_of_two_who_change_the_same_version_at_once_one_is_told(rest: PostgresRest) -> None:
    customer, staff = await rest.an_account(), await rest.an_account(Role.STAFF)
    placed = await rest.place(customer, await rest.a_product())
    path, seen = placed.headers["Location"], {"If-Match": placed.headers["ETag"]}

    async with rest.postgres.pool.connection() as other, other.transaction():
        await other.execute("SELECT FROM orders WHERE id = $1 FOR UPDATE", placed.body["id"])
        both = [
            asyncio.create_task(rest.call("POST", f"{path}/{step}", staff, headers=seen)) for step in ("pay", "cancel")
        ]
        await rest.until_blocked(2)
    answers = await asyncio.gather(*both)

    assert Counter(answer.status for answer in answers) == {200: 1, 412: 1}


async def test_the_history_tells_who_did_what_when(rest: PostgresRest) -> None:
    customer, stranger, staff = await rest.an_account(), await rest.an_account(), await rest.an_account(Role.STAFF)
    path = (await rest.place(customer, await rest.a_product())).headers["Location"]
    paid = await rest.call("POST", f"{path}/pay", staff)

    for_staff = await rest.call("GET", f"{path}/history", staff)
    for_customer = await rest.call("GET", f"{path}/history", customer)

    keys = ("version", "action", "status", "by", "account_id")
    assert [[each[key] for key in keys] for each in for_staff.body["items"]] == [
        [1, "place", "placed", "customer", str(customer.id)],
        [2, "pay", "paid", "staff", str(staff.id)],
    ]
    assert for_staff.body["items"][1]["at"] == paid.body["updated_at"]
    assert [each["account_id"] for each in for_customer.body["items"]] == [str(customer.id), None]
    assert (await rest.call("GET", f"{path}/history", stranger)).code == "not_found"


async def test_a_long_history_comes_in_pages(rest: PostgresRest) -> None:
    customer = await rest.an_account()
    path = (await rest.place(customer, await rest.a_product())).headers["Location"]
    for number in range(4):
        await rest.call("PATCH", path, customer, json={"note": f"note {number}"})

    versions, query = [], "limit=2"
    while query:
        page = (await rest.call("GET", f"{path}/history?{query}", customer)).body
        versions.append([change["version"] for change in page["items"]])
        query = "" if page["next"] is None else f"limit=2&cursor={page['next']}"

    assert versions == [[1, 2], [3, 4], [5]]
    for cursor in ("MQ==", "LTE", "MWE", "OTk5OTk5OTk5OTk5OTk5OTk5OQ"):  # padded; -1, 1a and what no integer holds
        refused = await rest.call("GET", f"{path}/history?cursor={cursor}", customer)
        assert (refused.status, refused.code) == (400, "malformed")


HOME = {"name": "Ada", "line1": "Hafenstr. 1", "postal_code": "20457", "city": "Hamburg", "country": "DE"}
ABSENT = {"line2": None, "region": None}


async def test_an_address_and_a_note_are_edited_part_by_part_and_every_edit_is_told(rest: PostgresRest) -> None:
    customer, staff, product = await rest.an_account(), await rest.an_account(Role.STAFF), await rest.a_product()
    items = [{"product_id": str(product.id), "quantity": 1}]
    body = {"items": items, "address": HOME, "note": "Ring twice"}
    placed = (await rest.call("POST", "/api/v1/orders", customer, json=body)).body
    assert (placed["address"], placed["note"]) == ({**HOME, **ABSENT}, "Ring twice")

    path = f"/api/v1/orders/{placed['id']}"
    moved = await rest.call("PATCH", path, customer, json={"address": {**HOME, "city": "Bremen"}})
    silent = await rest.call("PATCH", path, staff, json={"note": None})
    same = await rest.call("PATCH", path, staff, json={})

    assert (moved.body["address"]["city"], moved.body["note"]) == ("Bremen", "Ring twice")
    assert (silent.body["address"]["city"], silent.body["note"]) == ("Bremen", None)
    assert (same.body, same.headers["ETag"]) == (silent.body, '"3"')
    read = (await rest.call("GET", path, customer)).body
    assert {name: value for name, value in read.items() if name != "stream"} == silent.body
    history = (await rest.call("GET", f"{path}/history", staff)).body["items"]
    assert [(each["action"], each["by"]) for each in history] == [
        ("place", "customer"),
        ("edit", "customer"),
        ("edit", "staff"),
    ]
    assert await rest.count("outbox") == 3
    for words, count in (("bremen", 1), ("hamburg", 0), ("20457", 1)):
        found = (await rest.call("GET", f"/api/v1/orders?q={words}", staff)).body["items"]
        assert len(found) == count, words


async def test_what_happens_to_an_order_happens_to_no_other(rest: PostgresRest) -> None:
    customer, staff, product = await rest.an_account(), await rest.an_account(Role.STAFF), await rest.a_product()
    other, path = [(await rest.place(customer, product)).headers["Location"] for _ in range(2)]
    before = (await rest.call("GET", other, customer)).body

    edited = await rest.call("PATCH", path, customer, json={"note": "soon", "address": HOME})
    paid = await rest.call("POST", f"{path}/pay", staff)

    assert (edited.body["note"], paid.body["status"]) == ("soon", "paid")
    assert {**(await rest.call("GET", path, customer)).body, "stream": None} == {**paid.body, "stream": None}
    assert (await rest.call("GET", other, customer)).body == before


async def test_what_is_packed_is_not_edited_and_neither_is_what_somebody_else_has_changed(rest: PostgresRest) -> None:
    customer, staff = await rest.an_account(), await rest.an_account(Role.STAFF)
    order = (await rest.place(customer, await rest.a_product())).body["id"]
    path = f"/api/v1/orders/{order}"
    await rest.call("POST", f"{path}/pay", staff)

    stale = await rest.call("PATCH", path, customer, json={"note": "x"}, headers={"If-Match": '"1"'})
    fresh = await rest.call("PATCH", path, customer, json={"note": "x"}, headers={"If-Match": '"2"'})
    await rest.call("POST", f"{path}/pack", staff)
    late = await rest.call("PATCH", path, staff, json={"note": "y"})
    wrong = await rest.call("PATCH", path, customer, json={"address": {**HOME, "country": "Germany"}, "note": ""})
    strange = await rest.call("PATCH", path, await rest.an_account(), json={"note": "z"})

    assert (stale.code, fresh.status, late.code, strange.code) == (
        "version_mismatch",
        200,
        "illegal_transition",
        "not_found",
    )
    assert sorted(wrong.faults) == [("/address/country", "wrong_type"), ("/note", "wrong_length")]


async def test_an_order_that_was_placed_or_read_here_is_known_again_until_it_changes(rest: PostgresRest) -> None:
    staff, product = await rest.an_account(Role.STAFF), await rest.a_product()
    orders = [(await rest.place(staff, product)).body for _ in range(3)]

    def made() -> int:
        return OrderBody.of.cache_info().misses

    before = made()
    for _ in range(2):
        assert (await rest.call("GET", "/api/v1/orders", staff)).body["items"] == orders[::-1]
    assert made() == before

    await rest.call("POST", f"/api/v1/orders/{orders[0]['id']}/pay", staff)
    listed = (await rest.call("GET", "/api/v1/orders", staff)).body["items"]
    assert ([order["status"] for order in listed], made()) == (["placed", "placed", "paid"], before + 1)
