from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import orjson
from hypothesis import given
from hypothesis import strategies as st

from handlers.ids import new_id
from handlers.orders.model import Address, Line, Order, Status
from handlers.orders.schemas import LiveOrderBody, OrderBody
from handlers.ports.domain import Position, Snapshot
from handlers.schemas import decode_cursor, encode_cursor
from tests.doubles import NOW

ORDER = Order(uuid4(), 1, uuid4(), Status.PLACED, 1, "EUR", (), NOW, NOW)

_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
_ADDRESSES = st.builds(
    Address, _TEXTS, _TEXTS, st.none() | _TEXTS, st.none() | _TEXTS, _TEXTS, st.none() | _TEXTS, st.just("NL")
)
_LINES = st.builds(
    Line,
    st.uuids(),
    st.text(max_size=10),
    st.text(max_size=10),
    unit_price=st.integers(100, 10_000),
    quantity=st.integers(1, 1000),
    tax_rate=st.integers(0, 10_000),
    discount=st.integers(0, 100),
)
_MOMENTS = st.datetimes(datetime(1970, 1, 2), timezones=st.just(UTC))  # noqa: DTZ001 the zone is given beside it
_ORDERS = st.builds(
    Order,
    st.uuids(),
    st.integers(1, 2**53),
    st.uuids(),
    st.sampled_from(Status),
    st.integers(1, 2**31),
    st.just("EUR"),
    st.lists(_LINES, min_size=1, max_size=4).map(tuple),
    _MOMENTS,
    _MOMENTS,
    st.none() | _MOMENTS,
    st.integers(0, 2**53),
    st.none() | _ADDRESSES,
    st.none() | _TEXTS,
    st.none() | _TEXTS,
    st.booleans(),
)


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


@given(_ORDERS)
def test_what_an_order_is_sent_as_is_what_its_schema_says(order: Order) -> None:
    body, live = OrderBody.of(order), LiveOrderBody.at(Snapshot(order, "order:1", Position(3, "e")))

    assert OrderBody.model_validate_json(body.encode()).encode() == body.encode()
    assert LiveOrderBody.model_validate_json(live.encode()).encode() == live.encode()


def test_an_order_with_its_stream_is_the_order_and_its_stream() -> None:
    live = orjson.loads(LiveOrderBody.at(Snapshot(ORDER, "order:1", Position(3, "e"))).encode())

    assert live.pop("stream") == {"channel": "order:1", "offset": 3, "epoch": "e"}
    assert live == orjson.loads(OrderBody.of(ORDER).encode())


def test_ids_sort_by_the_time_they_were_made_at() -> None:
    ids = [new_id(NOW + timedelta(milliseconds=number)) for number in range(50)]

    assert ids == sorted(ids)
    assert {(made.version, made.variant) for made in ids} == {(7, "specified in RFC 4122")}
    assert new_id(NOW) != new_id(NOW)
