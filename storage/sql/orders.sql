-- name: add
-- Insert orders, their lines and the begin of their history, and count those that are no drafts; returns their numbers: those that
-- they are given, if any. $1 to $18 have one value for each order, the others one for each line.
WITH wanted AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[],
        $9::text[], $10::text[], $11::uuid[], $12::bigint[], $13::jsonb[], $14::text[], $15::text[], $16::boolean[], $17::text[],
        $18::bigint[]
    ) AS w (
        id, customer_id, status, version, currency, created_at, updated_at, expires_at, action, changed_by, account_id, total, address,
        note, discount_code, tax_included, words, number
    )
), placed AS (
    INSERT INTO orders (
        id, customer_id, status, version, currency, created_at, updated_at, expires_at, total, address, note, discount_code,
        tax_included, number, search
    )
    OVERRIDING SYSTEM VALUE
    SELECT
        id, customer_id, status, version, currency, created_at, updated_at, expires_at, total, address, note, discount_code,
        tax_included, coalesce(number, nextval('orders_number_seq')),
        -- Not a join, which might be planned through all accounts. A customer who is not there is for the foreign key to refuse.
        coalesce((SELECT order_words(a.name, a.email, w.words, w.address) FROM accounts AS a WHERE a.id = w.customer_id), '')
    FROM wanted AS w
    RETURNING number
), history AS (
    INSERT INTO order_changes (order_id, version, action, status, changed_at, changed_by, account_id)
    SELECT id, version, action, status, updated_at, changed_by, account_id FROM wanted
), counted AS (
    INSERT INTO order_deltas (created_at, currency, status, orders, total)
    SELECT created_at, currency, status, 1, total FROM wanted WHERE status <> 'draft'
), lines AS (
    INSERT INTO order_lines (order_id, line, product_id, sku, name, unit_price, quantity, tax_rate, discount)
    SELECT order_id, line, product_id, sku, name, unit_price, quantity, tax_rate, discount
    FROM unnest(
        $19::uuid[], $20::integer[], $21::uuid[], $22::text[], $23::text[], $24::bigint[], $25::integer[], $26::integer[], $27::bigint[]
    ) AS l (order_id, line, product_id, sku, name, unit_price, quantity, tax_rate, discount)
)
SELECT number FROM placed;

-- name: redraft
-- Write all of an order that was a draft, with its lines, which are $18 and the following, and the line of its history; placed, count
-- it as of now.
WITH drafted AS (
    UPDATE orders AS o
    SET
        status = $3, version = $4, currency = $5, created_at = $6, updated_at = $7, expires_at = $8, total = $12,
        address = $13::jsonb, note = $14, discount_code = $15, tax_included = $16,
        placed_at = CASE WHEN $3 <> 'draft' THEN $7::timestamptz END,
        search = order_words(a.name, a.email, $17, $13::jsonb)
    FROM accounts AS a
    WHERE o.id = $1 AND a.id = $2
), history AS (
    INSERT INTO order_changes (order_id, version, action, status, changed_at, changed_by, account_id)
    VALUES ($1, $4, $9, $3, $7, $10, $11)
), counted AS (
    INSERT INTO order_deltas (created_at, currency, status, orders, total)
    SELECT $7, $5, $3, 1, $12
    WHERE $3 <> 'draft'
), dropped AS (
    DELETE FROM order_lines WHERE order_id = $1 AND line > cardinality($18::integer[])
)
INSERT INTO order_lines AS o (order_id, line, product_id, sku, name, unit_price, quantity, tax_rate, discount)
SELECT $1, l.line, l.product_id, l.sku, l.name, l.unit_price, l.quantity, l.tax_rate, l.discount
FROM unnest($18::integer[], $19::uuid[], $20::text[], $21::text[], $22::bigint[], $23::integer[], $24::integer[], $25::bigint[])
    AS l (line, product_id, sku, name, unit_price, quantity, tax_rate, discount)
ON CONFLICT (order_id, line) DO UPDATE
SET
    product_id = excluded.product_id, sku = excluded.sku, name = excluded.name, unit_price = excluded.unit_price,
    quantity = excluded.quantity, tax_rate = excluded.tax_rate, discount = excluded.discount;

-- name: get
-- One order, its lines as arrays, with the head of a stream; one row in any case, with NULLs for what there is not.
SELECT
    p.top, p.epoch,
    o.id, o.number, o.customer_id, o.status, o.version, o.currency, o.created_at, o.updated_at, o.expires_at, o.refunded,
    o.address, o.note, o.discount_code, o.tax_included,
    l.product_ids, l.skus, l.names, l.unit_prices, l.quantities, l.tax_rates, l.discounts
FROM (VALUES (true)) AS always
LEFT JOIN (
    SELECT s.top, s.salt || '.' || d.generation AS epoch FROM streams AS s CROSS JOIN deployment AS d WHERE s.channel = $2
) AS p ON true
LEFT JOIN orders AS o ON o.id = $1
LEFT JOIN LATERAL (
    SELECT
        array_agg(product_id) AS product_ids, array_agg(sku) AS skus, array_agg(name) AS names,
        array_agg(unit_price) AS unit_prices, array_agg(quantity) AS quantities, array_agg(tax_rate) AS tax_rates,
        array_agg(discount) AS discounts
    FROM (SELECT * FROM order_lines WHERE order_id = o.id ORDER BY line) AS lines
) AS l ON true;

-- name: get_all
-- Those of these orders that there are, as `get` has them.
SELECT
    o.id, o.number, o.customer_id, o.status, o.version, o.currency, o.created_at, o.updated_at, o.expires_at, o.refunded,
    o.address, o.note, o.discount_code, o.tax_included,
    l.product_ids, l.skus, l.names, l.unit_prices, l.quantities, l.tax_rates, l.discounts
FROM orders AS o
CROSS JOIN LATERAL (
    SELECT
        array_agg(product_id) AS product_ids, array_agg(sku) AS skus, array_agg(name) AS names,
        array_agg(unit_price) AS unit_prices, array_agg(quantity) AS quantities, array_agg(tax_rate) AS tax_rates,
        array_agg(discount) AS discounts
    FROM (SELECT * FROM order_lines WHERE order_id = o.id ORDER BY line) AS lines
) AS l
WHERE o.id = ANY ($1::uuid[]);

-- name: lock
-- Lock an order against changes (not against lines or payments that refer to it). What is in it is read afterwards: a statement that
-- has waited for the row still sees its lines as they were when it began.
SELECT FROM orders WHERE id = $1 FOR NO KEY UPDATE;

-- name: lock_due
-- Lock the order that should have expired first, that nobody has locked and nobody is just paying for, as `lock` does; none of $2.
-- Payments are seen as they were when the statement began, not when it had the lock: ask twice.
SELECT id
FROM orders
WHERE expires_at <= $1
    AND id <> ALL ($2::uuid[])
    AND NOT EXISTS (SELECT FROM payments WHERE order_id = orders.id AND status = 'processing')
ORDER BY expires_at
LIMIT 1
FOR NO KEY UPDATE SKIP LOCKED;

-- name: save
-- Write what changes in the life of an order, and the line of its history; count it as what it is now, unless it is not counted
-- because it was a draft.
WITH before AS (
    SELECT coalesce(placed_at, created_at) AS placed_at, currency, status, total, refunded FROM orders WHERE id = $1
), saved AS (
    UPDATE orders
    SET status = $2, version = $3, updated_at = $4, expires_at = $5, refunded = $9
    WHERE id = $1
), counted AS (
    INSERT INTO order_deltas (created_at, currency, status, orders, total, refunded)
    SELECT b.placed_at, b.currency, d.status, d.orders, d.orders * b.total, d.orders * d.refunded
    FROM before AS b
    CROSS JOIN LATERAL (VALUES (b.status, -1, b.refunded), ($2, 1, $9)) AS d (status, orders, refunded)
    WHERE b.status <> 'draft'
)
INSERT INTO order_changes (order_id, version, action, status, changed_at, changed_by, account_id)
VALUES ($1, $3, $6, $2, $4, $7, $8);

-- name: edit
-- Write another address and note, what an order is found by with these, and the line of its history.
WITH edited AS (
    UPDATE orders AS o
    SET
        version = $2, updated_at = $3, address = $4::jsonb, note = $5,
        search = order_words(a.name, a.email, l.words, $4::jsonb)
    FROM accounts AS a, (
        SELECT string_agg(concat_ws(' ', name, sku), ' ') AS words FROM order_lines WHERE order_id = $1
    ) AS l
    WHERE o.id = $1 AND a.id = o.customer_id
)
INSERT INTO order_changes (order_id, version, action, status, changed_at, changed_by, account_id)
VALUES ($1, $2, $6, $7, $3, $8, $9);

-- name: changes
-- The next changes of an order after a version, oldest first.
SELECT version, action, status, changed_at, changed_by, account_id
FROM order_changes
WHERE order_id = $1 AND version > $2::bigint
ORDER BY version
LIMIT $3;

-- name: page
-- Which are the first orders behind a place in the order of {column}, with the head of a stream: a row for each, and one if there is
-- none. What is NULL asks for nothing: planned for its values, only what is asked for is left of it. {column}, {direction} and
-- {behind} are of `storage.orders`.
SELECT p.top, p.epoch, o.id, o.version, o.updated_at
FROM (VALUES (true)) AS always
LEFT JOIN (
    SELECT s.top, s.salt || '.' || d.generation AS epoch FROM streams AS s CROSS JOIN deployment AS d WHERE s.channel = $12
) AS p ON true
LEFT JOIN (
    SELECT *
    FROM orders
    WHERE ({column}, number) {behind} ($9, $10)
        AND ($1::uuid IS NULL OR customer_id = $1)
        AND ($2::text[] IS NULL OR status = ANY ($2))
        AND ($3::timestamptz IS NULL OR created_at >= $3)
        AND ($4::timestamptz IS NULL OR created_at < $4)
        AND ($5::bigint IS NULL OR total >= $5)
        AND ($6::bigint IS NULL OR total <= $6)
        AND ($7::text IS NULL OR search @@ websearch_to_tsquery('simple', $7) OR number = $8)
    ORDER BY {column} {direction}, number {direction}
    LIMIT $11
) AS o ON true
ORDER BY o.{column} {direction}, o.number {direction};

-- name: count
-- How many orders there are of those that `page` asks for.
SELECT count(*)
FROM orders
WHERE ($1::uuid IS NULL OR customer_id = $1)
    AND ($2::text[] IS NULL OR status = ANY ($2))
    AND ($3::timestamptz IS NULL OR created_at >= $3)
    AND ($4::timestamptz IS NULL OR created_at < $4)
    AND ($5::bigint IS NULL OR total >= $5)
    AND ($6::bigint IS NULL OR total <= $6)
    AND ($7::text IS NULL OR search @@ websearch_to_tsquery('simple', $7) OR number = $8);

-- name: owner_of
-- The account that placed an order.
SELECT customer_id FROM orders WHERE id = $1;
