"""The contract: the AsyncAPI document is whole, the committed files are those that the models make, schemas decide."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jsonschema
import orjson
import pytest

from handlers.audience import Kind
from handlers.events import LIFE_CYCLE_TYPES, OWN_TYPES, SOURCE, Event
from handlers.orders.model import Line, Order, Status
from handlers.orders.schemas import OrderBody
from realtime.cloudevents import publication_data
from server import contract
from server.asyncapi import document
from tests.contract_document import check, check_frame

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"
NOW = datetime(2026, 1, 31, tzinfo=UTC)
DOCUMENT = document("orderwire.events", "/connection/websocket", has_rabbitmq=True)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from references(value)


def order_event(**changes: Any) -> dict[str, Any]:
    line = Line(uuid4(), "CUP-01", "Cup", 900, 2)
    order = Order(uuid4(), 7, uuid4(), Status.PAID, 2, "EUR", (line,), NOW, NOW)
    event = Event("e-1", SOURCE, "order.paid", str(order.id), NOW, OrderBody.of(order), recipient=order.customer_id)
    said: dict[str, Any] = orjson.loads(event.encode())
    return {**said, **changes}


def test_the_committed_files_are_those_that_the_models_make() -> None:
    """If not: `make contract`."""
    assert {name: (SCHEMAS / name).read_text() for name in contract.files()} == contract.files()
    assert {file.name for file in SCHEMAS.iterdir()} == {*contract.files(), "openapi.json"}


def test_everything_that_is_referred_to_is_there() -> None:
    for reference in references(DOCUMENT):
        node: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_every_channel_and_every_type_is_described_and_heard_somewhere() -> None:
    channels = DOCUMENT["channels"]
    assert {channel["address"] for channel in channels.values()} >= {
        "orders:feed",
        "order:{order_id}",
        "stats:orders",
        "#{account_id}",
    }
    assert len(channels) == len(Kind) + 1
    assert set(channels["exchange"]["messages"]) >= OWN_TYPES | LIFE_CYCLE_TYPES
    for operation in DOCUMENT["operations"].values():
        assert operation["messages"]
    assert set(channels["order_stats"]["messages"]) & OWN_TYPES == {"orders.counted"}
    assert set(channels["low_stock"]["messages"]) & OWN_TYPES == {"stock.low"}
    of_orders = {kind for kind in OWN_TYPES if kind.startswith("order.")}
    assert set(channels["orders_feed"]["messages"]) & OWN_TYPES == of_orders
    assert set(channels["order"]["messages"]) & OWN_TYPES == of_orders | {"payment.changed"}


def test_an_event_of_ours_fits_and_what_clients_get_of_it() -> None:
    check("OrderEvent", order_event())
    event = Event("e-1", SOURCE, "order.paid", str(uuid4()), NOW, order_event()["data"])
    check("OrderPublication", orjson.loads(publication_data(event)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": {}},
        {"source": "/billing"},
        {"type": "order.exploded"},
        {"specversion": "0.3"},
        {"time": "yesterday"},
        {"subject": 7},
        {"data": {**order_event()["data"], "total": 18.5}},
        {"data": {**order_event()["data"], "status": "exploded"}},
    ],
    ids=lambda wrong: str(sorted(wrong)),
)
def test_a_wrong_one_does_not(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check("OrderEvent", order_event(**wrong))


def test_a_frame_is_held_to_it() -> None:
    event = Event("e-1", SOURCE, "order.paid", str(UUID(int=7)), NOW, order_event()["data"])
    good = orjson.loads(publication_data(event))
    check_frame(orjson.dumps({"push": {"channel": "orders:feed", "pub": {"data": good, "offset": 1}}}).decode())
    bad = {**good, "data": {}}
    with pytest.raises(jsonschema.ValidationError):
        check_frame(orjson.dumps({"push": {"channel": "orders:feed", "pub": {"data": bad, "offset": 1}}}).decode())


def test_another_services_event_may_say_what_it_likes_but_not_that_it_is_ours() -> None:
    said = {"specversion": "1.0", "id": "1", "source": "/billing", "type": "invoice.sent", "data": [1, None]}
    check("ServiceEvent", said)
    for wrong in ({"source": SOURCE}, {"type": "order.paid"}, {"type": "client.connected"}, {"data_base64": "eA=="}):
        with pytest.raises(jsonschema.ValidationError):
            check("ServiceEvent", {**said, **wrong})


def test_a_node_without_rabbitmq_says_so() -> None:
    embedded = document("x", "/connection/websocket", has_rabbitmq=False)
    assert "None in this deployment" in embedded["servers"]["rabbitmq"]["description"]
