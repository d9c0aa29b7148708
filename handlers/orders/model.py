"""An order: its values, its states and the legal transitions between them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from handlers.actor import Actor
from handlers.errors import IllegalTransition
from handlers.events import OwnType


class Status(StrEnum):
    PLACED = "placed"
    PAID = "paid"
    PACKED = "packed"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Action(StrEnum):
    """What happens to an order. Placing makes it; each of the others moves it from one status to another."""

    PLACE = "place"
    PAY = "pay"
    PACK = "pack"
    SHIP = "ship"
    DELIVER = "deliver"
    CANCEL = "cancel"
    EXPIRE = "expire"


class By(StrEnum):
    """Who takes an action; staff may also do what customers may."""

    CUSTOMER = "customer"
    STAFF = "staff"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Transition:
    """From each of the sources, with who may do it there, to the target. `gives_back`: the pieces return to stock."""

    sources: Mapping[Status, By]
    target: Status
    event: OwnType
    gives_back: bool = False


TRANSITIONS = {
    Action.PAY: Transition({Status.PLACED: By.STAFF}, Status.PAID, OwnType.ORDER_PAID),
    Action.PACK: Transition({Status.PAID: By.STAFF}, Status.PACKED, OwnType.ORDER_PACKED),
    Action.SHIP: Transition({Status.PACKED: By.STAFF}, Status.SHIPPED, OwnType.ORDER_SHIPPED),
    Action.DELIVER: Transition({Status.SHIPPED: By.STAFF}, Status.DELIVERED, OwnType.ORDER_DELIVERED),
    Action.CANCEL: Transition(
        {Status.PLACED: By.CUSTOMER, Status.PAID: By.STAFF, Status.PACKED: By.STAFF},
        Status.CANCELLED,
        OwnType.ORDER_CANCELLED,
        gives_back=True,
    ),
    Action.EXPIRE: Transition({Status.PLACED: By.TIME}, Status.EXPIRED, OwnType.ORDER_EXPIRED, gives_back=True),
}

REQUESTED = tuple(action for action, each in TRANSITIONS.items() if By.TIME not in each.sources.values())
"""The transitions that people ask for."""


@dataclass(frozen=True, slots=True)
class Line:
    """One product in an order. `unit_price` is the price at placing, in minor units of the order's currency."""

    product_id: UUID
    sku: str
    name: str
    unit_price: int
    quantity: int

    @property
    def total(self) -> int:
        return self.unit_price * self.quantity


@dataclass(frozen=True, slots=True)
class Order:
    """`version` counts from 1 and grows by one with each change; `number` is what people read out on the phone. Unless
    it is paid before, it expires at `expires_at`; never if that is None."""

    id: UUID
    number: int
    customer_id: UUID
    status: Status
    version: int
    currency: str
    lines: tuple[Line, ...]
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None

    @property
    def total(self) -> int:
        """In minor units of `currency`."""
        return sum(line.total for line in self.lines)

    def after(self, action: Action, now: datetime) -> Order:
        """This order once `action` was taken; raises IllegalTransition where it may not be."""
        transition = TRANSITIONS.get(action)
        if transition is None or self.status not in transition.sources:
            raise IllegalTransition(f"An order that is {self.status} cannot be changed by '{action}'.")
        return replace(self, status=transition.target, version=self.version + 1, updated_at=now, expires_at=None)


@dataclass(frozen=True, slots=True)
class Change:
    """One line of an order's history: the action that made this version of it, and whose it was; nobody's where time
    has done it."""

    version: int
    action: Action
    status: Status
    at: datetime
    by: By
    account_id: UUID | None

    @classmethod
    def of(cls, order: Order, action: Action, actor: Actor | None) -> Change:
        """What made `order` what it is; `actor` is None for what time does."""
        if actor is None:
            return cls(order.version, action, order.status, order.updated_at, By.TIME, None)
        by = By.STAFF if actor.is_staff else By.CUSTOMER
        return cls(order.version, action, order.status, order.updated_at, by, actor.account_id)
