-- name: lock
-- Wait until no other process migrates this database; held until the session ends.
SELECT pg_advisory_lock(28535, 2);

-- name: schema
-- The first one of the search path that is there and may be used.
SELECT current_schema();

-- name: is_recorded
-- Was this database ever migrated?
SELECT to_regclass('schema_migrations') IS NOT NULL;

-- name: create_record
-- Where applied migrations are recorded.
CREATE TABLE IF NOT EXISTS schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    oldest_code integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: applied
-- The migrations that this database has.
SELECT number, name, checksum, oldest_code
FROM schema_migrations
ORDER BY number;

-- name: bound_locks
-- A migration that waits for a lock makes everybody behind it wait too: give up before clients notice.
SET LOCAL lock_timeout = '2s';

-- name: record
-- Record a migration with the transaction that applies it.
INSERT INTO schema_migrations (number, name, checksum, oldest_code)
VALUES ($1, $2, $3, $4);
