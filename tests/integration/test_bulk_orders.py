"""Many orders in and out, a JSON text on each line, over REST and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import uuid4

import orjson
import pytest

from handlers.accounts.model import Account
from handlers.actor import Actor, Role
from handlers.clock import utc_now
from handlers.commands import Caller
from handlers.events import Cause
from handlers.orders import bulk
from handlers.orders.schemas import ExportQuery
from handlers.products.model import Product
from handlers.rules import Rules
from handlers.work import Work
from tests.rest import ORIGIN, PostgresRest, serving

EXPORT, IMPORT = "/api/v1/exports/orders", "/api/v1/imports/orders"
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
async def rest(postgres_url: str) -> AsyncIterator[PostgresRest]:
    async with serving(postgres_url) as opened:
        yield opened


def a_line(customer: Account, product: Product, quantity: int = 1, **more: object) -> dict[str, object]:
    items = [{"product_id": str(product.id), "quantity": quantity}]
    return {"customer_id": str(customer.id), "items": items, **more}


def on_lines(texts: Iterable[object]) -> bytes:
    return b"".join(orjson.dumps(text) + b"\n" for text in texts)


async def imported(rest: PostgresRest, staff: Account, body: object) -> list[Any]:
    headers = {**rest.bearer(staff), **NDJSON}
    async with rest.client.post(IMPORT, data=body, headers=headers) as reply:
        assert (reply.status, reply.content_type) == (200, "application/x-ndjson")
        return [orjson.loads(line) for line in (await reply.read()).splitlines()]


async def exported(rest: PostgresRest, account: Account, query: str = "") -> tuple[list[Any], dict[str, str]]:
    async with rest.client.get(f"{EXPORT}{query}", headers=rest.bearer(account)) as reply:
        assert (reply.status, reply.content_type) == (200, "application/x-ndjson")
        return [orjson.loads(line) for line in (await reply.read()).splitlines()], dict(reply.headers)


async def test_each_line_is_an_order_of_its_own_or_says_why_not(rest: PostgresRest) -> None:
    staff, customer, mug = await rest.an_account(Role.STAFF), await rest.an_account(), await rest.a_product(stock=5)
    nobody = Account(uuid4(), "nobody@example.com", "Nobody", Role.CUSTOMER, "")
    body = (
        on_lines([a_line(customer, mug, 2, note="from the fair"), a_line(nobody, mug), a_line(customer, mug, 9)])
        + b'\n{"items": 1}\nnot JSON\n'
        + b'"' + b"x" * 70_000 + b'"\n'
        + on_lines([a_line(customer, mug, draft=True)])
    )  # fmt: skip

    results = await imported(rest, staff, body)

    assert [result["line"] for result in results] == [1, 2, 3, 4, 5, 6, 7]
    codes = [result["error"] and result["error"]["code"] for result in results]
    assert codes == [None, "invalid", "out_of_stock", "invalid", "malformed", "invalid", None]
    assert [fault["pointer"] for fault in results[1]["error"]["errors"]] == ["/customer_id"]
    assert {fault["pointer"] for fault in results[3]["error"]["errors"]} == {"/items", "/customer_id"}
    assert [result["order"]["status"] for result in (results[0], results[6])] == ["placed", "draft"]
    order = (await rest.call("GET", f"/api/v1/orders/{results[0]['order']['id']}", customer)).body
    assert (order["customer_id"], order["note"], order["total"]) == (str(customer.id), "from the fair", 500)
    history = (await rest.call("GET", f"/api/v1/orders/{order['id']}/history", staff)).body["items"]
    assert [(change["by"], change["account_id"]) for change in history] == [("staff", str(staff.id))]
    assert (await rest.call("GET", f"/api/v1/products/{mug.id}", staff)).body["stock"] == 3


async def test_lines_that_are_sent_again_with_their_keys_place_nothing_twice(rest: PostgresRest) -> None:
    staff, customer, mug = await rest.an_account(Role.STAFF), await rest.an_account(), await rest.a_product()
    body = on_lines(a_line(customer, mug, key=f"fair-{number}") for number in range(20))

    first = await imported(rest, staff, body)
    again = await imported(rest, staff, body + on_lines([a_line(customer, mug, 2, key="fair-0")]))

    assert [each["order"]["id"] for each in again[:20]] == [each["order"]["id"] for each in first]
    assert {each["order"]["replayed"] for each in first} == {False}
    assert {each["order"]["replayed"] for each in again[:20]} == {True}
    assert again[20]["error"]["code"] == "idempotency_key_reused"
    assert (await rest.call("GET", f"/api/v1/products/{mug.id}", staff)).body["stock"] == mug.stock - 20


async def test_an_answer_comes_before_the_next_line_is_sent(rest: PostgresRest) -> None:
    staff, customer, mug = await rest.an_account(Role.STAFF), await rest.an_account(), await rest.a_product()
    answered = asyncio.Semaphore(1)

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(3):
            await answered.acquire()
            yield on_lines([a_line(customer, mug)])

    headers = {**rest.bearer(staff), **NDJSON}
    async with asyncio.timeout(10), rest.client.post(IMPORT, data=slowly(), headers=headers) as reply:
        async for line in reply.content:
            assert orjson.loads(line)["order"]["status"] == "placed"
            answered.release()


async def test_a_body_that_is_cut_has_placed_what_was_answered_and_the_answer_is_cut_too(rest: PostgresRest) -> None:
    staff, customer, mug = await rest.an_account(Role.STAFF), await rest.an_account(), await rest.a_product()
    headers = "".join(f"{name}: {value}\r\n" for name, value in {**rest.bearer(staff), **NDJSON}.items())
    line = on_lines([a_line(customer, mug)])
    reader, writer = await asyncio.open_connection("127.0.0.1", rest.port)
    writer.write(
        f"POST {IMPORT} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n{headers}\r\n".encode()
        + f"{len(line):x}\r\n".encode() + line + b"\r\n"
    )  # fmt: skip

    async with asyncio.timeout(10):
        assert b'"placed"' in await reader.readuntil(b"}\n")
        writer.write_eof()
        rest_of_it = await reader.read()
    writer.close()

    assert not rest_of_it.endswith(b"0\r\n\r\n")
    assert (await rest.call("GET", f"/api/v1/products/{mug.id}", staff)).body["stock"] == mug.stock - 1


@pytest.mark.parametrize(
    ("role", "headers", "status"),
    [(Role.CUSTOMER, NDJSON, 403), (Role.STAFF, {"Content-Type": "application/json"}, 415)],
)
async def test_an_import_is_for_staff_and_in_lines(
    rest: PostgresRest, role: Role, headers: dict[str, str], status: int
) -> None:
    account = await rest.an_account(role)
    async with rest.client.post(IMPORT, data=b"{}", headers={**rest.bearer(account), **headers}) as reply:
        assert reply.status == status


async def test_all_orders_come_out_oldest_first_and_with_where_to_go_on_from(rest: PostgresRest) -> None:
    staff, customer, other = await rest.an_account(Role.STAFF), await rest.an_account(), await rest.an_account()
    mug = await rest.a_product(stock=1000)
    body = on_lines(a_line((customer, other)[number % 2], mug, 1 + number % 3) for number in range(250))
    placed = [result["order"] for result in await imported(rest, staff, body)]

    everything, headers = await exported(rest, staff)
    own, own_headers = await exported(rest, customer, "?fields=total,status")
    large, _ = await exported(rest, staff, "?total_from=750")
    none, none_headers = await exported(rest, customer, f"?customer_id={other.id}")

    assert {order["id"] for order in everything} == {order["id"] for order in placed}
    assert [order["created_at"] for order in everything] == sorted(order["created_at"] for order in everything)
    assert (headers["X-Total-Count"], own_headers["X-Total-Count"]) == ("250", "125")
    assert {"X-Stream-Offset", "X-Stream-Epoch"} <= set(headers)
    assert everything[0] == {
        name: value
        for name, value in (await rest.call("GET", f"/api/v1/orders/{everything[0]['id']}", staff)).body.items()
        if name != "stream"
    }
    assert len(own) == 125
    assert set(own[0]) == {"id", "version", "total", "status"}
    assert {order["total"] for order in large} == {750}
    assert (none, none_headers["X-Total-Count"]) == ([], "0")


async def test_of_an_export_head_tells_the_headers_alone(rest: PostgresRest) -> None:
    customer = await rest.an_account()
    await rest.place(customer, await rest.a_product())
    reader, writer = await asyncio.open_connection("127.0.0.1", rest.port)
    headers = f"Host: x\r\nAuthorization: {rest.bearer(customer)['Authorization']}\r\n\r\n"

    writer.write(f"HEAD /api/v1/exports/orders HTTP/1.1\r\n{headers}".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(f"GET /api/v1/auth/me HTTP/1.1\r\n{headers}".encode())
    following = await reader.readline()
    writer.close()

    assert b"X-Total-Count: 1\r\n" in head
    assert following == b"HTTP/1.1 200 OK\r\n"


async def test_pages_of_other_origins_may_read_lines_too(rest: PostgresRest) -> None:
    staff = await rest.an_account(Role.STAFF)
    headers = {**rest.bearer(staff), "Origin": ORIGIN, "Content-Type": "application/x-ndjson"}

    for method, path in (("GET", "/api/v1/exports/orders"), ("POST", IMPORT)):
        async with rest.client.request(method, path, data=b"{}\n", headers=headers) as reply:
            await reply.read()
            assert reply.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert reply.headers["Server-Timing"].startswith("db;dur=")


async def test_what_is_placed_while_it_is_read_is_the_last(rest: PostgresRest) -> None:
    staff, mug = await rest.an_account(Role.STAFF), await rest.a_product(stock=1000)
    await imported(rest, staff, on_lines(a_line(staff, mug) for _ in range(120)))
    async with Work(rest.postgres) as work:
        caller = Caller(Actor(staff.id, staff.role), Cause(utc_now()), work, Rules())

        export = await bulk.export(caller, ExportQuery())
        begin = await anext(export.lines)
        late = (await rest.place(staff, mug)).body
        end = b"".join([page async for page in export.lines])

    orders = [orjson.loads(line) for line in (begin + end).splitlines()]
    assert (export.count, len(orders), orders[-1]) == (120, 121, late)
