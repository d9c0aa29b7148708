-- oldest-code: 7
-- Where orders go, and what their customers say to it.

ALTER TABLE orders ADD COLUMN address jsonb, ADD COLUMN note text;

-- What an order is found by: the words of its customer, of what is in it and of where it goes.
CREATE FUNCTION order_words(name text, email text, products text, address jsonb) RETURNS tsvector
LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_tsvector(
    'simple',
    concat_ws(
        ' ', name, email, products,
        address ->> 'name', address ->> 'line1', address ->> 'line2', address ->> 'postal_code', address ->> 'city'
    )
);
