"""May this account subscribe to this channel? Looks up what the pure rule of `handlers.audience` needs to know."""

from __future__ import annotations

from handlers.actor import Actor
from handlers.audience import Kind, may_join, parse_channel
from handlers.work import Work


class Admission:
    def __init__(self, work: Work) -> None:
        self._work = work

    async def may_join(self, actor: Actor, channel: str) -> bool:
        """Raises UnknownChannel, and Unavailable when the database cannot be asked."""
        parsed = parse_channel(channel)
        owner = None
        order_id = parsed.id
        if parsed.kind is Kind.ORDER and order_id is not None:
            owner = await self._work.look_up(lambda uow: uow.orders.owner_of(order_id))
        return may_join(actor, parsed, owner=owner)
