"""Orders that need not be read again: a list asks PostgreSQL which ones it is made of, and reads those that are new."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from handlers.orders.model import Order

SIZE = 512  # several pages


class State(NamedTuple):
    """What no two states of an order have in common, also where PostgreSQL has lost some: after a failover or a restore
    versions are given out again, but at another time."""

    id: UUID
    version: int
    updated_at: datetime

    @classmethod
    def of(cls, order: Order) -> State:
        return cls(order.id, order.version, order.updated_at)


class KnownOrders:
    """The orders that were placed here or read last, as they were committed."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._orders: OrderedDict[State, Order] = OrderedDict()  # those that were wanted last are the last

    def add(self, order: Order) -> None:
        """As it was committed; its first version also before that, for an id that is rolled back is not given again."""
        self._orders[State.of(order)] = order
        if len(self._orders) > self._size:
            self._orders.popitem(last=False)

    def find(self, states: Sequence[State]) -> Sequence[Order | None]:
        return [self._find(state) for state in states]

    def _find(self, state: State) -> Order | None:
        order = self._orders.get(state)
        if order is not None:
            self._orders.move_to_end(state)
        return order
