"""The JSON bodies of orders. `OrderBody` is also the `data` of the events `order.*`."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Self
from uuid import UUID

import orjson
from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from handlers.discounts.schemas import Code
from handlers.errors import AppError
from handlers.idempotency import KEY_PATTERN, MAX_KEY_LENGTH
from handlers.orders.lists import OrderFilter, OrderSort
from handlers.orders.model import Action, Address, By, Change, Line, Order, Status
from handlers.ports.domain import Quantity, Snapshot
from handlers.products.schemas import TaxRate
from handlers.schemas import (
    Body,
    ById,
    Currency,
    Digits,
    Id,
    Instant,
    LiveListing,
    Moment,
    PageQuery,
    Part,
    Separated,
    StreamBody,
    Text,
    encode,
)

MAX_LINES = 50
MAX_QUANTITY = 1000

Money = Annotated[int, Field(ge=0, description="Minor units of the order's currency")]
Amount = Annotated[int, Field(ge=0, le=2**53), Digits]


class ItemRequest(Body):
    product_id: UUID
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY)]

    def wanted(self) -> Quantity:
        return Quantity(self.product_id, self.quantity)


class AddressRequest(Body):
    """Where an order is to go."""

    name: Annotated[Text, Field(min_length=1, max_length=200, description="Of who lives there")]
    line1: Annotated[Text, Field(min_length=1, max_length=200)]
    line2: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    postal_code: Annotated[Text, Field(min_length=1, max_length=20)] | None = None
    city: Annotated[Text, Field(min_length=1, max_length=100)]
    region: Annotated[Text, Field(min_length=1, max_length=100)] | None = None
    country: Annotated[str, Field(pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2")]

    def address(self) -> Address:
        return Address(**dict(self))


Note = Annotated[Text, Field(min_length=1, max_length=1000, description="Of the customer, for who packs and delivers")]


Items = Annotated[list[ItemRequest], Field(min_length=1, max_length=MAX_LINES)]


class PlaceOrderRequest(Body):
    items: Items
    discount_code: Code | None = None
    address: AddressRequest | None = None
    note: Note | None = None
    draft: Annotated[bool, Field(description="Only say what it would come to, and keep it")] = False


class PlaceOrder(PlaceOrderRequest):
    """An order to place as a command; the key is what REST has in the header Idempotency-Key."""

    idempotency_key: str | None = None


class EditOrderRequest(Body):
    """What is given is as given from now on, null is none; what is not given stays (RFC 7396). Items, of which there
    are always some, stay with null as well; they and the discount are a draft's to change."""

    items: Items | None = None
    discount_code: Code | None = None
    address: AddressRequest | None = None
    note: Note | None = None


class AddressBody(AddressRequest):
    """Where an order goes."""

    @classmethod
    def of(cls, address: Address) -> Self:
        return cls.trusted(**{name: getattr(address, name) for name in cls.model_fields})


@dataclass
class LineBody(Part):
    """One product in an order, as it was when the order was placed."""

    product_id: Id
    sku: str
    name: str
    unit_price: Money
    quantity: Annotated[int, Field(ge=1)]
    tax_rate: TaxRate
    discount: Annotated[Money, Field(description="This line's share of the order's")]
    total: Annotated[Money, Field(description="After the discount")]

    @classmethod
    def of(cls, line: Line) -> Self:
        return cls(
            str(line.product_id),
            line.sku,
            line.name,
            line.unit_price,
            line.quantity,
            line.tax_rate,
            line.discount,
            line.total,
        )


@dataclass
class TaxBody(Part):
    """Of all lines that are taxed at this rate."""

    rate: TaxRate
    net: Annotated[Money, Field(description="Without the tax")]
    amount: Money


class OrderBody(Body):
    """An order as everybody sees it. `version` grows by one with each change: keep what has the highest."""

    __slots__ = ("_json",)

    id: UUID
    number: Annotated[int, Field(ge=1, description="What people read out on the phone")]
    customer_id: UUID
    status: Status
    version: Annotated[int, Field(ge=1)]
    currency: Currency
    items: Annotated[list[LineBody], Field(json_schema_extra={"minItems": 1})]
    subtotal: Annotated[Money, Field(description="Of all lines, before the discount")]
    discount_code: str | None
    discount: Money
    taxes: Annotated[list[TaxBody], Field(description="By rate")]
    tax_included: Annotated[bool, Field(description="In the prices; or on top of them")]
    total: Annotated[Money, Field(description="What is to be paid")]
    refunded: Annotated[Money, Field(description="Given back of what was paid")]
    address: AddressBody | None
    note: Note | None
    created_at: Moment
    updated_at: Moment
    expires_at: Annotated[Moment | None, Field(description="When it expires, unless it is paid before")]

    @staticmethod
    @lru_cache(maxsize=512)
    def of(order: Order) -> OrderBody:
        """It goes into an answer, an event and list after list: to know it again takes a tenth of the time of making it
        again."""
        return OrderBody.trusted(
            id=order.id,
            number=order.number,
            customer_id=order.customer_id,
            status=order.status,
            version=order.version,
            currency=order.currency,
            items=[LineBody.of(line) for line in order.lines],
            subtotal=order.subtotal,
            discount_code=order.discount_code,
            discount=order.discount,
            taxes=[TaxBody(tax.rate, tax.net, tax.amount) for tax in order.taxes],
            tax_included=order.tax_included,
            total=order.total,
            refunded=order.refunded,
            address=None if order.address is None else AddressBody.of(order.address),
            note=order.note,
            created_at=order.created_at,
            updated_at=order.updated_at,
            expires_at=order.expires_at,
        )

    def encode(self) -> bytes:
        """Written once."""
        written: bytes | None = getattr(self, "_json", None)
        if written is None:
            written = encode(self.__dict__)
            object.__setattr__(self, "_json", written)
        return written

    def plain(self) -> object:
        return orjson.Fragment(self.encode())


class AdvanceOrder(ById):
    """An order to move on, of this version where one is given; REST has that in the header If-Match."""

    version: Annotated[int, Field(ge=1)] | None = None


class EditOrder(EditOrderRequest, AdvanceOrder):
    """An order to edit, of this version where one is given."""


class HistoryOf(ById, PageQuery):
    """Which page of the history of an order."""


class ChangeBody(Body):
    """What made a version of an order. Of what staff did, only staff are told whose `account_id` it was."""

    version: Annotated[int, Field(ge=1)]
    action: Action
    status: Status
    at: Moment
    by: By
    account_id: UUID | None

    @classmethod
    def of(cls, change: Change) -> Self:
        return cls(
            version=change.version,
            action=change.action,
            status=change.status,
            at=change.at,
            by=change.by,
            account_id=change.account_id,
        )


_SEARCHED = (
    "Words of the customer's name or e-mail address, the products' names or SKUs or the address; or the order's number"
)
_FIELDS = tuple(OrderBody.model_fields)
_ALWAYS = frozenset({"id", "version"})  # without them nobody could tell what changes later


def _field(name: str) -> str:
    if name not in _FIELDS:
        raise PydanticCustomError("no_field", "Input should be the name of a field of an order")
    return name


OrderField = Annotated[str, AfterValidator(_field), Field(json_schema_extra={"enum": list(_FIELDS)})]


class ExportQuery(Body):
    """Which orders, and what of them. All that is given has to be so."""

    status: Annotated[list[Status], Field(min_length=1, max_length=len(Status)), Separated] | None = None
    customer_id: UUID | None = None
    created_from: Annotated[Instant | None, Field(description="Placed then or later")] = None
    created_before: Annotated[Instant | None, Field(description="Placed earlier")] = None
    total_from: Annotated[Amount | None, Field(description="Minor units of whatever currency; at least")] = None
    total_to: Annotated[Amount | None, Field(description="At most")] = None
    q: Annotated[Text, Field(min_length=1, max_length=200, description=_SEARCHED)] | None = None
    fields: Annotated[list[OrderField], Field(min_length=1, max_length=len(_FIELDS)), Separated] | None = None

    def filter(self) -> OrderFilter:
        return OrderFilter(
            self.customer_id,
            frozenset(self.status or ()),
            self.created_from,
            self.created_before,
            self.total_from,
            self.total_to,
            self.q,
        )

    def included(self) -> set[str] | None:
        """The fields of an order that are sent; None is all."""
        return None if self.fields is None else {*_ALWAYS, *self.fields}


class OrderQuery(PageQuery, ExportQuery):
    """Which orders, in which order, and what of them. All that is given has to be so."""

    sort: Annotated[OrderSort, Field(description="With a minus from the largest down")] = OrderSort.NEWEST


def _some_of(schema: dict[str, Any]) -> None:
    schema["required"] = sorted(_ALWAYS)


class OrderPartBody(OrderBody):
    """The `fields` of an order that were asked for, and always `id` and `version`."""

    model_config = ConfigDict(json_schema_extra=_some_of)


def body_of(order: Order, fields: Set[str] | None) -> OrderBody:
    """With these fields; None is all."""
    body = OrderBody.of(order)
    if fields is None:
        return body
    return OrderPartBody.trusted(**{name: value for name, value in body if name in fields})


class ImportLine(PlaceOrderRequest):
    """An order to place for a customer. A line that is sent again with the same key gets the first answer."""

    customer_id: UUID
    key: Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH, pattern=KEY_PATTERN)] | None = None


class ImportedOrderBody(Body):
    """What was placed; `replayed`: by an earlier line with this key."""

    id: UUID
    number: int
    status: Status
    version: int
    currency: Currency
    total: Money
    replayed: bool = False

    @classmethod
    def of(cls, order: OrderBody) -> Self:
        return cls(
            id=order.id,
            number=order.number,
            status=order.status,
            version=order.version,
            currency=order.currency,
            total=order.total,
        )


class FaultBody(Body):
    pointer: str
    code: str
    detail: str


class RefusedLineBody(Body):
    """Why not, as a problem says it; `retryable`: the same line may succeed later."""

    code: str
    title: str
    detail: str | None
    retryable: bool
    errors: list[FaultBody]

    @classmethod
    def of(cls, error: AppError) -> Self:
        faults = [FaultBody(pointer=each.pointer, code=each.code, detail=each.detail) for each in error.faults]
        return cls(
            code=error.code,
            title=error.title(),
            detail=error.detail or None,
            retryable=error.retryable,
            errors=faults,
        )


class ImportedBody(Body):
    """What became of a line, counted from 1 without those that are empty: an order or an error."""

    line: Annotated[int, Field(ge=1)]
    order: ImportedOrderBody | None
    error: RefusedLineBody | None


class LiveOrderList(LiveListing[OrderBody | OrderPartBody]):
    """A page of orders, with the stream that tells how they change; each whole unless `fields` were asked for."""


class LiveOrderBody(OrderBody):
    """An order, with the stream that tells how it goes on."""

    stream: StreamBody

    @classmethod
    def at(cls, snapshot: Snapshot[Order]) -> LiveOrderBody:
        order = OrderBody.of(snapshot.state)
        return cls.trusted(**dict(order), stream=StreamBody.of(snapshot))
