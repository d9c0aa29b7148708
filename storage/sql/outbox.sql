-- name: add
-- Emit events with the transaction, in this order.
INSERT INTO outbox (event_id, type, subject, body)
SELECT event_id, type, subject, body
FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) WITH ORDINALITY AS e (event_id, type, subject, body, n)
ORDER BY n;

-- name: try_lead
-- Become the one relay of the deployment unless another session is; held until the session ends.
SELECT pg_try_advisory_lock(28535, 1);

-- name: pending
-- Forget the events that the broker has, and return the oldest others there are, always from the beginning. Both parts see the
-- table as it was before, so the others are asked for.
WITH removed AS (
    DELETE FROM outbox WHERE id = ANY ($2::bigint[])
)
SELECT id, event_id, type, subject, body
FROM outbox
WHERE id <> ALL ($2::bigint[])
ORDER BY id
LIMIT $1;

-- name: notify
-- Wake the relay, wherever it is.
SELECT pg_notify('orderwire_outbox', '');

-- name: backlog
-- How many events wait, counted up to a bound, and for how many seconds the oldest has.
SELECT
    (SELECT count(*) FROM (SELECT FROM outbox LIMIT $1) AS counted) AS waiting,
    coalesce((SELECT extract(epoch FROM clock_timestamp() - created_at) FROM outbox ORDER BY id LIMIT 1), 0)::float8 AS age;
