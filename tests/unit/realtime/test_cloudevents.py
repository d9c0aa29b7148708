"""What is an event and what is not: CloudEvents 1.0 in both modes, and every reason for a refusal."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.events import MAX_EVENT_BYTES, Event, OwnType
from handlers.ports.broker import Delivery
from realtime.cloudevents import BadEvent, Reason, parse, publication_data

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
ORDER = UUID("019c0000-0000-7000-8000-000000000001")
GOOD: dict[str, object] = {"specversion": "1.0", "id": "7", "source": "/billing", "type": "invoice.sent"}


def structured(envelope: object, content_type: str | None = "application/cloudevents+json") -> Delivery:
    return Delivery(1, orjson.dumps(envelope), content_type)


def binary(headers: dict[str, object], body: bytes = b'{"total":1}', kind: str = "application/json") -> Delivery:
    return Delivery(1, body, kind, headers)


def refusal(delivery: Delivery) -> tuple[Reason, str]:
    with pytest.raises(BadEvent) as caught:
        parse(delivery, NOW)
    return caught.value.reason, caught.value.detail


def test_our_own_encoding_is_read_back_unchanged() -> None:
    event = Event(
        "7",
        "/orderwire",
        OwnType.ORDER_PAID,
        str(ORDER),
        NOW,
        {"version": 2},
        ORDER,
        "order:x",
        f"00-{'a' * 32}-{'b' * 16}-01",
    )
    assert parse(Delivery(1, event.encode(), "application/cloudevents+json"), NOW) == event


def test_only_the_required_attributes_are_required() -> None:
    assert parse(structured(GOOD), NOW) == Event("7", "/billing", "invoice.sent", "", NOW, None)


@pytest.mark.parametrize(
    "content_type",
    ["application/cloudevents+json; charset=utf-8", 'Application/CloudEvents+JSON;charset="UTF-8"'],
)
def test_parameters_and_case_of_the_content_type_do_not_matter(content_type: str) -> None:
    assert parse(structured(GOOD, content_type), NOW).id == "7"


@pytest.mark.parametrize("prefix", ["cloudEvents:", "cloudEvents_"])
def test_binary_mode_carries_attributes_in_headers_and_data_in_the_body(prefix: str) -> None:
    headers = {f"{prefix}{name}": value for name, value in {**GOOD, "channel": "orders:feed", "subject": "s"}.items()}
    event = parse(binary({**headers, "unrelated": 1}), NOW)
    assert event == Event("7", "/billing", "invoice.sent", "s", NOW, {"total": 1}, channel="orders:feed")


@pytest.mark.parametrize("kind", ["text/json", "application/vnd.shop+json; charset=utf-8"])
def test_data_may_be_of_any_json_type(kind: str) -> None:
    headers: dict[str, object] = {f"cloudEvents:{name}": value for name, value in GOOD.items()}
    assert parse(binary(headers, kind=kind), NOW).data == {"total": 1}
    assert parse(structured({**GOOD, "datacontenttype": kind, "data": {"total": 1}}), NOW).data == {"total": 1}


def test_binary_mode_may_have_no_data_and_an_amqp_time() -> None:
    headers = {f"cloudEvents:{name}": value for name, value in {**GOOD, "time": NOW - timedelta(days=1)}.items()}
    event = parse(binary(headers, body=b"", kind=""), NOW)
    assert event.data is None
    assert event.time == NOW - timedelta(days=1)


@pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_required_attribute_that_is_missing_is_named(name: str, value: str | None) -> None:
    assert refusal(structured({**GOOD, name: value})) == (Reason.MISSING_ATTRIBUTE, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("specversion", "0.3"),
        ("id", 7),
        ("id", "x" * 256),
        ("id", "a\u0000b"),
        ("source", "ö" * 300),
        ("type", ["a"]),
        ("subject", {"a": 1}),
        ("channel", 1),
        ("recipient", "nobody"),
        ("time", "yesterday"),
        ("time", "2026-01-31"),
        ("time", "2026-01-31T09:30:00"),
        ("time", "2026-02-30T09:30:00Z"),
        ("time", "0001-01-01T00:00:00+23:59"),
        ("time", 1769851800),
    ],
)
def test_an_attribute_with_an_impossible_value_is_named(name: str, value: object) -> None:
    assert refusal(structured({**GOOD, name: value})) == (Reason.BAD_ATTRIBUTE, name)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T09:30:00Z", NOW),
        ("2026-01-31t09:30:00z", NOW),
        ("2026-01-31T10:30:00+01:00", NOW),
        ("2026-01-31T09:30:00.123456789Z", NOW.replace(microsecond=123456)),
    ],
)
def test_every_rfc3339_time_is_understood(text: str, moment: datetime) -> None:
    assert parse(structured({**GOOD, "time": text}), NOW).time == moment


def test_our_own_types_need_an_order_as_their_subject() -> None:
    assert refusal(structured({**GOOD, "type": "order.paid"})) == (Reason.BAD_ATTRIBUTE, "subject")


def test_of_all_orders_together_the_subject_is_no_order() -> None:
    event = parse(structured({**GOOD, "type": "orders.counted", "subject": "orders"}), NOW)
    assert (event.subject, event.is_of_order) == ("orders", False)


@pytest.mark.parametrize(
    ("delivery", "expected"),
    [
        (Delivery(1, b" " * (MAX_EVENT_BYTES + 1), "application/cloudevents+json"), (Reason.OVERSIZED, "")),
        (Delivery(1, b"{", "application/cloudevents+json"), (Reason.MALFORMED, "")),
        (Delivery(1, b"\xff{}", "application/cloudevents+json"), (Reason.MALFORMED, "")),
        (structured([GOOD]), (Reason.MALFORMED, "")),
        (structured(GOOD, "application/cloudevents+json; charset=latin1"), (Reason.MALFORMED, "charset")),
        (structured([GOOD], "application/cloudevents-batch+json"), (Reason.NOT_CLOUDEVENT, "")),
        (structured(GOOD, "application/json"), (Reason.NOT_CLOUDEVENT, "")),
        (structured(GOOD, None), (Reason.NOT_CLOUDEVENT, "")),
        (structured({**GOOD, "data_base64": "AA=="}), (Reason.BAD_DATA, "data_base64")),
        (structured({**GOOD, "datacontenttype": "text/xml", "data": "<a/>"}), (Reason.BAD_DATA, "datacontenttype")),
        (binary({"cloudEvents:id": "7"}, b"<a/>", "text/xml"), (Reason.BAD_DATA, "datacontenttype")),
        (binary({f"cloudEvents:{name}": GOOD[name] for name in GOOD}, b"nope"), (Reason.BAD_DATA, "")),
    ],
)
def test_each_refusal_has_its_reason(delivery: Delivery, expected: tuple[Reason, str]) -> None:
    assert refusal(delivery) == expected


def test_an_unusable_trace_is_ignored() -> None:
    assert parse(structured({**GOOD, "traceparent": "zz"}), NOW).traceparent is None


def test_subscribers_get_the_event_on_one_line_without_what_only_its_transport_needs() -> None:
    event = Event("7", "/billing", "invoice.sent", "s", NOW, {"text": "two\nlines"}, ORDER, "orders:feed", "00-x")
    data = publication_data(event)
    assert b"\n" not in data
    assert orjson.loads(data) == {
        **GOOD,
        "subject": "s",
        "time": "2026-01-31T09:30:00.000000Z",
        "data": {"text": "two\nlines"},
    }


def test_data_nested_too_deep_to_be_passed_on_is_refused() -> None:
    deep = b'{"specversion":"1.0","id":"7","source":"/b","type":"t","data":' + b"[" * 400 + b"]" * 400 + b"}"
    event = parse(Delivery(1, deep, "application/cloudevents+json"), NOW)
    with pytest.raises(BadEvent, match="bad_data"):
        publication_data(event)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
ATTRIBUTES = st.dictionaries(st.sampled_from([*GOOD, "time", "subject", "channel", "data", "recipient"]), JSON)


@given(ATTRIBUTES, st.binary(max_size=40), st.sampled_from([None, "", "application/cloudevents+json", "text/plain"]))
def test_whatever_arrives_it_is_an_event_or_has_a_reason(
    attributes: dict[str, object], body: bytes, content_type: str | None
) -> None:
    headers = {f"cloudEvents:{name}": value for name, value in attributes.items()}
    try:
        envelope = orjson.dumps({**GOOD, **attributes}, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        envelope = b"{}"
    for delivery in (Delivery(1, body, content_type, headers), Delivery(1, envelope, "application/cloudevents+json")):
        with suppress(BadEvent):
            assert b"\n" not in publication_data(parse(delivery, NOW))
