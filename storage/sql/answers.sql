-- name: claim
-- Take an idempotency key for this transaction unless another one has it, never waiting; the answer given before, if any.
SELECT c.is_ours, a.fingerprint, a.status, a.body
FROM (SELECT pg_try_advisory_xact_lock(hashtextextended($2, hashtextextended($1::uuid::text, 0)))) AS c (is_ours)
LEFT JOIN idempotency_answers AS a ON a.account_id = $1 AND a.key = $2;

-- name: keep
-- Keep the answers to the requests that claimed these keys.
INSERT INTO idempotency_answers (account_id, key, fingerprint, status, body)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::integer[], $5::bytea[]);
