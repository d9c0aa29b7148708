"""An event: something that happened, as a CloudEvents 1.0 envelope.

Source: CloudEvents 1.0.2 core specification, JSON event format and the distributed tracing extension.
docs/events.md is the contract that other services read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from handlers.clock import rfc3339
from handlers.ids import new_id
from handlers.schemas import Body, encode

SOURCE = "/orderwire"
"""The `source` of our own events. Identity of an event is (source, id)."""

ORDERS = "orders"
PRODUCTS = "products"
"""The `subject` of what is told of all orders, or several products, together."""

MAX_EVENT_BYTES = 256 * 1024


class OwnType(StrEnum):
    """The types that only Orderwire itself may emit."""

    ORDER_DRAFTED = "order.drafted"
    ORDER_CREATED = "order.created"
    ORDER_PAID = "order.paid"
    ORDER_PACKED = "order.packed"
    ORDER_SHIPPED = "order.shipped"
    ORDER_DELIVERED = "order.delivered"
    ORDER_CANCELLED = "order.cancelled"
    ORDER_EXPIRED = "order.expired"
    ORDER_PAYMENT_FAILED = "order.payment_failed"
    ORDER_RETURNED = "order.returned"
    ORDER_REFUNDED = "order.refunded"
    ORDER_REFUND_FAILED = "order.refund_failed"
    ORDER_EDITED = "order.edited"
    PAYMENT_CHANGED = "payment.changed"
    ORDERS_COUNTED = "orders.counted"
    PRODUCT_CHANGED = "product.changed"
    STOCK_CHANGED = "stock.changed"
    STOCK_LOW = "stock.low"
    DISCOUNT_CHANGED = "discount.changed"


class LifeCycleType(StrEnum):
    """What only Orderwire itself may tell of clients and channels. Live clients hear it where that is configured."""

    CLIENT_CONNECTED = "client.connected"
    CLIENT_DISCONNECTED = "client.disconnected"
    CHANNEL_OCCUPIED = "channel.occupied"
    CHANNEL_VACATED = "channel.vacated"


LIFE_CYCLE_TYPES = frozenset(kind.value for kind in LifeCycleType)
OWN_TYPES = frozenset(kind.value for kind in OwnType)
_TYPES_OF_ORDERS = OWN_TYPES - {
    OwnType.ORDERS_COUNTED,
    OwnType.PRODUCT_CHANGED,
    OwnType.STOCK_CHANGED,
    OwnType.STOCK_LOW,
    OwnType.DISCOUNT_CHANGED,
}


@dataclass(frozen=True, slots=True)
class Cause:
    """What sets a change off: the moment it is dated to (aware, UTC) and the trace that it belongs to."""

    now: datetime
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """`subject` is also the ordering key: events of one subject stay in order. `time` is aware, UTC.

    `data` is any JSON value; for our own types the entity with its version and absolute values, never a difference, as
    a `Body` until it is encoded.
    `recipient` (our own types) and `channel` (other services' types) are extension attributes that name the audience.
    """

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    data: Any
    recipient: UUID | None = None
    channel: str | None = None
    traceparent: str | None = None

    @classmethod
    def own(cls, kind: OwnType, subject: str, data: Body, cause: Cause, recipient: UUID | None = None) -> Event:
        """Of ours, that has just happened."""
        return cls(
            id=str(new_id(cause.now)),
            source=SOURCE,
            type=kind,
            subject=subject,
            time=cause.now,
            data=data,
            recipient=recipient,
            traceparent=cause.traceparent,
        )

    @property
    def is_own_type(self) -> bool:
        return self.type in OWN_TYPES

    @property
    def is_of_order(self) -> bool:
        """Of our own types those that tell of one order, whose id is then the subject."""
        return self.type in _TYPES_OF_ORDERS

    @property
    def is_of_life_cycle(self) -> bool:
        return self.type in LIFE_CYCLE_TYPES

    def encode(self) -> bytes:
        """The envelope in structured JSON form, on one line."""
        envelope: dict[str, Any] = {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": rfc3339(self.time),
        }
        if self.recipient is not None:
            envelope["recipient"] = str(self.recipient)
        if self.channel is not None:
            envelope["channel"] = self.channel
        if self.traceparent is not None:
            envelope["traceparent"] = self.traceparent
        envelope["data"] = self.data
        return encode(envelope)
