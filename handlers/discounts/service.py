"""The use cases of discounts. Staff make and end them; orders use them up and give them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from handlers.actor import Actor
from handlers.audience import discounts as channel_of_discounts
from handlers.discounts.model import Discount
from handlers.discounts.schemas import DiscountBody, NewDiscount
from handlers.errors import Fault, Invalid, NotFound, VersionMismatch
from handlers.events import Cause, Event, OwnType
from handlers.ids import new_id
from handlers.ports.domain import Snapshot, UnitOfWork


@dataclass(frozen=True, slots=True)
class DiscountPage:
    """In order of code; `next` is the code to continue after, None at the end."""

    discounts: Sequence[Discount]
    next: str | None


async def create(uow: UnitOfWork, actor: Actor, wanted: NewDiscount, cause: Cause) -> Discount:
    """Raises Forbidden, Conflict when there is one with this code, Invalid when it would be over before it begins."""
    actor.require_staff()
    starts_at = wanted.starts_at or cause.now
    if wanted.ends_at is not None and wanted.ends_at <= starts_at:
        fault = Fault("/ends_at", "out_of_range", "It begins at or after that")
        raise Invalid("There can be no such discount.", faults=[fault])
    discount = Discount(
        id=new_id(cause.now),
        code=wanted.code,
        rate=wanted.rate,
        starts_at=starts_at,
        ends_at=wanted.ends_at,
        max_uses=wanted.max_uses,
        uses=0,
        version=1,
        created_at=cause.now,
        updated_at=cause.now,
    )
    await uow.discounts.add(discount)
    await uow.outbox.add(_event(discount, cause))
    return discount


async def page(uow: UnitOfWork, actor: Actor, *, after_code: str, limit: int) -> Snapshot[DiscountPage]:
    """Raises Forbidden."""
    actor.require_staff()
    channel = channel_of_discounts()
    position = await uow.positions.position(channel)
    found = await uow.discounts.page(after_code=after_code, limit=limit + 1)
    shown = found[:limit]
    return Snapshot(DiscountPage(shown, shown[-1].code if len(found) > limit else None), channel, position)


async def get(uow: UnitOfWork, actor: Actor, discount_id: UUID) -> Discount:
    """Raises Forbidden, NotFound."""
    actor.require_staff()
    return _existing(await uow.discounts.get(discount_id))


async def edit(
    uow: UnitOfWork,
    actor: Actor,
    discount_id: UUID,
    changes: Mapping[str, Any],
    cause: Cause,
    version: int | None = None,
) -> Discount:
    """Change `ends_at` or `max_uses`, those that are given. What changes nothing makes no version.

    Raises Forbidden, NotFound, VersionMismatch.
    """
    actor.require_staff()
    before = _existing(await uow.discounts.lock(discount_id))
    if version not in {None, before.version}:
        raise VersionMismatch(f"The discount's version is {before.version}, not {version}.")
    after = replace(before, **changes)
    return before if after == before else await _save(uow, after, cause)


async def usable(uow: UnitOfWork, code: str, cause: Cause, *, is_used: bool) -> Discount:
    """The discount with this code, and one use less of it if `is_used`. Raises Invalid when it cannot be used."""
    discount = await (uow.discounts.lock_code(code) if is_used else uow.discounts.by_code(code))
    refusal = f"There is no discount {code}." if discount is None else discount.refusal(cause.now)
    if discount is None or refusal is not None:
        raise Invalid("The discount cannot be used.", faults=[Fault("/discount_code", "bad_discount", str(refusal))])
    return await _save(uow, replace(discount, uses=discount.uses + 1), cause) if is_used else discount


async def give_back(uow: UnitOfWork, code: str, cause: Cause) -> None:
    """One use of it, if there still is such a discount: one that was made anew with this code does not know of it."""
    discount = await uow.discounts.lock_code(code)
    if discount is not None and discount.uses > 0:
        await _save(uow, replace(discount, uses=discount.uses - 1), cause)


async def _save(uow: UnitOfWork, after: Discount, cause: Cause) -> Discount:
    """As the next version."""
    changed = replace(after, version=after.version + 1, updated_at=cause.now)
    await uow.discounts.save(changed)
    await uow.outbox.add(_event(changed, cause))
    return changed


def _existing(discount: Discount | None) -> Discount:
    if discount is None:
        raise NotFound
    return discount


def _event(discount: Discount, cause: Cause) -> Event:
    return Event.own(OwnType.DISCOUNT_CHANGED, str(discount.id), DiscountBody.of(discount), cause)
