"""Orders by the thousand, made by PostgreSQL itself: as a shop's that grows would be, and the same each time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from storage.pool import Connection

STAFF: Final = UUID(int=1)
REGULAR: Final = UUID(int=2)
"""Of a thousandth of all orders."""

_CUSTOMERS: Final = """
INSERT INTO accounts (id, email, name, role, password_hash)
SELECT
    ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid,
    'person' || n || '@example.com',
    (ARRAY['Ada', 'Bela', 'Cleo', 'Dora', 'Emil', 'Finn', 'Gale', 'Hugo'])[1 + n % 8] || ' Family' || n / 8,
    CASE WHEN n = 1 THEN 'staff' ELSE 'customer' END,
    '$argon2id$'
FROM generate_series(1, $1::integer) AS n
"""
_PRODUCTS: Final = """
INSERT INTO products (id, sku, name, price, currency, stock)
SELECT
    ('00000000-0000-0000-0001-' || lpad(to_hex(n), 12, '0'))::uuid,
    'SKU-' || n,
    (ARRAY['Copper', 'Glass', 'Enamel', 'Porcelain', 'Stoneware'])[1 + n % 5] || ' thing' || n,
    500 + 37 * n % 5000,
    'EUR',
    1000000
FROM generate_series(1, $1::integer) AS n
"""
# One in a second. Nine of ten have been delivered, and few are under way.
_ORDERS: Final = """
WITH made AS MATERIALIZED (
    SELECT
        n,
        CASE WHEN n % 1000 = 0 THEN 2 ELSE 1 + (n * 7919::bigint) % $2 END AS customer,
        1 + (n * 104729::bigint) % $3 AS product,
        1 + n / 7 % 5 AS quantity,
        CASE
            WHEN n > $1 - $1 / 100 THEN (ARRAY['placed', 'paid', 'packed', 'shipped'])[1 + n % 4]
            WHEN n % 5000 = 0 THEN 'expired'
            WHEN n % 10 = 0 THEN 'cancelled'
            ELSE 'delivered'
        END AS status,
        now() - make_interval(secs => $1 - n) AS created_at
    FROM generate_series(1, $1::integer) AS n
), lines AS (
    INSERT INTO order_lines (order_id, line, product_id, sku, name, unit_price, quantity)
    SELECT ('00000000-0000-0000-0002-' || lpad(to_hex(n), 12, '0'))::uuid, 1, p.id, p.sku, p.name, p.price, m.quantity
    FROM made AS m
    JOIN products AS p ON p.sku = 'SKU-' || m.product
)
INSERT INTO orders (id, customer_id, status, version, currency, created_at, updated_at, total, search)
SELECT
    ('00000000-0000-0000-0002-' || lpad(to_hex(n), 12, '0'))::uuid,
    a.id, m.status, 1, 'EUR', m.created_at, m.created_at + interval '1 hour' * (n * 31 % 97), p.price * m.quantity,
    to_tsvector('simple', concat_ws(' ', a.name, a.email, p.name, p.sku))
FROM made AS m
JOIN products AS p ON p.sku = 'SKU-' || m.product
JOIN accounts AS a ON a.email = 'person' || m.customer || '@example.com'
ORDER BY n
"""

_DELTAS: Final = """
INSERT INTO order_deltas (created_at, currency, status, orders, total)
SELECT date_trunc('minute', created_at), currency, status, count(*), sum(total) FROM orders GROUP BY 1, 2, 3
"""


async def make_orders(connection: Connection, count: int) -> None:
    """In an empty database: one customer to twenty orders and one product to a thousand, a hundred of each at least.
    What the planner knows of them is up to date."""
    customers, products = max(100, count // 20), max(100, count // 1000)
    await connection.execute(_CUSTOMERS, customers)
    await connection.execute(_PRODUCTS, products)
    await connection.execute("ANALYZE accounts, products")
    await connection.execute(_ORDERS, count, customers, products)
    await connection.execute(_DELTAS)
    await connection.execute("VACUUM (ANALYZE) orders, order_lines")
