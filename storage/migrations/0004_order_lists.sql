-- oldest-code: 4
-- Lists of orders by what they cost, when they changed and what is in them, each in an order that an index has.

ALTER TABLE orders
    ADD COLUMN total bigint CHECK (total >= 0),
    -- Words of the customer's name and address and of the products' names and SKUs, as they were when it was placed.
    ADD COLUMN search tsvector;

UPDATE orders AS o
SET total = l.total, search = to_tsvector('simple', concat_ws(' ', a.name, a.email, l.words))
FROM accounts AS a, (
    SELECT order_id, sum(unit_price * quantity) AS total, string_agg(concat_ws(' ', name, sku), ' ') AS words
    FROM order_lines
    GROUP BY order_id
) AS l
WHERE a.id = o.customer_id AND l.order_id = o.id;

ALTER TABLE orders ALTER COLUMN total SET NOT NULL, ALTER COLUMN search SET NOT NULL;

CREATE INDEX orders_created_at_idx ON orders (created_at, number);
CREATE INDEX orders_updated_at_idx ON orders (updated_at, number);
CREATE INDEX orders_total_idx ON orders (total, number);
CREATE INDEX orders_status_idx ON orders (status, created_at, number);
CREATE INDEX orders_customer_id_idx ON orders (customer_id, created_at, number);
CREATE INDEX orders_search_idx ON orders USING gin (search);
DROP INDEX orders_customer_id_number_idx;
