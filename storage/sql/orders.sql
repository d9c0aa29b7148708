-- name: add
-- Insert an order with its lines, numbered from 1, and the begin of its history; returns the number that it was given.
WITH placed AS (
    INSERT INTO orders (id, customer_id, status, version, currency, created_at, updated_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    RETURNING number
), history AS (
    INSERT INTO order_changes (order_id, version, action, status, changed_at, changed_by, account_id)
    VALUES ($1, $4, $9, $3, $7, $10, $11)
), lines AS (
    INSERT INTO order_lines (order_id, line, product_id, sku, name, unit_price, quantity)
    SELECT $1, l.line, l.product_id, l.sku, l.name, l.unit_price, l.quantity
    FROM unnest($12::uuid[], $13::text[], $14::text[], $15::bigint[], $16::integer[])
        WITH ORDINALITY AS l (product_id, sku, name, unit_price, quantity, line)
)
SELECT number FROM placed;

-- name: get
-- One order, a row per line.
SELECT
    o.id, o.number, o.customer_id, o.status, o.version, o.currency, o.created_at, o.updated_at, o.expires_at,
    l.product_id, l.sku, l.name, l.unit_price, l.quantity
FROM orders AS o
LEFT JOIN order_lines AS l ON l.order_id = o.id
WHERE o.id = $1
ORDER BY l.line;

-- name: lock
-- One order, a row per line, locked against changes (not against lines or payments that refer to it).
SELECT
    o.id, o.number, o.customer_id, o.status, o.version, o.currency, o.created_at, o.updated_at, o.expires_at,
    l.product_id, l.sku, l.name, l.unit_price, l.quantity
FROM orders AS o
LEFT JOIN order_lines AS l ON l.order_id = o.id
WHERE o.id = $1
ORDER BY l.line
FOR NO KEY UPDATE OF o;

-- name: lock_due
-- The order that should have expired first and that nobody has locked, as `lock` reads it.
SELECT
    o.id, o.number, o.customer_id, o.status, o.version, o.currency, o.created_at, o.updated_at, o.expires_at,
    l.product_id, l.sku, l.name, l.unit_price, l.quantity
FROM orders AS o
LEFT JOIN order_lines AS l ON l.order_id = o.id
WHERE o.id = (
    SELECT id FROM orders WHERE expires_at <= $1 ORDER BY expires_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
)
ORDER BY l.line
FOR NO KEY UPDATE OF o;

-- name: save
-- Write what changes in the life of an order, and the line of its history.
WITH saved AS (
    UPDATE orders
    SET status = $2, version = $3, updated_at = $4, expires_at = $5
    WHERE id = $1
)
INSERT INTO order_changes (order_id, version, action, status, changed_at, changed_by, account_id)
VALUES ($1, $3, $6, $2, $4, $7, $8);

-- name: changes
-- The history of an order, oldest first.
SELECT version, action, status, changed_at, changed_by, account_id
FROM order_changes
WHERE order_id = $1
ORDER BY version;

-- name: page
-- The newest orders below a number, a row per line.
SELECT
    o.id, o.number, o.customer_id, o.status, o.version, o.currency, o.created_at, o.updated_at, o.expires_at,
    l.product_id, l.sku, l.name, l.unit_price, l.quantity
FROM (SELECT * FROM orders WHERE number < $1 ORDER BY number DESC LIMIT $2) AS o
LEFT JOIN order_lines AS l ON l.order_id = o.id
ORDER BY o.number DESC, l.line;

-- name: page_of_customer
-- The newest orders of one customer below a number, a row per line.
SELECT
    o.id, o.number, o.customer_id, o.status, o.version, o.currency, o.created_at, o.updated_at, o.expires_at,
    l.product_id, l.sku, l.name, l.unit_price, l.quantity
FROM (SELECT * FROM orders WHERE customer_id = $3 AND number < $1 ORDER BY number DESC LIMIT $2) AS o
LEFT JOIN order_lines AS l ON l.order_id = o.id
ORDER BY o.number DESC, l.line;

-- name: owner_of
-- The account that placed an order.
SELECT customer_id FROM orders WHERE id = $1;
