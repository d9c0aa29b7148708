"""What PostgreSQL says: the moment of a kill, and two of the four records at the end. Reads the tables themselves,
beside all code of the product."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import orjson

from tests.contract_document import check
from tests.torture.chat_records import ROOM
from tests.torture.conversation import publication_of
from tests.torture.records import ORDERS_FEED, OrderRow, PaymentRow, Publication, StockRow, Stream

_TOLD = """
told AS (
    SELECT each.id, each.version, each.stock
    FROM publications
    CROSS JOIN jsonb_to_recordset(convert_from(data, 'UTF8')::jsonb #> '{data,items}')
        AS each (id text, version int, stock int)
    WHERE channel = 'products:all'
)
"""

# One statement, so one snapshot. Each committed change of an order or a payment raised its version by one and made one
# event; of these, some wait in the outbox and some are in the order's stream (those in both will be published a second
# time). The rest is with the broker alone: not acknowledged, for acknowledging comes after the append.
# All nodes stand still while it runs: it has to be quick, or what they were doing is too late before they go on.
_CENSUS = """
WITH waiting AS (
    SELECT count(*) AS all_rows, count(seen.id) AS appended
    FROM outbox LEFT JOIN seen ON seen.channel = 'order:' || outbox.subject AND seen.id = outbox.event_id
    WHERE outbox.subject NOT IN ('orders', 'products')
)
SELECT all_rows AS unpublished, appended,
       ((SELECT coalesce(sum(version), 0) FROM orders)
       + (SELECT coalesce(sum(version), 0) FROM payments)
       - (SELECT coalesce(sum(top), 0) FROM streams WHERE channel LIKE 'order:%')
       - (all_rows - appended))::bigint AS unacknowledged,
       (SELECT count(*) FROM idempotency_answers WHERE key = ANY($1::text[])) AS unanswered
FROM waiting
"""
# What orders come to and what they leave of the stock have streams and versions of their own.
_UNTOLD = f"""
WITH {_TOLD}, last_told AS (
    SELECT id, max(version) AS version FROM told GROUP BY id
)
SELECT (SELECT count(*) FROM order_deltas)
       + (SELECT version FROM order_stats_head)
       - coalesce((
            SELECT (convert_from(data, 'UTF8')::jsonb #>> '{{data,version}}')::bigint
            FROM publications WHERE channel = 'stats:orders' ORDER BY "offset" DESC LIMIT 1
       ), 0)
       + (
            SELECT count(*) FROM products LEFT JOIN last_told ON last_told.id = products.id::text
            WHERE products.version <> coalesce(last_told.version, 1)
       ) AS untold
"""
_COUNTED = """
SELECT data FROM publications WHERE channel = 'stats:orders' ORDER BY "offset" DESC LIMIT 1
"""
_HOLD = "BEGIN; SELECT FROM streams WHERE channel = 'orders:feed' FOR UPDATE"
_HEADS = "SELECT channel, top FROM streams"
_ORDERS = """
SELECT id::text, customer_id::text, status, version,
       (SELECT array_agg(product_id::text ORDER BY line) FROM order_lines WHERE order_id = orders.id) AS products,
       (SELECT array_agg(quantity ORDER BY line) FROM order_lines WHERE order_id = orders.id) AS quantities
FROM orders ORDER BY number
"""
_PAYMENTS = "SELECT id::text, order_id::text, status, version FROM payments ORDER BY number"
_STOCK = f"""
WITH {_TOLD}
SELECT DISTINCT ON (sku) products.id::text, products.stock, told.stock AS told
FROM products LEFT JOIN told ON told.id = products.id::text
ORDER BY sku, told.version DESC
"""
_STREAMS = """
SELECT channel, salt || '.' || (SELECT generation FROM deployment) AS epoch, top FROM streams
WHERE channel NOT IN ($1, 'stats:orders', 'products:all')
"""
_PUBLICATIONS = """
SELECT channel, "offset", data FROM publications
WHERE channel NOT IN ($1, 'stats:orders', 'products:all') ORDER BY channel, "offset"
"""


@dataclass(frozen=True, slots=True)
class Census:
    """What was on its way at one moment.

    `unpublished` outbox rows; `again` of them appended already, so that they will be published twice;
    `unacknowledged` events that only the broker has; `unanswered` commits whose client is still waiting for the reply.
    """

    unpublished: int
    again: int
    unacknowledged: int
    unanswered: int


class Ledger:
    """Opens a connection for each question: between two of them PostgreSQL may have been killed."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def census(self, waiting: Collection[str]) -> Census:
        """`waiting`: the idempotency keys of the requests without a reply."""
        row = (await self._fetch(_CENSUS, list(waiting)))[0]
        return Census(row["unpublished"], row["appended"], row["unacknowledged"], row["unanswered"])

    async def pending(self) -> Sequence[str]:
        """What is still on its way to the clients; of what orders come to, and of the stock, what is not told yet."""
        census, untold = await self.census(()), (await self._fetch(_UNTOLD))[0]["untold"]
        waiting = {"unpublished": census.unpublished, "unacknowledged": census.unacknowledged, "untold": untold}
        return [f"{name} {count}" for name, count in waiting.items() if count]

    @asynccontextmanager
    async def feed_held(self) -> AsyncIterator[None]:
        """Nobody appends to the feed: what the relay publishes meanwhile is delivered and stays unacknowledged."""
        connection = await asyncpg.connect(self._url, timeout=10)
        try:
            await connection.execute(_HOLD)  # in a transaction that ends with the connection
            yield
        finally:
            connection.terminate()

    async def heads(self) -> Mapping[str, int]:
        return {row["channel"]: row["top"] for row in await self._fetch(_HEADS)}

    async def orders(self) -> list[OrderRow]:
        return [
            OrderRow(row["id"], row["customer_id"], row["status"], row["version"], _pairs(row))
            for row in await self._fetch(_ORDERS)
        ]

    async def payments(self) -> list[PaymentRow]:
        return [
            PaymentRow(row["id"], row["order_id"], row["status"], row["version"])
            for row in await self._fetch(_PAYMENTS)
        ]

    async def counted(self) -> Mapping[str, int]:
        """How many orders of each status the dashboards were told last."""
        rows = await self._fetch(_COUNTED)
        told = orjson.loads(rows[0]["data"]) if rows else {"data": {"totals": []}}
        if rows:
            check("OrderStatsPublication", told)
        return {count["status"]: count["orders"] for tally in told["data"]["totals"] for count in tally["by_status"]}

    async def stock(self) -> Mapping[str, tuple[int, int | None]]:
        """Of each product: the pieces that there are, and those that everybody was told last."""
        return {row["id"]: (row["stock"], row["told"]) for row in await self._fetch(_STOCK)}

    async def streams(self) -> list[Stream]:
        """Those of the domain."""
        publications: defaultdict[str, list[Publication]] = defaultdict(list)
        for row in await self._fetch(_PUBLICATIONS, ROOM):
            data = orjson.loads(row["data"])
            if row["channel"] == ORDERS_FEED:  # where every event of an order is
                check("OrderPublication", data)
            elif data["type"] == "payment.changed":
                check("PaymentPublication", data)
            publications[row["channel"]].append(publication_of(row["offset"], data))
        return [
            Stream(row["channel"], row["epoch"], row["top"], tuple(publications[row["channel"]]))
            for row in await self._fetch(_STREAMS, ROOM)
        ]

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self._url, timeout=10)
        try:
            return await connection.fetch(query, *arguments, timeout=30)
        finally:
            await connection.close(timeout=5)


def stock_rows(
    before: Mapping[str, tuple[int, int | None]], after: Mapping[str, tuple[int, int | None]]
) -> list[StockRow]:
    return [StockRow(product_id, pieces, *after[product_id]) for product_id, (pieces, _) in before.items()]


def _pairs(row: asyncpg.Record) -> tuple[tuple[str, int], ...]:
    return tuple(zip(row["products"], row["quantities"], strict=True))
