-- name: publish
-- One row for each message: its queue ($1) and its body ($2). Ids of one queue are in that order.
INSERT INTO broker_messages (queue, body, headers)
SELECT queue, body, jsonb_build_object('content_type', $3::text)
FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS message (queue, body, position)
ORDER BY position;

-- name: dead_letter
-- One row in a queue ($1) that nobody consumes, with its content type and why it is there in the headers ($3).
INSERT INTO broker_messages (queue, body, headers) VALUES ($1, $2, $3::jsonb);

-- name: tell
-- Wake the consumers in other processes; takes effect when the transaction commits.
SELECT pg_notify($1, '');

-- name: try_consume
-- True when this session now is the queue's one consumer, until it ends.
SELECT pg_try_advisory_lock(hashtextextended('orderwire queue ' || $1, 0));

-- name: pending
-- The oldest messages of a queue, always from its beginning: an id may become visible after a higher one.
SELECT id, body, headers FROM broker_messages WHERE queue = $1 ORDER BY id LIMIT $2;

-- name: remove
-- What was acknowledged.
DELETE FROM broker_messages WHERE queue = $1 AND id = ANY ($2::bigint[]);
