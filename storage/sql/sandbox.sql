-- name: open
-- Make a payment known, unless it is.
INSERT INTO sandbox_payments (reference, payment_id, amount, currency, status, client_secret)
VALUES ($1, $2, $3, $4, 'requires_payment_method', $5)
ON CONFLICT (payment_id) DO NOTHING;

-- name: get
-- How a payment of ours stands.
SELECT * FROM sandbox_payments WHERE payment_id = $1;

-- name: asked
-- What the bank asks about.
SELECT amount, currency, return_url, status FROM sandbox_payments WHERE reference = $1;

-- name: confirm
-- Try a method, unless this attempt was made or nothing can be tried any more.
UPDATE sandbox_payments
SET
    attempts = $2, method = $3, return_url = $4, status = $5,
    decline_attempt = CASE WHEN $6::text IS NULL THEN decline_attempt ELSE reference || '_' || $2 END,
    decline_code = coalesce($6, decline_code),
    settles_at = now() + $7::interval,
    notify_at = now() + $8::interval
WHERE payment_id = $1 AND attempts < $2 AND status IN ('requires_payment_method', 'requires_action')
RETURNING reference;

-- name: answer
-- What the customer has said to their bank.
UPDATE sandbox_payments
SET
    status = $2,
    decline_attempt = CASE WHEN $3::text IS NULL THEN decline_attempt ELSE reference || '_' || attempts || '_action' END,
    decline_code = coalesce($3, decline_code),
    notify_at = now()
WHERE reference = $1 AND status = 'requires_action'
RETURNING reference;

-- name: cancel
-- Collect nothing any more, unless it was or is being collected.
UPDATE sandbox_payments
SET status = 'cancelled', notify_at = now() + $2::interval
WHERE payment_id = $1 AND status IN ('requires_payment_method', 'requires_action');

-- name: settle_due
-- The bank has decided on what was processing for long enough.
UPDATE sandbox_payments
SET status = 'succeeded', settles_at = NULL, notify_at = now()
WHERE settles_at <= now() AND status = 'processing' AND method = $1
RETURNING reference;

-- name: refuse_due
-- The bank has refused what was processing for long enough.
UPDATE sandbox_payments
SET
    status = 'requires_payment_method', settles_at = NULL, notify_at = now(),
    decline_attempt = reference || '_' || attempts, decline_code = $2
WHERE settles_at <= now() AND status = 'processing' AND method = $1;

-- name: collect
-- The money has come.
INSERT INTO sandbox_movements (id, reference, amount)
SELECT 'charge ' || reference, reference, amount FROM sandbox_payments WHERE reference = $1;

-- name: give_back
-- The money goes back, once for a refund, and no more than has come; how that stands.
WITH known AS (
    SELECT 1 FROM sandbox_movements WHERE id = $1
), made AS (
    INSERT INTO sandbox_movements (id, reference, amount)
    SELECT $1, p.reference, -$3::bigint
    FROM sandbox_payments AS p
    WHERE p.payment_id = $2
        AND (SELECT sum(amount) FROM sandbox_movements AS m WHERE m.reference = p.reference) >= $3
    ON CONFLICT (id) DO UPDATE SET id = excluded.id
    RETURNING 1
)
SELECT EXISTS (SELECT FROM known) OR EXISTS (SELECT FROM made);

-- name: given_back
-- What was given back of a payment of ours.
SELECT m.id
FROM sandbox_movements AS m
JOIN sandbox_payments AS p ON p.reference = m.reference
WHERE p.payment_id = $1 AND m.amount < 0;

-- name: take_notice
-- A payment to tell of; it is told again after ten seconds, unless that was heard.
UPDATE sandbox_payments
SET notify_at = now() + '10 seconds'::interval
WHERE reference = (
    SELECT reference FROM sandbox_payments WHERE notify_at <= now() ORDER BY notify_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING reference, notify_at;

-- name: heard
-- It was told.
UPDATE sandbox_payments SET notify_at = NULL WHERE reference = $1 AND notify_at = $2;
