-- name: append
-- Append a batch without repeats in itself: drop what its channel has seen, lock the channels in order of name, mint offsets.
-- Raises unique_violation on seen_pkey when another transaction appended one of the entries meanwhile: then do it again.
WITH fresh AS MATERIALIZED (
    -- A scalar subquery, for an anti-join may be planned as a scan of all of seen; this is one probe of its index an entry.
    SELECT
        e.n, e.channel, e.source, e.id, e.data, e.time_ms, e.info, e.tags, e.size, e.ttl,
        row_number() OVER (PARTITION BY e.channel ORDER BY e.n DESC) - 1 AS followers
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bigint[], $9::float8[])
        WITH ORDINALITY AS e (channel, source, id, data, time_ms, info, tags, size, ttl, n)
    WHERE e.id = ''
        OR (SELECT true FROM seen AS s WHERE s.channel = e.channel AND s.source = e.source AND s.id = e.id) IS NULL
), grown AS (
    INSERT INTO streams AS s (channel, salt, top, history_size)
    SELECT channel, $10, count(*), min(size) FROM fresh GROUP BY channel ORDER BY channel
    ON CONFLICT (channel) DO UPDATE
    SET top = s.top + excluded.top, history_size = excluded.history_size, updated_at = now()
    RETURNING channel, salt, top
), placed AS MATERIALIZED (
    -- Joined before anything is written, so that each channel's lock is held by then.
    SELECT f.n, f.channel, f.source, f.id, f.data, f.time_ms, f.info, f.tags, f.ttl, g.top - f.followers AS "offset", g.salt
    FROM fresh AS f JOIN grown AS g ON g.channel = f.channel
), written AS (
    INSERT INTO publications (channel, "offset", data, time_ms, info, tags, expires_at)
    SELECT channel, "offset", data, time_ms, info, tags, now() + make_interval(secs => ttl) FROM placed ORDER BY n
), remembered AS (
    INSERT INTO seen (channel, source, id, "offset")
    SELECT channel, source, id, "offset" FROM placed WHERE id <> ''
)
SELECT n, "offset", salt || '.' || (SELECT generation FROM deployment) AS epoch
FROM placed
ORDER BY n;

-- name: read
-- A page of one stream with its head, in one snapshot; one row without an offset when there is nothing to read.
SELECT s.top, s.salt || '.' || d.generation AS epoch, p."offset", p.data, p.time_ms, p.info, p.tags
FROM streams AS s
CROSS JOIN deployment AS d
LEFT JOIN LATERAL (
    SELECT
        sized."offset", sized.data, sized.time_ms, sized.info, sized.tags,
        sum(octet_length(sized.data)) OVER (ORDER BY sized."offset") AS bytes,
        row_number() OVER (ORDER BY sized."offset") AS place
    FROM (
        SELECT "offset", data, time_ms, info, tags
        FROM publications
        WHERE channel = $1 AND "offset" > greatest($2, s.top - s.history_size)
        ORDER BY "offset"
        LIMIT $3
    ) AS sized
) AS p ON p.bytes <= $4 OR p.place = 1
WHERE s.channel = $1
ORDER BY p."offset";

-- name: read_back
-- The same backwards: newest first, from before an offset.
SELECT s.top, s.salt || '.' || d.generation AS epoch, p."offset", p.data, p.time_ms, p.info, p.tags
FROM streams AS s
CROSS JOIN deployment AS d
LEFT JOIN LATERAL (
    SELECT
        sized."offset", sized.data, sized.time_ms, sized.info, sized.tags,
        sum(octet_length(sized.data)) OVER (ORDER BY sized."offset" DESC) AS bytes,
        row_number() OVER (ORDER BY sized."offset" DESC) AS place
    FROM (
        SELECT "offset", data, time_ms, info, tags
        FROM publications
        WHERE channel = $1 AND "offset" < $2 AND "offset" > s.top - s.history_size
        ORDER BY "offset" DESC
        LIMIT $3
    ) AS sized
) AS p ON p.bytes <= $4 OR p.place = 1
WHERE s.channel = $1
ORDER BY p."offset" DESC;

-- name: lock_version
-- The version of a stream, which begins if it is not there; nobody else appends to it until the transaction ends.
INSERT INTO streams AS s (channel, salt, top)
VALUES ($1, $2, 0)
ON CONFLICT (channel) DO UPDATE SET updated_at = now()
RETURNING s.version, s.version_epoch;

-- name: set_version
-- After an append in the same transaction.
UPDATE streams SET version = $2, version_epoch = $3 WHERE channel = $1;

-- name: remember
-- Note an identity that has no publication; no row when the channel has had it.
INSERT INTO seen (channel, source, id) VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING
RETURNING true;

-- name: forget
-- Forget an identity that has no publication.
DELETE FROM seen WHERE channel = $1 AND source = $2 AND id = $3 AND "offset" IS NULL;

-- name: find
-- Where an entry went that its channel has had.
SELECT seen."offset", s.salt || '.' || d.generation AS epoch
FROM seen
JOIN streams AS s ON s.channel = seen.channel
CROSS JOIN deployment AS d
WHERE seen.channel = $1 AND seen.source = $2 AND seen.id = $3 AND seen."offset" IS NOT NULL;

-- name: trim
-- Delete what can no longer be read in these streams, because enough has come after it.
DELETE FROM publications AS p
USING streams AS s
WHERE s.channel = ANY ($1::text[]) AND p.channel = s.channel AND p."offset" <= s.top - s.history_size;

-- name: clear
-- Delete all that was published in a stream.
DELETE FROM publications WHERE channel = $1;

-- name: begin
-- Begin those of these streams that are not there. In the order of names, as the append does, so that nobody waits in a circle.
INSERT INTO streams (channel, salt, top)
SELECT channel, $2, 0 FROM unnest($1::text[]) AS missing (channel) ORDER BY channel
ON CONFLICT (channel) DO NOTHING;

-- name: moved
-- The heads that are not where they are known to be, and whether the database is another than the one that the generation was
-- counted for; one row without a channel when all are where they were.
SELECT
    m.channel, m.top, m.epoch,
    (d.system_identifier, d.timeline)
        IS DISTINCT FROM (c.system_identifier, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint)
        AS is_another_database
FROM deployment AS d
CROSS JOIN pg_control_system() AS c
LEFT JOIN LATERAL (
    SELECT k.channel, coalesce(s.top, 0) AS top, coalesce(s.salt || '.' || d.generation, '') AS epoch, k.top AS known_top, k.epoch AS known_epoch
    FROM unnest($1::text[], $2::bigint[], $3::text[]) AS k (channel, top, epoch)
    LEFT JOIN streams AS s ON s.channel = k.channel
) AS m ON (m.top, m.epoch) IS DISTINCT FROM (m.known_top, m.known_epoch);

-- name: follow_database
-- Count a new generation if the database was restored or failed over since the last; only the first of many that notice does.
UPDATE deployment AS d
SET generation = d.generation + 1, system_identifier = now_at.system_identifier, timeline = now_at.timeline
FROM (
    SELECT system_identifier, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint AS timeline
    FROM pg_control_system()
) AS now_at
WHERE (d.system_identifier, d.timeline) IS DISTINCT FROM (now_at.system_identifier, now_at.timeline)
RETURNING d.generation;

-- name: new_epoch
-- Count a new generation, whatever the database is.
UPDATE deployment
SET generation = generation + 1
RETURNING generation;
