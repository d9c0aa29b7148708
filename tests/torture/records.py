"""The four records of a run, as values: replies, orders, streams, and what each client heard.

Nothing in here knows how they were gathered, so that the comparison in `verdict` can be tested on made-up records.
Ids are texts, as they stand on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

ORDERS_FEED = "orders:feed"


def order_channel(order_id: str) -> str:
    return f"order:{order_id}"


def personal_channel(customer_id: str) -> str:
    return f"#{customer_id}"


class Change(NamedTuple):
    """One committed state of an order or a payment: what exactly one event tells."""

    id: str
    version: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A 2xx that the load generator got for the request `key`. Refusals promise nothing, so nobody records them."""

    key: str
    action: str
    change: Change


@dataclass(frozen=True, slots=True)
class OrderRow:
    """`quantities` maps product id to pieces, as pairs."""

    id: str
    customer_id: str
    status: str
    version: int
    quantities: tuple[tuple[str, int], ...]

    @property
    def channels(self) -> tuple[str, ...]:
        """Where each change of this order has to be published."""
        return (ORDERS_FEED, order_channel(self.id), personal_channel(self.customer_id))


@dataclass(frozen=True, slots=True)
class PaymentRow:
    id: str
    order_id: str
    status: str
    version: int

    @property
    def channels(self) -> tuple[str, ...]:
        return (order_channel(self.order_id),)


Row = OrderRow | PaymentRow


@dataclass(frozen=True, slots=True)
class StockRow:
    """`told`: what of it everybody was told last; None: nothing."""

    product_id: str
    before: int
    after: int
    told: int | None


@dataclass(frozen=True, slots=True)
class Publication:
    """`status` is that of the order or the payment, as the event tells it."""

    offset: int
    event_id: str
    change: Change
    status: str


@dataclass(frozen=True, slots=True)
class Stream:
    channel: str
    epoch: str
    top: int
    publications: tuple[Publication, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """A subscribe reply. `recovered` is None when the client came without a position."""

    offset: int
    epoch: str
    recovered: bool | None


@dataclass(frozen=True, slots=True)
class Told:
    """The server ended the subscription or refused it for good: the client would have to reload."""

    code: int


LogEntry = Joined | Publication | Told


@dataclass(frozen=True, slots=True)
class Log:
    """What one client heard on one channel, in the order of hearing, over all its connections."""

    client: str
    channel: str
    entries: tuple[LogEntry, ...]


@dataclass(frozen=True, slots=True)
class Records:
    """`unanswered` are the keys of requests that got no definite answer although they were repeated to the end;
    `counted`: how many orders of each status the dashboards were told last."""

    replies: Sequence[Reply]
    unanswered: Sequence[str]
    orders: Sequence[OrderRow]
    payments: Sequence[PaymentRow]
    counted: Mapping[str, int]
    stock: Sequence[StockRow]
    streams: Sequence[Stream]
    logs: Sequence[Log]
