from __future__ import annotations

from uuid import uuid4

import pytest

from handlers.actor import Role
from handlers.admission import Admission
from handlers.audience import UnknownChannel, order_channel, orders_feed, personal_channel
from handlers.orders import service
from handlers.ports.domain import Quantity
from handlers.rules import Rules
from handlers.work import Work
from tests.doubles import CAUSE, MemoryDatabase, a_product, an_actor


async def test_an_orders_channel_is_open_to_its_owner_and_staff() -> None:
    database, owner, product = MemoryDatabase(), an_actor(), a_product()
    async with database.transaction() as uow:
        await uow.products.add(product)
        order = await service.place(uow, owner, [Quantity(product.id, 1)], CAUSE, Rules())
    admission, channel = Admission(Work(database)), order_channel(order.id)

    assert await admission.may_join(owner, channel)
    assert await admission.may_join(an_actor(Role.STAFF), channel)
    assert not await admission.may_join(an_actor(), channel)
    assert not await admission.may_join(an_actor(Role.ADMIN), order_channel(uuid4()))


async def test_the_other_channels_need_no_look_up() -> None:
    admission, customer = Admission(Work(MemoryDatabase())), an_actor()

    assert await admission.may_join(customer, personal_channel(customer.account_id))
    assert not await admission.may_join(customer, orders_feed())


async def test_a_channel_that_nobody_has_is_unknown() -> None:
    with pytest.raises(UnknownChannel):
        await Admission(Work(MemoryDatabase())).may_join(an_actor(Role.ADMIN), "chat:lobby")
