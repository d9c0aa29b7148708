-- name: claim
-- For each of several commands: the number of the order that it may place, and, where it has an idempotency key, whether that is this
-- transaction's now, never waiting, and the answer given before, if any.
SELECT w.number, w.is_ours, a.fingerprint, a.status, a.body
FROM (
    SELECT
        n, account_id, key, nextval('orders_number_seq') AS number,
        key IS NULL OR pg_try_advisory_xact_lock(hashtextextended(key, hashtextextended(account_id::text, 0))) AS is_ours
    FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS wanted (account_id, key, n)
) AS w
LEFT JOIN idempotency_answers AS a ON a.account_id = w.account_id AND a.key = w.key
ORDER BY w.n;
