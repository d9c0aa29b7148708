-- name: get
-- One account.
SELECT id, email, name, role, password_hash
FROM accounts
WHERE id = $1;

-- name: by_email
-- The account that signs in with an e-mail address in lower case.
SELECT id, email, name, role, password_hash
FROM accounts
WHERE email = $1;

-- name: add
-- Insert an account.
INSERT INTO accounts (id, email, name, role, password_hash)
VALUES ($1, $2, $3, $4, $5);
