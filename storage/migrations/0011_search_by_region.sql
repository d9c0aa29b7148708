-- oldest-code: 8
-- The region is a part of the address that an order is found by.

CREATE OR REPLACE FUNCTION order_words(name text, email text, products text, address jsonb) RETURNS tsvector
LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_tsvector(
    'simple',
    concat_ws(
        ' ', name, email, products,
        address ->> 'name', address ->> 'line1', address ->> 'line2', address ->> 'postal_code', address ->> 'city',
        address ->> 'region'
    )
);
UPDATE orders
SET search = search || to_tsvector('simple', address ->> 'region')
WHERE address ->> 'region' IS NOT NULL;
