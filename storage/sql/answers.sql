-- name: claim
-- Take an idempotency key for this transaction unless another one has it; never waits.
SELECT pg_try_advisory_xact_lock(hashtextextended($2, hashtextextended($1::uuid::text, 0)));

-- name: get
-- The answer that was given under a key before.
SELECT fingerprint, status, body
FROM idempotency_answers
WHERE account_id = $1 AND key = $2;

-- name: keep
-- Keep the answer to the request that claimed the key.
INSERT INTO idempotency_answers (account_id, key, fingerprint, status, body)
VALUES ($1, $2, $3, $4, $5);
