"""JSON Schemas (2020-12) of events: the envelopes as `realtime.cloudevents` writes and reads them, around data as the
models in handlers/ make it. They leave room for properties that are added later; docs/contract.md says who reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from handlers.discounts.schemas import DiscountBody
from handlers.events import LIFE_CYCLE_TYPES, ORDERS, OWN_TYPES, PRODUCTS, SOURCE, LifeCycleType, OwnType
from handlers.orders.schemas import OrderBody
from handlers.payments.schemas import PaymentBody
from handlers.products.schemas import ProductBody, ProductsBody
from handlers.schemas import Body, Moment
from handlers.stats.schemas import OrderStatsBody
from realtime.cloudevents import MAX_ATTRIBUTE_BYTES, NO_CONTROL, RFC3339

Schema: TypeAlias = Mapping[str, Any]

REFERENCE: Final = "#/components/schemas/"
"""Where they refer to each other: in the AsyncAPI document."""

DATA: Final[Mapping[OwnType, type[Body]]] = {
    OwnType.ORDER_DRAFTED: OrderBody,
    OwnType.ORDER_CREATED: OrderBody,
    OwnType.ORDER_PAID: OrderBody,
    OwnType.ORDER_PACKED: OrderBody,
    OwnType.ORDER_SHIPPED: OrderBody,
    OwnType.ORDER_DELIVERED: OrderBody,
    OwnType.ORDER_CANCELLED: OrderBody,
    OwnType.ORDER_EXPIRED: OrderBody,
    OwnType.ORDER_PAYMENT_FAILED: OrderBody,
    OwnType.ORDER_RETURNED: OrderBody,
    OwnType.ORDER_REFUNDED: OrderBody,
    OwnType.ORDER_REFUND_FAILED: OrderBody,
    OwnType.ORDER_EDITED: OrderBody,
    OwnType.PAYMENT_CHANGED: PaymentBody,
    OwnType.ORDERS_COUNTED: OrderStatsBody,
    OwnType.PRODUCT_CHANGED: ProductBody,
    OwnType.STOCK_CHANGED: ProductsBody,
    OwnType.STOCK_LOW: ProductBody,
    OwnType.DISCOUNT_CHANGED: DiscountBody,
}
"""What the `data` of each of our own types is."""

LIFE_CYCLE: Final[Mapping[LifeCycleType, str]] = {
    LifeCycleType.CLIENT_CONNECTED: "ClientConnected",
    LifeCycleType.CLIENT_DISCONNECTED: "ClientDisconnected",
    LifeCycleType.CHANNEL_OCCUPIED: "ChannelChange",
    LifeCycleType.CHANNEL_VACATED: "ChannelChange",
}
"""What the `data` of each of the life-cycle types is called."""

SERVICE: Final = "Service"
"""Where the name of a model stands in the names of our own envelopes."""


def name_of(model: type[Body]) -> str:
    """What a model is called outside: `OrderBody` is an Order."""
    return model.__name__.removesuffix("Body")


def event(name: str) -> str:
    """The envelope on the exchange."""
    return f"{name}Event"


def publication(name: str) -> str:
    """The envelope that clients get."""
    return f"{name}Publication"


def schemas() -> dict[str, Schema]:
    """All by name: the models and what they consist of, and for each model and for other services the envelopes."""
    models = tuple(dict.fromkeys(DATA.values()))
    _, made = models_json_schema([(model, "serialization") for model in models], ref_template=f"{REFERENCE}{{model}}")
    found: dict[str, Schema] = {name.removesuffix("Body"): published(schema) for name, schema in made["$defs"].items()}
    for model in models:
        found.update(_own_envelopes(model, [kind.value for kind, data in DATA.items() if data is model]))
    found.update(_service_envelopes())
    found.update(_LIFE_CYCLE_DATA)
    found["LifeCycleEvent"] = _life_cycle_envelope()
    return found


def published(node: Any, *, is_open: bool = True) -> Any:
    """As others read it: without pydantic's titles, our names, and, if it `is_open`, the refusal of what is not known
    yet."""
    if isinstance(node, list):
        return [published(item, is_open=is_open) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {
        key: published(value, is_open=is_open)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
        and not (is_open and key == "additionalProperties" and value is False)
    }
    return {**kept, "$ref": kept["$ref"].removesuffix("Body")} if isinstance(kept.get("$ref"), str) else kept


def _text(attribute: str, description: str, **narrowed: object) -> Schema:
    longest = MAX_ATTRIBUTE_BYTES[attribute]
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": longest,
        "pattern": f"^{NO_CONTROL.pattern}$",
        "description": f"{description}; at most {longest} bytes",
        **narrowed,
    }


_MOMENT: Final[Schema] = TypeAdapter(Moment).json_schema(mode="serialization")
_ID: Final[Schema] = {"type": "string", "format": "uuid"}
_SUBJECTS: Final[Mapping[type[Body], Schema]] = {
    OrderBody: {**_ID, "description": "The id of what it happened to; events of one subject are in order"},
    PaymentBody: {**_ID, "description": "The id of the order that it is of; events of one subject are in order"},
    OrderStatsBody: {"const": ORDERS},
    ProductsBody: {"const": PRODUCTS},
    ProductBody: {**_ID, "description": "The id of the product; events of one subject are in order"},
    DiscountBody: {**_ID, "description": "The id of the discount; events of one subject are in order"},
}
_TRACEPARENT: Final[Schema] = {"type": "string", "description": "W3C trace context of what set the event off"}
_ENVELOPE: Final[Mapping[str, Schema]] = {
    "specversion": {"const": "1.0"},
    "id": _text("id", "With source it identifies the event: drop what you have had"),
    "source": _text("source", "Who emitted it"),
    "type": _text("type", "What happened"),
    "subject": _text("subject", "What it happened to; events of one subject are in order"),
    "time": {**_MOMENT, "description": "When it happened"},
    "data": {"description": "Any JSON value"},
}


def _own_envelopes(model: type[Body], kinds: list[str]) -> Mapping[str, Schema]:
    data = name_of(model)
    attributes = {
        **_ENVELOPE,
        "source": {"const": SOURCE},
        "type": {"enum": kinds},
        "subject": _SUBJECTS[model],
        "data": {"$ref": f"{REFERENCE}{data}"},
    }
    of_transport = {
        "recipient": {**_ID, "description": "The account that it concerns"},
        "traceparent": _TRACEPARENT,
    }
    return {
        event(data): _object("An event on the exchange", {**attributes, **of_transport}, list(attributes)),
        publication(data): _object("An event as live clients get it", attributes, list(attributes)),
    }


def _service_envelopes() -> Mapping[str, Schema]:
    attributes = {
        **_ENVELOPE,
        "source": _text("source", "Who emitted it", **{"not": {"const": SOURCE}}),
        "type": _text("type", "What happened", **{"not": {"enum": sorted(OWN_TYPES | LIFE_CYCLE_TYPES)}}),
    }
    of_transport = {
        "time": {
            "type": "string",
            "format": "date-time",
            "pattern": f"^{RFC3339.pattern}$",
            "description": "When it happened; without it, when it arrived",
        },
        "channel": _text("channel", "Who shall hear it; needed unless the type has a configured channel"),
        "traceparent": _TRACEPARENT,
        "datacontenttype": {"type": "string", "pattern": r"^(application/json|text/json|[^;\s]+\+json)\s*(;|$)"},
        "data_base64": False,
    }
    required = ["specversion", "id", "source", "type"]
    return {
        event(SERVICE): _object("Another service's event on the exchange", {**attributes, **of_transport}, required),
        publication(SERVICE): _object(
            "Another service's event as live clients get it", attributes, [*required, "time", "data"]
        ),
    }


def _life_cycle_envelope() -> Schema:
    data = [{"$ref": f"{REFERENCE}{name}"} for name in _LIFE_CYCLE_DATA]
    attributes = {
        **_ENVELOPE,
        "source": {"const": SOURCE},
        "type": {"enum": sorted(LIFE_CYCLE_TYPES)},
        "subject": {"type": "string", "description": "The client's id, or the channel"},
        "data": {"anyOf": data},
    }
    return _object(
        "What becomes of clients and channels, where [events] life_cycle wants it", attributes, list(attributes)
    )


def _object(description: str, properties: Mapping[str, object], required: list[str]) -> Schema:
    return {"type": "object", "description": description, "required": required, "properties": properties}


_STRING: Final[Schema] = {"type": "string"}
_CLIENT: Final[Mapping[str, Schema]] = {
    "client": _ID,
    "user": {"type": "string", "description": "Empty for an anonymous client"},
    "app_name": _STRING,
    "app_version": _STRING,
}
_CONNECTED: Final[Mapping[str, Schema]] = {**_CLIENT, "transport": _STRING, "protocol": {"enum": ["json", "protobuf"]}}
_DISCONNECTED: Final[Mapping[str, Schema]] = {
    **_CLIENT,
    "code": {"type": ["integer", "null"], "description": "The close code; null when the client went by itself"},
}
_LIFE_CYCLE_DATA: Final[Mapping[str, Schema]] = {
    "ClientConnected": _object("A client was welcomed", _CONNECTED, list(_CONNECTED)),
    "ClientDisconnected": _object("A client is gone", _DISCONNECTED, list(_DISCONNECTED)),
    "ChannelChange": _object("A channel has its first client, or lost its last", {"channel": _STRING}, ["channel"]),
}
