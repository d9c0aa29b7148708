-- name: page
-- The next products in order of SKU; only those that are for sale, or are not, unless $3 is null.
SELECT id, sku, name, price, currency, stock, tax_rate, for_sale, version
FROM products
WHERE sku > $1 AND ($3::boolean IS NULL OR for_sale = $3)
ORDER BY sku
LIMIT $2;

-- name: some
-- Products by their ids.
SELECT id, sku, name, price, currency, stock, tax_rate, for_sale, version
FROM products
WHERE id = ANY ($1::uuid[]);

-- name: add
-- Insert a product.
INSERT INTO products (id, sku, name, price, currency, stock, tax_rate, for_sale, version)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: lock
-- Lock products in order of id, as `change_stock` does.
SELECT id, sku, name, price, currency, stock, tax_rate, for_sale, version
FROM products
WHERE id = ANY ($1::uuid[])
ORDER BY id
FOR NO KEY UPDATE;

-- name: save
-- Write what can change of a locked product.
UPDATE products
SET name = $2, price = $3, tax_rate = $4, for_sale = $5, stock = $6, version = $7
WHERE id = $1;

-- name: save_stock
-- Write the stock of locked products, which are to be told of.
WITH changed AS (
    UPDATE products AS p
    SET stock = now.stock, version = now.version
    FROM unnest($1::uuid[], $2::integer[], $3::integer[]) AS now (id, stock, version)
    WHERE p.id = now.id
)
INSERT INTO stock_changes (product_id)
SELECT unnest($1::uuid[]);

-- name: change_stock
-- Lock products in order of id, so that two transactions never wait for each other in a circle; add signed pieces to the
-- stock of those that have enough, which are to be told of, and return all as they were before, with the newest stock. One
-- round trip: place is hot.
WITH locked AS MATERIALIZED (
    SELECT id, sku, name, price, currency, stock, tax_rate, for_sale, version
    FROM products
    WHERE id = ANY ($1::uuid[])
    ORDER BY id
    FOR NO KEY UPDATE
), changed AS (
    UPDATE products AS p
    SET stock = p.stock + change.pieces, version = p.version + 1
    FROM unnest($1::uuid[], $2::bigint[]) AS change (id, pieces)
    JOIN locked ON locked.id = change.id
    WHERE p.id = change.id AND locked.stock + change.pieces >= 0
    RETURNING p.id
), noted AS (
    INSERT INTO stock_changes (product_id)
    SELECT id FROM changed
)
SELECT id, sku, name, price, currency, stock, tax_rate, for_sale, version
FROM locked;

-- name: claim_untold
-- Be the one who tells of the products whose stock has changed since it was told: nothing when somebody else became it less than $1
-- ago. A time yet to come is of a clock that was ahead, and nobody waits for it.
WITH untold AS (
    SELECT DISTINCT product_id FROM stock_changes
), head AS (
    SELECT FROM stock_changes_head
    WHERE told_at NOT BETWEEN clock_timestamp() - $1::interval AND clock_timestamp()
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE stock_changes_head
    SET told_at = clock_timestamp()
    FROM head
    WHERE EXISTS (SELECT FROM untold)
    RETURNING true
)
SELECT product_id FROM untold WHERE EXISTS (SELECT FROM claimed);

-- name: take_untold
-- Forget the changes of these products, and return those that there were any of, as they are with all that was forgotten. Each change
-- is looked up among them: with an array, which a plan that is made once does not know, it would be compared with one after the other.
-- IS TRUE makes it no join: they are locked as they lie, by whoever else tells as well.
WITH taken AS (
    DELETE FROM stock_changes
    WHERE (product_id IN (SELECT unnest($1::uuid[]))) IS TRUE
    RETURNING product_id
)
SELECT id, sku, name, price, currency, stock, tax_rate, for_sale, version
FROM products
WHERE id IN (SELECT product_id FROM taken);
