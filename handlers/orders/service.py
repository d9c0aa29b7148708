"""The use cases of orders: load, decide, save, emit. Whose order it is not, does not learn that it is there.

Those that change an order return it as its event tells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from handlers.actor import Actor
from handlers.audience import order_channel, orders_feed, personal_channel
from handlers.discounts import service as discounts
from handlers.errors import Fault, Forbidden, IllegalTransition, Invalid, NotFound, OutOfStock, VersionMismatch
from handlers.events import Cause, Event, OwnType
from handlers.ids import new_id
from handlers.orders.lists import Mark, OrderFilter, OrderSort
from handlers.orders.model import TRANSITIONS, UNPAID, Action, Address, By, Change, Doer, Line, Order, Status
from handlers.orders.schemas import OrderBody
from handlers.payments import ledger
from handlers.ports.domain import Quantity, Snapshot, UnitOfWork
from handlers.pricing import spread
from handlers.products.model import Product
from handlers.products.service import tell_if_low
from handlers.rules import Rules


@dataclass(frozen=True, slots=True)
class OrderPage:
    """`next` is where to continue, None at the end."""

    orders: Sequence[Order]
    next: Mark | None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """`next` is the version to continue after, None at the end."""

    changes: Sequence[Change]
    next: int | None


async def place(
    uow: UnitOfWork,
    actor: Actor,
    items: Sequence[Quantity],
    cause: Cause,
    rules: Rules,
    *,
    customer_id: UUID | None = None,
    discount_code: str | None = None,
    address: Address | None = None,
    note: str | None = None,
    as_draft: bool = False,
) -> OrderBody:
    """Take the pieces out of stock at today's prices and order them for `actor`, or a customer that staff name. Staff
    are told of a product of which no more than a few are left with that. A draft takes nothing, and says what that
    would come to.

    Raises Invalid for a product named twice, one that does not exist or is not for sale, products of several
    currencies, or a discount that cannot be used, and OutOfStock; each with a fault for each. Also Invalid for a
    customer that is not there.
    """
    if customer_id is not None:
        await _find_customer(uow, actor, customer_id)
    lines, currency = await _contents(uow, items, discount_code, cause, rules, is_placed=not as_draft)
    order = Order(
        id=new_id(cause.now),
        number=0,  # storage gives the number
        customer_id=customer_id or actor.account_id,
        status=Status.DRAFT if as_draft else Status.PLACED,
        version=1,
        currency=currency,
        lines=tuple(lines),
        created_at=cause.now,
        updated_at=cause.now,
        expires_at=rules.expiry_of_draft(cause.now) if as_draft else rules.expiry_of(cause.now),
        address=address,
        note=note,
        discount_code=discount_code,
        tax_included=rules.prices_include_tax,
    )
    action, kind = (Action.DRAFT, OwnType.ORDER_DRAFTED) if as_draft else (Action.PLACE, OwnType.ORDER_CREATED)
    order = await uow.orders.add(order, Change.of(order, action, actor))
    return await _tell(uow, kind, order, cause)


async def place_draft(
    uow: UnitOfWork, actor: Actor, order_id: UUID, cause: Cause, rules: Rules, version: int | None = None
) -> OrderBody:
    """Take what is in a draft, at today's prices, as if it were placed anew.

    Raises NotFound, VersionMismatch, IllegalTransition, and what `place` raises.
    """
    before = _of_version(visible(await uow.orders.lock(order_id), actor), version)
    placed = before.after(Action.PLACE, cause.now)
    lines, currency = await _contents(uow, _quantities(before), before.discount_code, cause, rules, is_placed=True)
    order = replace(
        placed,
        lines=tuple(lines),
        currency=currency,
        expires_at=rules.expiry_of(cause.now),
        tax_included=rules.prices_include_tax,
    )
    await uow.orders.redraft(order, Change.of(order, Action.PLACE, actor))
    return await _tell(uow, OwnType.ORDER_CREATED, order, cause)


async def get(uow: UnitOfWork, actor: Actor, order_id: UUID) -> Snapshot[Order]:
    channel = order_channel(order_id)
    found = await uow.orders.get_with(channel, order_id)
    return Snapshot(visible(found.state, actor), channel, found.position)


async def page(
    uow: UnitOfWork, actor: Actor, which: OrderFilter, sort: OrderSort, *, after: Mark | None, limit: int
) -> Snapshot[OrderPage]:
    """Staff see everybody's orders, with the feed's position; customers their own, with their own channel's."""
    channel = orders_feed() if actor.is_staff else personal_channel(actor.account_id)
    visible_ones = _visible_ones(actor, which)
    if visible_ones is None:
        return Snapshot(OrderPage((), None), channel, await uow.positions.position(channel))
    begin = after or which.begin(sort)
    found = await uow.orders.page_with(channel, visible_ones, sort, after=begin, limit=limit + 1)
    shown = found.state[:limit]
    following = Mark.of(shown[-1], sort) if len(found.state) > limit else None
    return Snapshot(OrderPage(shown, following), channel, found.position)


async def count(uow: UnitOfWork, actor: Actor, which: OrderFilter) -> int:
    """How many of these orders the actor may see."""
    visible_ones = _visible_ones(actor, which)
    return 0 if visible_ones is None else await uow.orders.count(visible_ones)


async def history(uow: UnitOfWork, actor: Actor, order_id: UUID, *, after: int, limit: int) -> HistoryPage:
    """Who did what when, oldest first. Customers learn what staff did, but not which of them. Raises NotFound."""
    visible(await uow.orders.get(order_id), actor)
    found = await uow.orders.changes(order_id, after=after, limit=limit + 1)
    shown = found[:limit]
    following = shown[-1].version if len(found) > limit else None
    if not actor.is_staff:
        shown = [each if each.account_id == actor.account_id else replace(each, account_id=None) for each in shown]
    return HistoryPage(shown, following)


async def advance(
    uow: UnitOfWork, actor: Actor, order_id: UUID, action: Action, cause: Cause, version: int | None = None
) -> OrderBody:
    """Take one of the actions that people may ask for, on this version of the order unless `version` is None.

    Raises NotFound, VersionMismatch, Forbidden, IllegalTransition.
    """
    before = _of_version(visible(await uow.orders.lock(order_id), actor), version)
    _authorize(actor, before, action)
    return await change(uow, before, action, actor, cause)


async def edit(
    uow: UnitOfWork,
    actor: Actor,
    order_id: UUID,
    changes: Mapping[str, Any],
    cause: Cause,
    rules: Rules,
    version: int | None = None,
) -> OrderBody:
    """Change `address` or `note`, of a draft also `items` (quantities) or `discount_code`: those that are given. What
    changes nothing makes no version.

    Raises NotFound, VersionMismatch, IllegalTransition, and what `place` raises for a draft.
    """
    before = _of_version(visible(await uow.orders.lock(order_id), actor), version)
    after = before.edited(changes.get("address", before.address), changes.get("note", before.note), cause.now)
    if changes.keys() & {"items", "discount_code"}:
        before.refuse_unless_draft()
        items, code = changes.get("items", _quantities(before)), changes.get("discount_code", before.discount_code)
        lines, currency = await _contents(uow, items, code, cause, rules, is_placed=False)
        after = replace(
            after,
            lines=tuple(lines),
            currency=currency,
            discount_code=code,
            tax_included=rules.prices_include_tax,
        )
    if replace(after, version=before.version, updated_at=before.updated_at) == before:
        return OrderBody.of(before)
    if before.status is Status.DRAFT:
        after = replace(after, expires_at=rules.expiry_of_draft(cause.now))
        await uow.orders.redraft(after, Change.of(after, Action.EDIT, actor))
    else:
        await uow.orders.edit(after, Change.of(after, Action.EDIT, actor))
    return await _tell(uow, OwnType.ORDER_EDITED, after, cause)


async def expire_next(uow: UnitOfWork, cause: Cause, tried: set[UUID]) -> bool:
    """Let the order expire that should have done so first, of all that are not in `tried`; which it is, is noted there,
    also where it fails. False when none is due."""
    due = await uow.orders.lock_due(cause.now, but=tried)
    if due is not None:
        tried.add(due.id)
        await change(uow, due, Action.EXPIRE, By.TIME, cause)
    return due is not None


async def change(uow: UnitOfWork, before: Order, action: Action, doer: Doer, cause: Cause) -> OrderBody:
    """Move a locked order on, and what was or will be paid for it. Raises IllegalTransition."""
    order = before.after(action, cause.now)
    if before.status in UNPAID and order.status not in UNPAID and doer is not By.PROVIDER:
        await ledger.let_go(uow, order, cause)
        if action is Action.PAY:
            await ledger.collect_by_hand(uow, order, cause)
    if action is Action.CANCEL:
        order = replace(order, refunded=order.refunded + await ledger.give_back_rest(uow, order, cause))
    return await _save(uow, before, order, action, doer, cause)


async def note_refund(uow: UnitOfWork, before: Order, amount: int, doer: Doer, cause: Cause) -> Order:
    """So much of what was paid for a locked order was given back. Returns the order as it is then."""
    order = before.given_back(amount, cause.now)
    await _save(uow, before, order, Action.REFUND, doer, cause)
    return order


async def note_failed_refund(uow: UnitOfWork, before: Order, amount: int, cause: Cause) -> None:
    """A refund has failed for a locked order: so much that was given back has come back to the provider."""
    order = before.not_given_back(amount, cause.now)
    await uow.orders.save(order, Change.of(order, Action.REFUND_FAILED, By.PROVIDER))
    await _tell(uow, OwnType.ORDER_REFUND_FAILED, order, cause)


async def _save(uow: UnitOfWork, before: Order, order: Order, action: Action, doer: Doer, cause: Cause) -> OrderBody:
    transition = TRANSITIONS[action]
    await uow.orders.save(order, Change.of(order, action, doer))
    if order.status is not before.status and before.status in transition.gives_back:
        await uow.products.give_back(_quantities(order))
        if order.discount_code is not None:
            await discounts.give_back(uow, order.discount_code, cause)
    return await _tell(uow, transition.event, order, cause)


def _of_version(order: Order, version: int | None) -> Order:
    if version not in {None, order.version}:
        raise VersionMismatch(f"The order's version is {order.version}, not {version}.")
    return order


def visible(order: Order | None, actor: Actor) -> Order:
    """Raises NotFound also for what the actor may not know of."""
    if order is None or not (actor.is_staff or order.customer_id == actor.account_id):
        raise NotFound
    return order


def _visible_ones(actor: Actor, which: OrderFilter) -> OrderFilter | None:
    """Of these orders those that the actor may see; None: none of them."""
    if actor.is_staff:
        return which
    if which.customer_id not in {None, actor.account_id}:
        return None
    return replace(which, customer_id=actor.account_id)


def _authorize(actor: Actor, order: Order, action: Action) -> None:
    transition, by = TRANSITIONS[action], By.of(actor)
    if not transition.is_of(by):
        raise Forbidden
    allowed = transition.sources.get(order.status, {by})
    if by not in allowed:
        raise IllegalTransition(f"Of an order that is {order.status}, '{action}' is for staff.")


async def _find_customer(uow: UnitOfWork, actor: Actor, customer_id: UUID) -> None:
    actor.require_staff()
    if await uow.accounts.get(customer_id) is None:
        fault = Fault("/customer_id", NotFound.code, f"There is no account {customer_id}.")
        raise Invalid("An order is placed for somebody that there is.", faults=[fault])


async def _contents(
    uow: UnitOfWork,
    items: Sequence[Quantity],
    discount_code: str | None,
    cause: Cause,
    rules: Rules,
    *,
    is_placed: bool,
) -> tuple[Sequence[Line], str]:
    """The lines of an order and its currency, at today's prices. Placed, pieces and discount are taken with that."""
    _refuse_repetition(items)
    try:
        products = await (uow.products.take(items) if is_placed else uow.products.find(items))
    except NotFound as missing:
        raise Invalid("An order names products that exist.", faults=missing.faults) from None
    except OutOfStock:
        _refuse_off_sale(await uow.products.find(items))  # more pieces of that would not help
        raise
    _refuse_off_sale(products)
    currency = _only_currency(products)
    lines = [_line(product, item.quantity) for product, item in zip(products, items, strict=True)]
    if discount_code is not None:
        discount = await discounts.usable(uow, discount_code, cause, is_used=is_placed)
        subtotals = [line.subtotal for line in lines]
        shares = spread(discount.off(sum(subtotals)), subtotals)
        lines = [line._replace(discount=share) for line, share in zip(lines, shares, strict=True)]
    if is_placed:
        for product, item in zip(products, items, strict=True):
            await tell_if_low(uow, product, item.quantity, rules.low_stock, cause)
    return lines, currency


def _quantities(order: Order) -> Sequence[Quantity]:
    return [Quantity(line.product_id, line.quantity) for line in order.lines]


def _refuse_repetition(items: Iterable[Quantity]) -> None:
    seen: set[UUID] = set()
    faults = []
    for index, item in enumerate(items):
        if item.product_id in seen:
            pointer = f"/items/{index}/product_id"
            faults.append(
                Fault(pointer, "repeated_product", "An earlier item names this product; add up the quantities")
            )
        seen.add(item.product_id)
    if faults:
        raise Invalid("Each product stands once in an order.", faults=faults)


def _refuse_off_sale(products: Iterable[Product]) -> None:
    faults = [
        Fault(f"/items/{index}/product_id", "not_for_sale", f"{product.sku} is not for sale")
        for index, product in enumerate(products)
        if not product.for_sale
    ]
    if faults:
        raise Invalid("An order names products that are for sale.", faults=faults)


def _only_currency(products: Sequence[Product]) -> str:
    currency = products[0].currency
    faults = [
        Fault(f"/items/{index}/product_id", "other_currency", f"This product costs {product.currency}, not {currency}")
        for index, product in enumerate(products)
        if product.currency != currency
    ]
    if faults:
        raise Invalid("All products of an order have one currency.", faults=faults)
    return currency


def _line(product: Product, quantity: int) -> Line:
    return Line(product.id, product.sku, product.name, product.price, quantity, product.tax_rate)


async def _tell(uow: UnitOfWork, kind: OwnType, order: Order, cause: Cause) -> OrderBody:
    body = OrderBody.of(order)
    await uow.outbox.add(Event.own(kind, str(order.id), body, cause, order.customer_id))
    return body
