"""The contract of channels and events as an AsyncAPI 3.0 document, made of the tables and models that decide.

Only names that every client knows anyway are in it: no address, no user, no secret. docs/contract.md describes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from handlers.audience import Kind, channels_for, parse_channel
from handlers.events import SOURCE, Event, LifeCycleType, OwnType
from realtime.cloudevents import BINARY_PREFIXES, STRUCTURED
from realtime.event_schemas import DATA, LIFE_CYCLE, REFERENCE, SERVICE, Schema, event, name_of, publication, schemas
from server.version import VERSION

Node: TypeAlias = dict[str, Any]

EXCHANGE: Final = "exchange"
OTHERS: Final = "service"
OTHERS_BINARY: Final = "service.binary"

AUDIENCES: Final[Mapping[Kind, str]] = {
    Kind.ORDERS_FEED: "staff",
    Kind.ORDER: "the customer who placed the order, and staff",
    Kind.ORDER_STATS: "staff",
    Kind.LOW_STOCK: "staff",
    Kind.DISCOUNTS: "staff",
    Kind.PRODUCTS: "everybody who is signed in",
    Kind.PERSONAL: "its account, by the server",
}
"""Who may subscribe: `handlers.audience.may_join` in words."""

_OURS: Final = (*map(str, OwnType), *map(str, LifeCycleType))
_BINDING: Final = {"bindingVersion": "0.3.0"}


def document(exchange: str, websocket_path: str, *, has_rabbitmq: bool) -> Node:
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Orderwire",
            "version": VERSION,
            "description": "The domain's channels and events. Configured namespaces are the deployment's own.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": STRUCTURED,
        "servers": _servers(websocket_path, has_rabbitmq=has_rabbitmq),
        "channels": {**{_key(kind): _channel(kind) for kind in Kind}, EXCHANGE: _exchange(exchange)},
        "operations": {**{f"publish_{_key(kind)}": _publishing(kind) for kind in Kind}, **_operations()},
        "components": {"messages": _messages(), "schemas": schemas()},
    }


def heard_in(kind: OwnType) -> frozenset[Kind]:
    """The kinds of channel whose subscribers hear our own events of this type."""
    somebody = UUID(int=0)
    sample = Event("", SOURCE, kind, str(somebody), datetime.now(UTC), None, recipient=somebody)
    return frozenset(parse_channel(name).kind for name in channels_for(sample, {}))


def _servers(websocket_path: str, *, has_rabbitmq: bool) -> Node:
    return {
        "websocket": {
            "host": "{host}",
            "protocol": "ws",
            "pathname": websocket_path,
            "description": "Where this document came from; wss behind TLS. It speaks the Centrifuge client protocol: "
            "the first command is connect with an access token, and what is here the payload of a message is the "
            "data of a publication.",
            "variables": {"host": {"default": "127.0.0.1:8000"}},
        },
        "rabbitmq": {
            "host": "{host}",
            "protocol": "amqp",
            "protocolVersion": "0.9.1",
            "description": "The deployment's RabbitMQ; ask its operator for the address and a user."
            if has_rabbitmq
            else "None in this deployment: its queues are in PostgreSQL, until [broker] url is set.",
            "variables": {"host": {"default": "127.0.0.1:5672"}},
        },
    }


def _key(kind: Kind) -> str:
    return kind.name.lower()


def _channel(kind: Kind) -> Node:
    """The placeholder in `order:<order id>` is the parameter `order_id`."""
    placeholders = re.findall(r"<([a-z ]+)>", kind.value)
    address = kind.value
    for placeholder in placeholders:
        address = address.replace(f"<{placeholder}>", f"{{{placeholder.replace(' ', '_')}}}")
    channel = {
        "address": address,
        "description": f"Who may subscribe: {AUDIENCES[kind]}. Nobody publishes into it.",
        "servers": [{"$ref": "#/servers/websocket"}],
        "messages": _references({name: f"{name}.publication" for name in _heard(kind)}),
    }
    if placeholders:
        channel["parameters"] = {
            text.replace(" ", "_"): {"description": f"{text}: a UUID in lower case"} for text in placeholders
        }
    return channel


def _heard(kind: Kind) -> list[str]:
    return [*(own.value for own in OwnType if kind in heard_in(own)), OTHERS]


def _exchange(name: str) -> Node:
    return {
        "address": "{type}",
        "description": "Every event, by routing key; queues of other services bind to the types that they want. "
        "An event is identified by (source, id) and may come twice; those of one subject come in order.",
        "servers": [{"$ref": "#/servers/rabbitmq"}],
        "parameters": {"type": {"description": "The event's type"}},
        "messages": _references(
            {message: message for message in (*map(str, OwnType), *map(str, LifeCycleType), OTHERS, OTHERS_BINARY)}
        ),
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": name, "type": "topic", "durable": True, "autoDelete": False},
                **_BINDING,
            }
        },
    }


def _publishing(kind: Kind) -> Node:
    return {
        "action": "send",
        "title": f"What subscribers of {kind.value} hear",
        **_on(_key(kind), _heard(kind)),
    }


def _operations() -> Node:
    return {
        "emit": {
            "action": "send",
            "title": "Orderwire's own events",
            **_on(EXCHANGE, _OURS),
            "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True, "timestamp": True, **_BINDING}},
        },
        "accept": {
            "action": "receive",
            "title": "Events of other services, for live clients",
            **_on(EXCHANGE, (OTHERS, OTHERS_BINARY)),
            "bindings": {"amqp": {"ack": True, **_BINDING}},
        },
    }


def _on(channel: str, messages: Iterable[str]) -> Node:
    return {
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"} for message in messages],
    }


def _messages() -> Node:
    found: Node = {}
    for kind in OwnType:
        data = name_of(DATA[kind])
        found[kind.value] = {**_own(kind, event(data)), "bindings": {"amqp": {"messageType": kind.value, **_BINDING}}}
        found[f"{kind}.publication"] = _own(kind, publication(data))
    for told, data in LIFE_CYCLE.items():
        narrowed = {"properties": {"type": {"const": told.value}, "data": {"$ref": f"{REFERENCE}{data}"}}}
        payload = {"allOf": [{"$ref": f"{REFERENCE}LifeCycleEvent"}, narrowed]}
        found[told.value] = {"name": told.value, "payload": payload}
    envelope = event(SERVICE)
    found[OTHERS] = {"name": OTHERS, "payload": {"$ref": f"{REFERENCE}{envelope}"}}
    found[OTHERS_BINARY] = _binary(schemas()[envelope])
    found[f"{OTHERS}.publication"] = {"name": OTHERS, "payload": {"$ref": f"{REFERENCE}{publication(SERVICE)}"}}
    return found


def _own(kind: OwnType, envelope: str) -> Node:
    narrowed = {"type": "object", "properties": {"type": {"const": kind.value}}}
    return {"name": kind.value, "payload": {"allOf": [{"$ref": f"{REFERENCE}{envelope}"}, narrowed]}}


def _binary(envelope: Schema) -> Node:
    """CloudEvents' binary mode: the attributes in headers, the data in the body."""
    prefix, other_prefix = BINARY_PREFIXES
    attributes = {name: schema for name, schema in envelope["properties"].items() if not name.startswith("data")}
    return {
        "name": OTHERS,
        "title": f"Binary mode; {other_prefix} may stand for {prefix}",
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "required": [f"{prefix}{name}" for name in envelope["required"]],
            "properties": {f"{prefix}{name}": schema for name, schema in attributes.items()},
        },
        "payload": envelope["properties"]["data"],
    }


def _references(messages: Mapping[str, str]) -> Node:
    return {name: {"$ref": f"#/components/messages/{message}"} for name, message in messages.items()}
