"""A shop of each contender's own on the same PostgreSQL: the same tables, customers and products; and its books."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from storage.migrate import migrate
from tests.many_orders import make_orders
from tests.torture.stage import furnish

PRODUCTS: Final = 10_000  # so that orders hardly ever wait for each other's rows
_PAST: Final = 50_000  # orders; PostgreSQL plans for what it knows, and of an empty shop it would know nothing
_STOCK: Final = 1_000_000
_FILL: Final = f"""
INSERT INTO products (id, sku, name, price, currency, stock)
SELECT
    ('00000000-0000-0000-0003-' || lpad(to_hex(n), 12, '0'))::uuid,
    'BENCH-' || n, 'Thing number ' || n, 500 + n % 5000, 'EUR', {_STOCK}
FROM generate_series(1, {PRODUCTS}) AS n
"""


def product_id(number: int) -> UUID:
    """Of the product with that number, from 1 on."""
    return UUID(f"00000000-0000-0000-0003-{number:012x}")


@dataclass(frozen=True, slots=True)
class Books:
    """What PostgreSQL says: orders that were placed, pieces in their lines, and pieces that are gone from the stock."""

    orders: int
    ordered: int
    taken: int

    def since(self, before: Books) -> Books:
        return Books(self.orders - before.orders, self.ordered - before.ordered, self.taken - before.taken)


async def open_another(database_url: str, name: str) -> str:
    """A database beside that one, with the same people; its URL."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    url = f"{database_url.rpartition('/')[0]}/{name}"
    await migrate(url)
    await furnish(url, [], seed=1)
    return url


async def fill(url: str) -> None:
    """With a past, and with products that are still to be had."""
    connection = await asyncpg.connect(url)
    try:
        await make_orders(connection, _PAST)
        await connection.execute(_FILL)
        await connection.execute("VACUUM (ANALYZE) accounts, products")  # not what is empty: it will not stay so
    finally:
        await connection.close()


async def books(url: str) -> Books:
    connection = await asyncpg.connect(url)
    try:
        row = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM orders), (SELECT coalesce(sum(quantity), 0)::bigint FROM order_lines),"
            f" (SELECT sum({_STOCK} - stock)::bigint FROM products)"
        )
    finally:
        await connection.close()
    assert row is not None
    return Books(*row)
