"""The commands of orders: parameters -> service -> result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import orjson

from handlers.commands import Caller, command
from handlers.events import Cause
from handlers.idempotency import Claim, Reply, answer_once
from handlers.orders import service
from handlers.orders.lists import Mark, parse_natural
from handlers.orders.model import REQUESTED, Action
from handlers.orders.schemas import (
    AdvanceOrder,
    ChangeBody,
    EditOrder,
    HistoryOf,
    LiveOrderBody,
    LiveOrderList,
    OrderBody,
    OrderQuery,
    PlaceOrder,
    PlaceOrderRequest,
    body_of,
)
from handlers.ports.domain import UnitOfWork, Wants
from handlers.reading import read_cursor
from handlers.schemas import ById, Listing, StreamBody, encode_cursor

_PATH = "/api/v1/orders"


async def place(caller: Caller, order: PlaceOrder) -> Reply:
    claim = _claim(caller, order)

    async def place_it(uow: UnitOfWork) -> Reply:
        return Reply(201, (await place_wanted(uow, caller, order, caller.cause)).encode())

    def answer(uow: UnitOfWork) -> Awaitable[Reply]:
        return answer_once(uow, claim, place_it)

    if order.draft:
        return await caller.work.write(answer)
    products = [item.product_id for item in order.items]
    wants = Wants(caller.actor.account_id, order.idempotency_key, products, order.discount_code)
    return await caller.work.write_together(answer, wants)


async def place_wanted(
    uow: UnitOfWork, caller: Caller, wanted: PlaceOrderRequest, cause: Cause, *, customer_id: UUID | None = None
) -> OrderBody:
    """For the caller, or for the customer that is named. Raises what `service.place` raises."""
    return await service.place(
        uow,
        caller.actor,
        [item.wanted() for item in wanted.items],
        cause,
        caller.rules,
        customer_id=customer_id,
        discount_code=wanted.discount_code,
        address=None if wanted.address is None else wanted.address.address(),
        note=wanted.note,
        as_draft=wanted.draft,
    )


async def get(caller: Caller, which: ById) -> LiveOrderBody:
    return LiveOrderBody.at(await caller.look_up(lambda uow: service.get(uow, caller.actor, which.id)))


async def page(caller: Caller, query: OrderQuery) -> LiveOrderList:
    after = read_cursor(query.cursor, lambda text: Mark.parse(text, query.sort))
    snapshot = await caller.read(
        lambda uow: service.page(uow, caller.actor, query.filter(), query.sort, after=after, limit=query.limit)
    )
    found, fields = snapshot.state, query.included()
    return LiveOrderList(
        items=[body_of(order, fields) for order in found.orders],
        next=None if found.next is None else encode_cursor(found.next.encode(query.sort)),
        stream=StreamBody.of(snapshot),
    )


async def history(caller: Caller, which: HistoryOf) -> Listing[ChangeBody]:
    after = read_cursor(which.cursor, parse_natural) or 0
    found = await caller.look_up(
        lambda uow: service.history(uow, caller.actor, which.id, after=after, limit=which.limit)
    )
    return Listing[ChangeBody](
        items=[ChangeBody.of(change) for change in found.changes],
        next=None if found.next is None else encode_cursor(str(found.next)),
    )


async def edit(caller: Caller, order: EditOrder) -> OrderBody:
    changes = {name: value for name, value in order.given().items() if name in {"discount_code", "note"}}
    if order.items is not None:
        changes["items"] = [item.wanted() for item in order.items]
    if "address" in order.given():
        changes["address"] = None if order.address is None else order.address.address()
    return await caller.work.write(
        lambda uow: service.edit(uow, caller.actor, order.id, changes, caller.cause, caller.rules, order.version)
    )


async def place_draft(caller: Caller, which: AdvanceOrder) -> OrderBody:
    return await caller.work.write(
        lambda uow: service.place_draft(uow, caller.actor, which.id, caller.cause, caller.rules, which.version)
    )


def advance(action: Action) -> Callable[[Caller, AdvanceOrder], Awaitable[OrderBody]]:
    async def advance(caller: Caller, which: AdvanceOrder) -> OrderBody:
        return await caller.work.write(
            lambda uow: service.advance(uow, caller.actor, which.id, action, caller.cause, which.version)
        )

    return advance


COMMANDS = (
    command("orders.place", PlaceOrder, place),
    command("orders.list", OrderQuery, page),
    command("orders.get", ById, get),
    command("orders.history", HistoryOf, history),
    command("orders.edit", EditOrder, edit),
    command("orders.place_draft", AdvanceOrder, place_draft),
    *(command(f"orders.{action}", AdvanceOrder, advance(action)) for action in REQUESTED),
)


def _claim(caller: Caller, order: PlaceOrder) -> Claim | None:
    body = order.model_dump(mode="json", exclude={"idempotency_key"}, exclude_defaults=True)
    return Claim.of(caller.actor.account_id, order.idempotency_key, _PATH, orjson.dumps(body))
