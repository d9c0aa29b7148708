-- name: try_lock
-- Be the one node that cleans up; held until the session ends.
SELECT pg_try_advisory_lock(28535, 3);

-- name: publications
-- Delete a batch of publications whose time was over $1 ago. A stream loses its first ones only, never one from the middle: what is
-- deleted is everything up to an old one, for a slow transaction's time can be before its predecessor's.
WITH old AS MATERIALIZED (
    SELECT channel, "offset" FROM publications WHERE expires_at < now() - $1::interval ORDER BY expires_at LIMIT $2
), reach AS (
    SELECT channel, max("offset") AS "offset" FROM old GROUP BY channel
)
DELETE FROM publications
WHERE ctid = ANY (ARRAY(
    SELECT first.ctid
    FROM reach AS r
    CROSS JOIN LATERAL (
        SELECT p.ctid
        FROM publications AS p
        WHERE p.channel = r.channel AND p."offset" <= r."offset"
        ORDER BY p."offset"
        LIMIT $2
    ) AS first
));

-- name: seen
-- Delete a batch of event identities older than $1.
DELETE FROM seen
WHERE ctid = ANY (ARRAY(SELECT ctid FROM seen WHERE seen_at < now() - $1::interval ORDER BY seen_at LIMIT $2));

-- name: answers
-- Delete a batch of answers to idempotency keys older than $1.
DELETE FROM idempotency_answers
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency_answers WHERE created_at < now() - $1::interval ORDER BY created_at LIMIT $2
));

-- name: minutes
-- Delete a batch of sums of minutes older than $1.
DELETE FROM order_stats
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM order_stats WHERE span = 'minute' AND begins_at < now() - $1::interval ORDER BY begins_at LIMIT $2
));

-- name: hours
-- Delete a batch of sums of hours older than $1.
DELETE FROM order_stats
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM order_stats WHERE span = 'hour' AND begins_at < now() - $1::interval ORDER BY begins_at LIMIT $2
));

-- name: streams
-- Delete a batch of streams that were not written for $1 and have no publication. Locked first: one that is appended to
-- in this moment is looked at again when the append has committed, and kept. A scalar subquery, for an anti-join may be
-- planned as a scan of all publications; this is one probe of their index an old stream.
DELETE FROM streams
WHERE channel = ANY (ARRAY(
    SELECT s.channel
    FROM streams AS s
    WHERE s.updated_at < now() - $1::interval
        AND (SELECT true FROM publications AS p WHERE p.channel = s.channel LIMIT 1) IS NULL
    ORDER BY s.channel
    LIMIT $2
    FOR UPDATE OF s
));
