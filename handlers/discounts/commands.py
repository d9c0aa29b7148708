"""The commands of discounts: parameters -> service -> result."""

from __future__ import annotations

from handlers.commands import Caller, command
from handlers.discounts import service
from handlers.discounts.schemas import DiscountBody, EditDiscount, EditDiscountRequest, LiveDiscountList, NewDiscount
from handlers.reading import parse_text, read_cursor
from handlers.schemas import ById, PageQuery, StreamBody, encode_cursor


async def create(caller: Caller, wanted: NewDiscount) -> DiscountBody:
    return DiscountBody.of(await caller.work.write(lambda uow: service.create(uow, caller.actor, wanted, caller.cause)))


async def page(caller: Caller, query: PageQuery) -> LiveDiscountList:
    after_code = read_cursor(query.cursor, parse_text) or ""
    snapshot = await caller.read(lambda uow: service.page(uow, caller.actor, after_code=after_code, limit=query.limit))
    found = snapshot.state
    return LiveDiscountList(
        items=[DiscountBody.of(discount) for discount in found.discounts],
        next=None if found.next is None else encode_cursor(found.next),
        stream=StreamBody.of(snapshot),
    )


async def get(caller: Caller, which: ById) -> DiscountBody:
    return DiscountBody.of(await caller.look_up(lambda uow: service.get(uow, caller.actor, which.id)))


async def edit(caller: Caller, discount: EditDiscount) -> DiscountBody:
    changes = {name: value for name, value in discount.given().items() if name in EditDiscountRequest.model_fields}
    edited = await caller.work.write(
        lambda uow: service.edit(uow, caller.actor, discount.id, changes, caller.cause, discount.version)
    )
    return DiscountBody.of(edited)


COMMANDS = (
    command("discounts.create", NewDiscount, create),
    command("discounts.list", PageQuery, page),
    command("discounts.get", ById, get),
    command("discounts.edit", EditDiscount, edit),
)
