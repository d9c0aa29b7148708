from __future__ import annotations

from datetime import datetime, timedelta, timezone
from uuid import uuid4

import orjson
from hypothesis import given
from hypothesis import strategies as st

from handlers.ids import new_id
from handlers.orders.model import Order, Status
from handlers.orders.schemas import LiveOrderBody, OrderBody
from handlers.ports.domain import Position, Snapshot
from handlers.schemas import decode_cursor, encode_cursor
from tests.doubles import NOW

ORDER = Order(uuid4(), 1, uuid4(), Status.PLACED, 1, "EUR", (), NOW, NOW)


@given(st.text(max_size=50))
def test_a_cursor_gives_back_what_it_was_made_of(value: str) -> None:
    assert decode_cursor(encode_cursor(value)) == value


@given(st.text(max_size=50))
def test_only_our_own_spelling_is_a_cursor(cursor: str) -> None:
    value = decode_cursor(cursor)

    assert value is None or encode_cursor(value) == cursor


def test_times_are_utc_with_microseconds_also_where_they_are_zero() -> None:
    at_noon = datetime(2026, 1, 31, 12, 30, tzinfo=timezone(timedelta(hours=3)))
    body = OrderBody.of(Order(uuid4(), 1, uuid4(), Status.PLACED, 1, "EUR", (), at_noon, NOW))

    assert orjson.loads(body.encode())["created_at"] == "2026-01-31T09:30:00.000000Z"


def test_an_order_with_its_stream_is_the_order_and_its_stream() -> None:
    live = orjson.loads(LiveOrderBody.at(Snapshot(ORDER, "order:1", Position(3, "e"))).encode())

    assert live.pop("stream") == {"channel": "order:1", "offset": 3, "epoch": "e"}
    assert live == orjson.loads(OrderBody.of(ORDER).encode())


def test_ids_sort_by_the_time_they_were_made_at() -> None:
    ids = [new_id(NOW + timedelta(milliseconds=number)) for number in range(50)]

    assert ids == sorted(ids)
    assert {(made.version, made.variant) for made in ids} == {(7, "specified in RFC 4122")}
    assert new_id(NOW) != new_id(NOW)
