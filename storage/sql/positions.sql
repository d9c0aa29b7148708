-- name: position
-- The head of one stream with its epoch.
SELECT s.top, s.salt || '.' || d.generation AS epoch
FROM streams AS s, deployment AS d
WHERE s.channel = $1;
