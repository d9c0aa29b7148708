-- name: add
-- Insert a discount.
INSERT INTO discounts (id, code, rate, starts_at, ends_at, max_uses, uses, version, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: page
-- The next discounts in order of code.
SELECT id, code, rate, starts_at, ends_at, max_uses, uses, version, created_at, updated_at
FROM discounts
WHERE code > $1
ORDER BY code
LIMIT $2;

-- name: get
-- One discount.
SELECT id, code, rate, starts_at, ends_at, max_uses, uses, version, created_at, updated_at
FROM discounts
WHERE id = $1;

-- name: lock
-- One discount, locked against changes.
SELECT id, code, rate, starts_at, ends_at, max_uses, uses, version, created_at, updated_at
FROM discounts
WHERE id = $1
FOR NO KEY UPDATE;

-- name: by_code
-- The discount with a code.
SELECT id, code, rate, starts_at, ends_at, max_uses, uses, version, created_at, updated_at
FROM discounts
WHERE code = $1;

-- name: lock_codes
-- The discounts with some codes, locked against changes in order of code.
SELECT id, code, rate, starts_at, ends_at, max_uses, uses, version, created_at, updated_at
FROM discounts
WHERE code = ANY ($1::text[])
ORDER BY code
FOR NO KEY UPDATE;

-- name: save
-- Write what can change of a discount.
UPDATE discounts
SET ends_at = $2, max_uses = $3, uses = $4, version = $5, updated_at = $6
WHERE id = $1;
