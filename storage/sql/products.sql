-- name: page
-- The next products in order of SKU.
SELECT id, sku, name, price, currency, stock, tax_rate
FROM products
WHERE sku > $1
ORDER BY sku
LIMIT $2;

-- name: some
-- Products by their ids.
SELECT id, sku, name, price, currency, stock, tax_rate
FROM products
WHERE id = ANY ($1::uuid[]);

-- name: add
-- Insert a product.
INSERT INTO products (id, sku, name, price, currency, stock, tax_rate)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: lock
-- Lock products in order of id, as `change_stock` does.
SELECT id, sku, name, price, currency, stock, tax_rate
FROM products
WHERE id = ANY ($1::uuid[])
ORDER BY id
FOR NO KEY UPDATE;

-- name: change_stock
-- Lock products in order of id, so that two transactions never wait for each other in a circle; add signed pieces to the
-- stock of those that have enough, and return all as they were before, with the newest stock. One round trip: place is hot.
WITH locked AS MATERIALIZED (
    SELECT id, sku, name, price, currency, stock, tax_rate
    FROM products
    WHERE id = ANY ($1::uuid[])
    ORDER BY id
    FOR NO KEY UPDATE
), changed AS (
    UPDATE products AS p
    SET stock = p.stock + change.pieces
    FROM unnest($1::uuid[], $2::bigint[]) AS change (id, pieces)
    JOIN locked ON locked.id = change.id
    WHERE p.id = change.id AND locked.stock + change.pieces >= 0
)
SELECT id, sku, name, price, currency, stock, tax_rate
FROM locked;
