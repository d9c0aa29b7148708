"""Who may hear what: event -> channels, and may this actor join a channel?

The security-critical page. Pure functions, denied by default, property-tested in tests/unit/handlers/test_audience.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from handlers.actor import Actor
from handlers.events import Event, OwnType

MAX_CHANNEL_LENGTH = 255  # ASCII characters; PROTOCOL.md, section 6
DOMAIN_NAMESPACES = frozenset({"orders", "order", "stats", "stock", "discounts", "products"})
"""What stands before the first colon of our channels."""


class Kind(Enum):
    """The kinds of channel there are."""

    ORDERS_FEED = "orders:feed"
    ORDER = "order:<order id>"
    ORDER_STATS = "stats:orders"
    LOW_STOCK = "stock:low"
    DISCOUNTS = "discounts:all"
    PRODUCTS = "products:all"
    PERSONAL = "#<account id>"


@dataclass(frozen=True, slots=True)
class Channel:
    kind: Kind
    name: str
    id: UUID | None = None  # of the order or the account; None for what there is one of


class UnknownChannel(ValueError):
    """No channel of ours has this name."""


def is_channel_name(text: str) -> bool:
    return 0 < len(text) <= MAX_CHANNEL_LENGTH and text.isascii() and text.isprintable()


def orders_feed() -> str:
    return "orders:feed"


def order_stats() -> str:
    return "stats:orders"


def low_stock() -> str:
    return "stock:low"


def discounts() -> str:
    return "discounts:all"


def products() -> str:
    return "products:all"


def order_channel(order_id: UUID) -> str:
    return f"order:{order_id}"


def personal_channel(account_id: UUID) -> str:
    return f"#{account_id}"


_FIXED = {
    orders_feed(): Kind.ORDERS_FEED,
    order_stats(): Kind.ORDER_STATS,
    low_stock(): Kind.LOW_STOCK,
    discounts(): Kind.DISCOUNTS,
    products(): Kind.PRODUCTS,
}
_OF_ONE_TYPE = {
    OwnType.ORDERS_COUNTED: order_stats(),
    OwnType.STOCK_LOW: low_stock(),
    OwnType.DISCOUNT_CHANGED: discounts(),
    OwnType.PRODUCT_CHANGED: products(),
    OwnType.STOCK_CHANGED: products(),
}


def parse_channel(name: str) -> Channel:
    """Raise UnknownChannel unless `name` is, to the letter, the one spelling of a channel of ours."""
    if name in _FIXED:
        return Channel(_FIXED[name], name)
    for prefix, kind in (("order:", Kind.ORDER), ("#", Kind.PERSONAL)):
        if name.startswith(prefix):
            return Channel(kind, name, _canonical_uuid(name.removeprefix(prefix)))
    raise UnknownChannel(name)


def may_join(actor: Actor, channel: Channel, *, owner: UUID | None) -> bool:
    """May `actor` subscribe to `channel`? `owner` is who placed the order, None if there is no such order."""
    match channel.kind:
        case Kind.ORDERS_FEED | Kind.ORDER_STATS | Kind.LOW_STOCK | Kind.DISCOUNTS:
            return actor.is_staff
        case Kind.PRODUCTS:
            return True
        case Kind.ORDER:
            return owner is not None and (actor.is_staff or actor.account_id == owner)
        case Kind.PERSONAL:
            return channel.id == actor.account_id
    return False


def channels_for(event: Event, configured: Mapping[str, str]) -> tuple[str, ...]:
    """The channels whose subscribers hear `event`; empty when nobody is addressed.

    Our own types have fixed audiences. Another service's event names its channel in the extension attribute
    `channel`, or `configured` maps its type to one ("{subject}" stands for the event's subject). Whether there is such
    a channel is not looked at.
    """
    if event.type in _OF_ONE_TYPE:
        return (_OF_ONE_TYPE[OwnType(event.type)],)
    if event.type == OwnType.PAYMENT_CHANGED:
        return (order_channel(UUID(event.subject)),)
    if event.is_of_order:
        own = (orders_feed(), order_channel(UUID(event.subject)))
        return own if event.recipient is None else (*own, personal_channel(event.recipient))
    template = event.channel or configured.get(event.type)
    if template is None:
        return ()
    return (template if event.channel else template.replace("{subject}", event.subject),)


def _canonical_uuid(text: str) -> UUID:
    try:
        parsed = UUID(text)
    except ValueError:
        raise UnknownChannel(text) from None
    if str(parsed) != text:
        raise UnknownChannel(text)
    return parsed
