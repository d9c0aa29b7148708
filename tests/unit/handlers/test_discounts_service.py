from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from handlers.actor import Actor, Role
from handlers.audience import discounts
from handlers.discounts import service
from handlers.discounts.model import Discount
from handlers.discounts.schemas import DiscountBody, NewDiscount
from handlers.errors import Conflict, Forbidden, Invalid, NotFound, VersionMismatch
from handlers.events import Cause, OwnType
from tests.doubles import CAUSE, NOW, MemoryUnitOfWork, an_actor

STAFF = an_actor(Role.STAFF)
SOON = NOW + timedelta(hours=1)


@pytest.fixture
def uow() -> MemoryUnitOfWork:
    return MemoryUnitOfWork()


async def made(uow: MemoryUnitOfWork, **given: object) -> Discount:
    wanted = NewDiscount.model_validate({"code": "spring", "rate": 1000, **given})
    return await service.create(uow, STAFF, wanted, CAUSE)


async def test_it_is_made_as_it_was_asked_for_and_told(uow: MemoryUnitOfWork) -> None:
    discount = await made(uow, max_uses=3)

    assert (discount.code, discount.rate, discount.max_uses, discount.uses, discount.version) == (
        "SPRING",
        1000,
        3,
        0,
        1,
    )
    assert (discount.starts_at, discount.ends_at, discount.refusal(NOW)) == (NOW, None, None)
    (event,) = uow.outbox.events
    assert (event.type, event.subject, event.recipient) == (OwnType.DISCOUNT_CHANGED, str(discount.id), None)
    assert event.data == DiscountBody.of(discount)
    with pytest.raises(Conflict):
        await made(uow)


async def test_customers_have_no_business_with_discounts(uow: MemoryUnitOfWork) -> None:
    customer: Actor = an_actor()
    discount = await made(uow)

    with pytest.raises(Forbidden):
        await service.create(uow, customer, NewDiscount(code="MINE", rate=1), CAUSE)
    with pytest.raises(Forbidden):
        await service.page(uow, customer, after_code="", limit=1)
    with pytest.raises(Forbidden):
        await service.get(uow, customer, discount.id)
    with pytest.raises(Forbidden):
        await service.edit(uow, customer, discount.id, {"ends_at": None}, CAUSE)


async def test_pages_are_in_order_of_code_and_come_with_the_position(uow: MemoryUnitOfWork) -> None:
    for code in ("B", "A", "C"):
        await made(uow, code=code)

    first = await service.page(uow, STAFF, after_code="", limit=2)
    last = await service.page(uow, STAFF, after_code="B", limit=2)

    assert ([each.code for each in first.state.discounts], first.state.next) == (["A", "B"], "B")
    assert ([each.code for each in last.state.discounts], last.state.next) == (["C"], None)
    assert (first.channel, uow.positions.asked) == (discounts(), [discounts()] * 2)


async def test_the_position_is_read_before_the_state(uow: MemoryUnitOfWork) -> None:
    reads: list[str] = []

    class Recorder:
        def __init__(self, of: object, name: str) -> None:
            self._of, self._name = of, name

        def __getattr__(self, method: str) -> object:
            reads.append(self._name)
            return getattr(self._of, method)

    uow.positions = Recorder(uow.positions, "position")  # type: ignore[assignment]
    uow.discounts = Recorder(uow.discounts, "state")  # type: ignore[assignment]
    await service.page(uow, STAFF, after_code="", limit=1)

    assert reads == ["position", "state"]


@pytest.mark.parametrize(
    ("given", "at", "reason"),
    [
        ({"starts_at": SOON}, NOW, "yet"),
        ({"starts_at": SOON}, SOON, None),
        ({"ends_at": SOON}, SOON - timedelta(microseconds=1), None),
        ({"ends_at": SOON}, SOON, "over"),
        ({"max_uses": 1}, NOW, None),
        ({"max_uses": 1, "uses": 1}, NOW, "used up"),
    ],
)
async def test_when_it_can_be_used(
    uow: MemoryUnitOfWork, given: dict[str, object], at: datetime, reason: str | None
) -> None:
    discount = replace(await made(uow), **given)  # type: ignore[arg-type]
    await uow.discounts.save(discount)

    assert (reason is None) == (discount.refusal(at) is None)
    if reason is None:
        used = await service.usable(uow, "SPRING", Cause(at), is_used=True)
        assert (used.uses, used.version, used.updated_at) == (discount.uses + 1, discount.version + 1, at)
        assert uow.discounts.rows[used.id] == used
        assert uow.outbox.events[-1].data.uses == used.uses
        return
    with pytest.raises(Invalid) as refused:
        await service.usable(uow, "SPRING", Cause(at), is_used=True)
    (fault,) = refused.value.faults
    assert (fault.pointer, fault.code) == ("/discount_code", "bad_discount")
    assert reason in fault.detail
    assert uow.discounts.rows[discount.id] == discount


async def test_what_is_not_there_cannot_be_used(uow: MemoryUnitOfWork) -> None:
    with pytest.raises(Invalid) as refused:
        await service.usable(uow, "SPRING", CAUSE, is_used=False)
    assert [fault.detail for fault in refused.value.faults] == ["There is no discount SPRING."]


async def test_to_look_uses_nothing_and_what_is_given_back_can_be_used_again(uow: MemoryUnitOfWork) -> None:
    discount = await made(uow, max_uses=1)

    assert await service.usable(uow, "SPRING", CAUSE, is_used=False) == discount
    await service.usable(uow, "SPRING", CAUSE, is_used=True)
    await service.give_back(uow, "SPRING", CAUSE)
    again = await service.usable(uow, "SPRING", CAUSE, is_used=True)

    assert (again.uses, again.version) == (1, 4)


async def test_limits_are_changed_on_the_version_that_was_seen(uow: MemoryUnitOfWork) -> None:
    discount = await made(uow, max_uses=5)

    ended = await service.edit(uow, STAFF, discount.id, {"ends_at": SOON}, CAUSE, 1)
    same = await service.edit(uow, STAFF, discount.id, {"ends_at": SOON}, CAUSE)

    assert (ended.ends_at, ended.max_uses, ended.version) == (SOON, 5, 2)
    assert same == ended
    assert len(uow.outbox.events) == 2
    with pytest.raises(VersionMismatch):
        await service.edit(uow, STAFF, discount.id, {"ends_at": None}, CAUSE, 1)
    with pytest.raises(NotFound):
        await service.edit(uow, STAFF, uuid4(), {"ends_at": None}, CAUSE)
