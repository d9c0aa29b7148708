"""An order: its values, its states and the legal transitions between them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from handlers.errors import IllegalTransition
from handlers.events import OwnType


class Status(StrEnum):
    PLACED = "placed"
    PAID = "paid"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


class Action(StrEnum):
    """What moves an order from one status to another."""

    PAY = "pay"
    SHIP = "ship"
    DELIVER = "deliver"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Transition:
    sources: frozenset[Status]
    target: Status
    event: OwnType
    staff_only: bool


TRANSITIONS = {
    Action.PAY: Transition(frozenset({Status.PLACED}), Status.PAID, OwnType.ORDER_PAID, staff_only=True),
    Action.SHIP: Transition(frozenset({Status.PAID}), Status.SHIPPED, OwnType.ORDER_SHIPPED, staff_only=True),
    Action.DELIVER: Transition(frozenset({Status.SHIPPED}), Status.DELIVERED, OwnType.ORDER_DELIVERED, staff_only=True),
    Action.CANCEL: Transition(
        frozenset({Status.PLACED, Status.PAID}), Status.CANCELLED, OwnType.ORDER_CANCELLED, staff_only=False
    ),
}


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
    """`version` counts from 1 and grows by one with each change; `number` is what people read out on the phone."""

    id: UUID
    number: int
    customer_id: UUID
    status: Status
    version: int
    currency: str
    lines: tuple[Line, ...]
    created_at: datetime
    updated_at: datetime

    @property
    def total(self) -> int:
        """In minor units of `currency`."""
        return sum(line.total for line in self.lines)

    def after(self, action: Action, now: datetime) -> Order:
        """This order once `action` was taken; raises IllegalTransition where it may not be."""
        transition = TRANSITIONS[action]
        if self.status not in transition.sources:
            raise IllegalTransition(f"An order that is {self.status} cannot be changed by '{action}'.")
        return replace(self, status=transition.target, version=self.version + 1, updated_at=now)
