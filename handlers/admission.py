"""May this account subscribe to this channel? Looks up what the pure rule of `handlers.audience` needs to know."""

from __future__ import annotations

from handlers.actor import Actor
from handlers.audience import Kind, may_join, parse_channel
from handlers.ports.domain import Database


class Admission:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def may_join(self, actor: Actor, channel: str) -> bool:
        """Raises UnknownChannel, and Unavailable when the database cannot be asked."""
        parsed = parse_channel(channel)
        owner = None
        if parsed.kind is Kind.ORDER and parsed.id is not None:
            async with self._database.read() as uow:
                owner = await uow.orders.owner_of(parsed.id)
        return may_join(actor, parsed, owner=owner)
