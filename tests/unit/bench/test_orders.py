"""What the benchmark of orders asks, tells and reckons."""

from __future__ import annotations

from dataclasses import replace

import orjson

from bench.measure import Spread
from bench.orders.compare import BARE, OURS, Result, Round, contender
from bench.orders.customers import LINES, Customers, Placed
from bench.orders.shop import Books
from bench.report import orders_table

PLACED = Placed(100, 600, 1.0, Spread(1.0, 2.0, 3.0))
ROUND = Round(OURS, PLACED, cpu=0.2, database_cpu=0.1, server_cpu=0.8, behind=0.1, lost=0)


async def test_a_request_orders_as_many_pieces_as_it_says() -> None:
    message, pieces = Customers(8000, ["token"]).message()
    head, body = message.split(b"\r\n\r\n")
    items = orjson.loads(body)["items"]
    assert f"Content-Length: {len(body)}".encode() in head
    assert sum(item["quantity"] for item in items) == pieces
    assert len({item["product_id"] for item in items}) == LINES


async def test_no_two_requests_have_one_key() -> None:
    runs = [Customers(8000, ["token"]) for _ in range(2)]
    heads = [run.message()[0].split(b"Idempotency-Key: ")[1].split(b"\r\n")[0] for run in runs for _ in range(3)]
    assert len(set(heads)) == len(heads)


def test_what_was_placed_is_told_from_process_to_process() -> None:
    assert Placed.parse(orjson.dumps(PLACED).decode()) == PLACED


def test_what_was_in_the_books_before_does_not_count() -> None:
    assert Books(120, 700, 90).since(Books(20, 100, 40)) == Books(100, 600, 50)


def test_rounds_are_compared_with_their_neighbours_and_losses_add_up() -> None:
    slow = replace(ROUND, placed=replace(PLACED, seconds=4.0), lost=2)
    bare = [replace(each, name=BARE, placed=replace(each.placed, orders=200)) for each in (ROUND, ROUND, slow)]
    found = contender(BARE, [[ROUND, bare[0]], [bare[1], ROUND], [slow, bare[2]]])
    assert (found.ratio, found.per_second, found.milliseconds, found.lost) == (0.5, 200.0, 1.0, 2)


def test_each_row_of_the_table_has_as_many_cells_as_its_head() -> None:
    contenders = [contender(OURS, [[ROUND]])]
    rows = orders_table(Result(contenders, 50.0, [], lost=0)).split("\n\n")[0].splitlines()
    assert len({row.count("|") for row in rows}) == 1
