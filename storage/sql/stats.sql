-- name: claim
-- Be the one who adds up, until the transaction ends: the next version, or nothing when nothing has changed, somebody else is at
-- it, or did it less than $1 ago. A time yet to come is of a clock that was ahead, and nobody waits for it.
WITH head AS (
    SELECT version FROM order_stats_head
    WHERE added_up_at NOT BETWEEN clock_timestamp() - $1::interval AND clock_timestamp()
    FOR UPDATE SKIP LOCKED
)
UPDATE order_stats_head AS h
SET version = head.version + 1, added_up_at = clock_timestamp()
FROM head
WHERE (SELECT true FROM order_deltas LIMIT 1)
RETURNING h.version;

-- name: add_up
-- Add up to $1 changes to the sums; of those before $2 no minutes are kept, of those before $3 no hours. Returns how many.
WITH taken AS (
    DELETE FROM order_deltas
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM order_deltas LIMIT $1))
    RETURNING created_at, currency, status, orders, total, refunded
), added AS (
    INSERT INTO order_stats AS s (span, begins_at, currency, status, orders, total, refunded)
    SELECT span, span_begin(span, created_at), currency, status, sum(orders), sum(total), sum(refunded)
    FROM taken
    CROSS JOIN unnest(ARRAY['minute', 'hour', 'day', 'ever']) AS span
    WHERE (span <> 'minute' OR created_at >= $2) AND (span <> 'hour' OR created_at >= $3)
    GROUP BY 1, 2, 3, 4
    ON CONFLICT (span, begins_at, currency, status) DO UPDATE
    SET
        orders = s.orders + excluded.orders,
        total = s.total + excluded.total,
        refunded = s.refunded + excluded.refunded
)
SELECT count(*) FROM taken;

-- name: version
-- How often it was added up.
SELECT version FROM order_stats_head;

-- name: recent
-- Since ever, and the minutes, hours and days that began at $1, $2 and $3 or later; with what waits to be added up, in one snapshot.
WITH counted AS (
    SELECT span, begins_at, currency, status, orders, total, refunded
    FROM order_stats
    UNION ALL
    SELECT span, span_begin(span, created_at), currency, status, orders, total, refunded
    FROM order_deltas
    CROSS JOIN unnest(ARRAY['minute', 'hour', 'day', 'ever']) AS span
)
SELECT span, begins_at, currency, status,
    sum(orders)::bigint AS orders, sum(total)::bigint AS total, sum(refunded)::bigint AS refunded
FROM counted
WHERE span = 'ever'
    OR (span = 'minute' AND begins_at >= $1)
    OR (span = 'hour' AND begins_at >= $2)
    OR (span = 'day' AND begins_at >= $3)
GROUP BY span, begins_at, currency, status
HAVING sum(orders) <> 0
ORDER BY span, begins_at, currency, status;

-- name: series
-- Spans of one kind that began at $2 or later and before $3; with what waits to be added up, in one snapshot.
WITH counted AS (
    SELECT begins_at, currency, status, orders, total, refunded
    FROM order_stats
    WHERE span = $1 AND begins_at >= $2 AND begins_at < $3
    UNION ALL
    SELECT span_begin($1, created_at), currency, status, orders, total, refunded
    FROM order_deltas
    WHERE span_begin($1, created_at) >= $2 AND span_begin($1, created_at) < $3
)
SELECT $1 AS span, begins_at, currency, status,
    sum(orders)::bigint AS orders, sum(total)::bigint AS total, sum(refunded)::bigint AS refunded
FROM counted
GROUP BY begins_at, currency, status
HAVING sum(orders) <> 0
ORDER BY begins_at, currency, status;
