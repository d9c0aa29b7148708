-- name: page
-- The next products in order of SKU.
SELECT id, sku, name, price, currency, stock
FROM products
WHERE sku > $1
ORDER BY sku
LIMIT $2;

-- name: get
-- One product.
SELECT id, sku, name, price, currency, stock
FROM products
WHERE id = $1;

-- name: add
-- Insert a product.
INSERT INTO products (id, sku, name, price, currency, stock)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: lock
-- Lock products in order of id, so that two transactions never wait for each other in a circle, and see the newest stock.
SELECT id, sku, name, price, currency, stock
FROM products
WHERE id = ANY ($1::uuid[])
ORDER BY id
FOR NO KEY UPDATE;

-- name: change_stock
-- Add signed differences to the stock of locked products.
UPDATE products AS p
SET stock = p.stock + change.pieces
FROM unnest($1::uuid[], $2::integer[]) AS change (id, pieces)
WHERE p.id = change.id;
