-- oldest-code: 12
-- PostgreSQL takes AC/DC for the path of a file, which is one word: what a slash joins is found word by word too. The text is there
-- twice only where there is a slash.

CREATE FUNCTION with_parts(words text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN words LIKE '%/%' THEN words || ' ' || translate(words, '/', ' ') ELSE words END;

CREATE OR REPLACE FUNCTION order_words(name text, email text, products text, address jsonb) RETURNS tsvector
LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_tsvector(
    'simple',
    with_parts(
        concat_ws(
            ' ', name, email, products,
            address ->> 'name', address ->> 'line1', address ->> 'line2', address ->> 'postal_code', address ->> 'city',
            address ->> 'region'
        )
    )
);

-- Of the orders that there are, by what is in their own column: it has what is joined, and few have any.
UPDATE orders
SET search = search || to_tsvector('simple', translate(array_to_string(tsvector_to_array(search), ' '), '/', ' '))
WHERE array_to_string(tsvector_to_array(search), ' ') LIKE '%/%';
