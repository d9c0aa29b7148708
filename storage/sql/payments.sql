-- name: add
-- Insert a payment that has no refunds yet.
INSERT INTO payments (
    id, order_id, provider, amount, currency, status, version, created_at, updated_at, attempts, attempt_key, ask_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12);

-- name: save
-- Write what changes in the life of a payment, and its refunds.
WITH saved AS (
    UPDATE payments
    SET
        status = $2, version = $3, updated_at = $4, attempts = $5, attempt_key = $6, ask_at = $7, asked = 0,
        reference = $8, provider_status = $9, client_secret = $10, action_url = $11,
        decline_attempt = $12, decline_code = $13, decline_message = $14
    WHERE id = $1
)
INSERT INTO refunds (id, payment_id, amount, reason, status, requested_by, created_at)
SELECT r.id, $1, r.amount, r.reason, r.status, r.requested_by, r.created_at
FROM unnest($15::uuid[], $16::bigint[], $17::text[], $18::text[], $19::uuid[], $20::timestamptz[])
    AS r (id, amount, reason, status, requested_by, created_at)
ON CONFLICT (id) DO UPDATE SET status = excluded.status;

-- name: get
-- One payment, a row per refund.
SELECT
    p.*,
    r.id AS refund_id, r.amount AS refund_amount, r.reason, r.status AS refund_status, r.requested_by,
    r.created_at AS refund_created_at
FROM payments AS p
LEFT JOIN refunds AS r ON r.payment_id = p.id
WHERE p.id = $1
ORDER BY r.created_at, r.id;

-- name: current
-- The last payment of an order.
SELECT id FROM payments WHERE order_id = $1 ORDER BY number DESC LIMIT 1;

-- name: ask_soon
-- Let the provider be asked about what is not settled of an order's payments.
UPDATE payments SET ask_at = $2, asked = 0 WHERE order_id = $1 AND status NOT IN ('succeeded', 'cancelled');

-- name: ask_no_more
-- There is nothing to learn about a payment.
UPDATE payments SET ask_at = NULL WHERE id = $1 AND ask_at IS NOT NULL;

-- name: ask_about
-- Let the provider be asked about one payment, and return its id.
UPDATE payments SET ask_at = $3, asked = 0 WHERE provider = $1 AND reference = $2 RETURNING id;

-- name: take_due
-- The payment that should be asked about first; due again after a pause that doubles each time, from 5 seconds to an hour.
UPDATE payments
SET ask_at = $2 + least('1 hour'::interval, '5 seconds'::interval * 2 ^ least(asked, 20)), asked = asked + 1
WHERE id = (
    SELECT id FROM payments WHERE ask_at <= $2 AND provider = $1 ORDER BY ask_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
)
RETURNING id;
