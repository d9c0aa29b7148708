"""Many orders at once: parameters -> service -> results, one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import orjson

from handlers.clock import utc_now
from handlers.commands import Caller
from handlers.errors import AppError, Invalid
from handlers.idempotency import Claim, Reply, answer_once
from handlers.ndjson import MAX_LINE_BYTES, LineTooLong
from handlers.orders import service
from handlers.orders.commands import place_wanted
from handlers.orders.lists import Mark, OrderSort
from handlers.orders.schemas import (
    ExportQuery,
    ImportedBody,
    ImportedOrderBody,
    ImportLine,
    RefusedLineBody,
    body_of,
)
from handlers.orders.service import OrderPage
from handlers.ports.domain import Snapshot, UnitOfWork
from handlers.reading import read_json
from handlers.schemas import StreamBody

IMPORT_PATH = "/api/v1/imports/orders"
AT_ONCE = 8
"""Lines of one import that are worked on together: its share of the connections to the database."""

_PAGE_LENGTH = 100  # to write down more of them without a break would keep others waiting


async def import_line(caller: Caller, number: int, line: bytes | LineTooLong) -> ImportedBody:
    """Place one order, in a transaction of its own. Whatever the line deserves, it gets an answer."""
    try:
        reply = await _place(caller, line)
    except AppError as error:
        return ImportedBody(line=number, order=None, error=RefusedLineBody.of(error))
    order = ImportedOrderBody.model_validate_json(reply.body)
    return ImportedBody(line=number, order=order.model_copy(update={"replayed": reply.replayed}), error=None)


async def _place(caller: Caller, line: bytes | LineTooLong) -> Reply:
    if isinstance(line, LineTooLong):
        raise Invalid(f"A line is at most {MAX_LINE_BYTES} bytes long.")
    wanted = read_json(line, ImportLine)
    body = wanted.model_dump(mode="json", exclude={"key"}, exclude_defaults=True)
    claim = Claim.of(caller.actor.account_id, wanted.key, IMPORT_PATH, orjson.dumps(body))
    cause = replace(caller.cause, now=utc_now())  # the first line may be long ago

    async def place_it(uow: UnitOfWork) -> Reply:
        order = await place_wanted(uow, caller, wanted, cause, customer_id=wanted.customer_id)
        return Reply(201, ImportedOrderBody.of(order).encode())

    return await caller.work.write(lambda uow: answer_once(uow, claim, place_it))


@dataclass(frozen=True, slots=True)
class Export:
    """`stream` is where to go on from when all of it is read, `count` how many orders there were when it began."""

    stream: StreamBody
    count: int
    lines: AsyncIterator[bytes]


async def export(caller: Caller, query: ExportQuery) -> Export:
    """As they were placed, oldest first, each as it is when it is read: one that is placed meanwhile is the last."""
    count = await caller.read(lambda uow: service.count(uow, caller.actor, query.filter()))
    first = await _page(caller, query, None)
    return Export(StreamBody.of(first), count, _lines(caller, query, first.state))


async def _lines(caller: Caller, query: ExportQuery, page: OrderPage) -> AsyncIterator[bytes]:
    """A page at a time."""
    fields = query.included()
    while True:
        yield b"".join(body_of(order, fields).encode() + b"\n" for order in page.orders)
        if page.next is None:
            return
        page = (await _page(caller, query, page.next)).state


async def _page(caller: Caller, query: ExportQuery, after: Mark | None) -> Snapshot[OrderPage]:
    return await caller.read(
        lambda uow: service.page(uow, caller.actor, query.filter(), OrderSort.OLDEST, after=after, limit=_PAGE_LENGTH)
    )
