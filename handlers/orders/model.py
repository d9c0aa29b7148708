"""An order: its values, its states and the legal transitions between them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias
from uuid import UUID

from handlers.actor import Actor
from handlers.errors import IllegalTransition
from handlers.events import OwnType
from handlers.pricing import Tax, taxes


class Status(StrEnum):
    DRAFT = "draft"
    PLACED = "placed"
    PAYMENT_FAILED = "payment_failed"
    PAID = "paid"
    PACKED = "packed"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    RETURNED = "returned"
    REFUNDED = "refunded"


class Action(StrEnum):
    """What happens to an order. Drafting or placing makes it, editing changes what is in it, a refund that failed at
    most what was given back; each of the others moves it from one status to another, as placing does with a draft."""

    DRAFT = "draft"
    PLACE = "place"
    PAY = "pay"
    DECLINE = "decline"
    PACK = "pack"
    SHIP = "ship"
    DELIVER = "deliver"
    CANCEL = "cancel"
    EXPIRE = "expire"
    RETURN = "return"
    REFUND = "refund"
    REFUND_FAILED = "refund_failed"
    EDIT = "edit"


class By(StrEnum):
    """Who takes an action."""

    CUSTOMER = "customer"
    STAFF = "staff"
    TIME = "time"
    PROVIDER = "provider"

    @classmethod
    def of(cls, actor: Actor) -> By:
        return By.STAFF if actor.is_staff else By.CUSTOMER


_ANYBODY = frozenset({By.CUSTOMER, By.STAFF})
_STAFF = frozenset({By.STAFF})
_TIME = frozenset({By.TIME})
_PROVIDER = frozenset({By.PROVIDER})


@dataclass(frozen=True, slots=True)
class Transition:
    """From each of the sources, with who may do it there, to the target. From those in `gives_back` the pieces return
    to stock."""

    sources: Mapping[Status, Set[By]]
    target: Status
    event: OwnType
    gives_back: Set[Status] = frozenset()

    def is_of(self, by: By) -> bool:
        """Is it something that they do at all?"""
        return any(by in allowed for allowed in self.sources.values())


UNPAID = frozenset({Status.PLACED, Status.PAYMENT_FAILED})
"""Orders of these statuses can be paid for; until then they may expire."""

TRANSITIONS = {
    Action.PLACE: Transition({Status.DRAFT: _ANYBODY}, Status.PLACED, OwnType.ORDER_CREATED),
    Action.PAY: Transition(
        {Status.PLACED: _STAFF | _PROVIDER, Status.PAYMENT_FAILED: _STAFF | _PROVIDER}, Status.PAID, OwnType.ORDER_PAID
    ),
    Action.DECLINE: Transition(
        {Status.PLACED: _PROVIDER, Status.PAYMENT_FAILED: _PROVIDER},
        Status.PAYMENT_FAILED,
        OwnType.ORDER_PAYMENT_FAILED,
    ),
    Action.PACK: Transition({Status.PAID: _STAFF}, Status.PACKED, OwnType.ORDER_PACKED),
    Action.SHIP: Transition({Status.PACKED: _STAFF}, Status.SHIPPED, OwnType.ORDER_SHIPPED),
    Action.DELIVER: Transition({Status.SHIPPED: _STAFF}, Status.DELIVERED, OwnType.ORDER_DELIVERED),
    Action.CANCEL: Transition(
        {
            Status.DRAFT: _ANYBODY,
            Status.PLACED: _ANYBODY,
            Status.PAYMENT_FAILED: _ANYBODY,
            Status.PAID: _STAFF,
            Status.PACKED: _STAFF,
        },
        Status.CANCELLED,
        OwnType.ORDER_CANCELLED,
        gives_back=UNPAID | {Status.PAID, Status.PACKED},
    ),
    Action.EXPIRE: Transition(
        {Status.DRAFT: _TIME, Status.PLACED: _TIME, Status.PAYMENT_FAILED: _TIME},
        Status.EXPIRED,
        OwnType.ORDER_EXPIRED,
        gives_back=UNPAID,
    ),
    Action.RETURN: Transition(
        {Status.SHIPPED: _STAFF, Status.DELIVERED: _STAFF},
        Status.RETURNED,
        OwnType.ORDER_RETURNED,
        gives_back={Status.SHIPPED, Status.DELIVERED},
    ),
    # Of all that was paid; of a part of it, or of what is over already, the status stays. What is on its way or has
    # arrived does not come back by itself.
    Action.REFUND: Transition(
        dict.fromkeys((Status.PAID, Status.PACKED, Status.SHIPPED, Status.DELIVERED, Status.RETURNED), _PROVIDER),
        Status.REFUNDED,
        OwnType.ORDER_REFUNDED,
        gives_back={Status.PAID, Status.PACKED},
    ),
}

EDITABLE = UNPAID | {Status.DRAFT, Status.PAID}
"""Until it is packed, an order's address and note can be edited; all of it while it is a draft."""

REQUESTED = tuple(action for action, each in TRANSITIONS.items() if each.is_of(By.STAFF) and action is not Action.PLACE)
"""The transitions that people ask for and that need nothing but the order. Placing a draft also takes the pieces."""


class Line(NamedTuple):
    """One product in an order. `unit_price` is the price at placing, in minor units of the order's currency; `tax_rate`
    is in basis points; `discount` is the line's share of what is taken off the order."""

    product_id: UUID
    sku: str
    name: str
    unit_price: int
    quantity: int
    tax_rate: int = 0
    discount: int = 0

    @property
    def subtotal(self) -> int:
        return self.unit_price * self.quantity

    @property
    def total(self) -> int:
        return self.subtotal - self.discount


@dataclass(frozen=True, slots=True)
class Address:
    """Where an order goes. `country` is ISO 3166-1 alpha-2; what a country has not, is None."""

    name: str
    line1: str
    line2: str | None
    postal_code: str | None
    city: str
    region: str | None
    country: str


@dataclass(frozen=True, slots=True)
class Order:
    """`version` counts from 1 and grows by one with each change; `number` is what people read out on the phone. Unless
    it is paid before, it expires at `expires_at`; never if that is None. `refunded` is what was given back of the
    total that was paid. `note` is the customer's. `tax_included`: whether prices have the taxes in them, or these come
    on top. What is a draft has no pieces, and is at the prices of its last change."""

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
    refunded: int = 0
    address: Address | None = None
    note: str | None = None
    discount_code: str | None = None
    tax_included: bool = True

    @property
    def subtotal(self) -> int:
        """Of all lines, before the discount; in minor units of `currency`, as all that follows."""
        return sum(line.subtotal for line in self.lines)

    @property
    def discount(self) -> int:
        return sum(line.discount for line in self.lines)

    @property
    def taxes(self) -> Sequence[Tax]:
        return taxes([(line.tax_rate, line.total) for line in self.lines], included=self.tax_included)

    @property
    def total(self) -> int:
        """What is to be paid."""
        on_top = 0 if self.tax_included else sum(tax.amount for tax in self.taxes)
        return sum(line.total for line in self.lines) + on_top

    def after(self, action: Action, now: datetime) -> Order:
        """This order once `action` was taken; raises IllegalTransition where it may not be."""
        transition = TRANSITIONS.get(action)
        if transition is None or self.status not in transition.sources:
            raise IllegalTransition(f"An order that is {self.status} cannot be changed by '{action}'.")
        return replace(
            self,
            status=transition.target,
            version=self.version + 1,
            updated_at=now,
            expires_at=self.expires_at if transition.target in UNPAID else None,
        )

    def edited(self, address: Address | None, note: str | None, now: datetime) -> Order:
        """This order with another address or note; raises IllegalTransition once it is packed or over."""
        if self.status not in EDITABLE:
            raise IllegalTransition(f"An order that is {self.status} cannot be edited.")
        return replace(self, address=address, note=note, version=self.version + 1, updated_at=now)

    def refuse_unless_draft(self) -> None:
        """What is in an order stays as it was placed. Raises IllegalTransition."""
        if self.status is not Status.DRAFT:
            raise IllegalTransition(f"What is in an order that is {self.status} cannot be changed.")

    def given_back(self, amount: int, now: datetime) -> Order:
        """This order once so much more of what was paid was given back."""
        refunded = self.refunded + amount
        is_all = refunded == self.total and self.status in TRANSITIONS[Action.REFUND].sources
        return replace(
            self,
            status=Status.REFUNDED if is_all else self.status,
            version=self.version + 1,
            updated_at=now,
            refunded=refunded,
        )

    def not_given_back(self, amount: int, now: datetime) -> Order:
        """This order once a refund has failed, with which so much had been given back. The status stays: its pieces may
        be somebody else's by now."""
        return replace(self, version=self.version + 1, updated_at=now, refunded=self.refunded - amount)


Doer: TypeAlias = Actor | Literal[By.TIME, By.PROVIDER]
"""Whose account it is that does something, or what does so without one."""


@dataclass(frozen=True, slots=True)
class Change:
    """One line of an order's history: the action that made this version of it, and whose it was; nobody's where time
    or the payment provider has done it."""

    version: int
    action: Action
    status: Status
    at: datetime
    by: By
    account_id: UUID | None

    @classmethod
    def of(cls, order: Order, action: Action, doer: Doer) -> Change:
        """What made `order` what it is."""
        by, account_id = (doer, None) if isinstance(doer, By) else (By.of(doer), doer.account_id)
        return cls(order.version, action, order.status, order.updated_at, by, account_id)
