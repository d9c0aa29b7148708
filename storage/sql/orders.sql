-- name: add
-- Insert an order with its lines, numbered from 1; returns the number that the order was given.
WITH placed AS (
    INSERT INTO orders (id, customer_id, status, version, currency, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    RETURNING number
), lines AS (
    INSERT INTO order_lines (order_id, line, product_id, sku, name, unit_price, quantity)
    SELECT $1, l.line, l.product_id, l.sku, l.name, l.unit_price, l.quantity
    FROM unnest($8::uuid[], $9::text[], $10::text[], $11::bigint[], $12::integer[])
        WITH ORDINALITY AS l (product_id, sku, name, unit_price, quantity, line)
)
SELECT number FROM placed;

-- name: get
-- One order, a row per line.
SELECT
    o.id, o.number, o.customer_id, o.status, o.version, o.currency, o.created_at, o.updated_at,
    l.product_id, l.sku, l.name, l.unit_price, l.quantity
FROM orders AS o
LEFT JOIN order_lines AS l ON l.order_id = o.id
WHERE o.id = $1
ORDER BY l.line;

-- name: lock
-- One order, a row per line, locked against changes (not against lines or payments that refer to it).
SELECT
    o.id, o.number, o.customer_id, o.status, o.version, o.currency, o.created_at, o.updated_at,
    l.product_id, l.sku, l.name, l.unit_price, l.quantity
FROM orders AS o
LEFT JOIN order_lines AS l ON l.order_id = o.id
WHERE o.id = $1
ORDER BY l.line
FOR NO KEY UPDATE OF o;

-- name: save
-- Write what changes in the life of an order.
UPDATE orders
SET status = $2, version = $3, updated_at = $4
WHERE id = $1;

-- name: page
-- The newest orders below a number, a row per line.
SELECT
    o.id, o.number, o.customer_id, o.status, o.version, o.currency, o.created_at, o.updated_at,
    l.product_id, l.sku, l.name, l.unit_price, l.quantity
FROM (SELECT * FROM orders WHERE number < $1 ORDER BY number DESC LIMIT $2) AS o
LEFT JOIN order_lines AS l ON l.order_id = o.id
ORDER BY o.number DESC, l.line;

-- name: page_of_customer
-- The newest orders of one customer below a number, a row per line.
SELECT
    o.id, o.number, o.customer_id, o.status, o.version, o.currency, o.created_at, o.updated_at,
    l.product_id, l.sku, l.name, l.unit_price, l.quantity
FROM (SELECT * FROM orders WHERE customer_id = $3 AND number < $1 ORDER BY number DESC LIMIT $2) AS o
LEFT JOIN order_lines AS l ON l.order_id = o.id
ORDER BY o.number DESC, l.line;

-- name: owner_of
-- The account that placed an order.
SELECT customer_id FROM orders WHERE id = $1;
