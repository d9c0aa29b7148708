-- oldest-code: 5
-- How many orders there are and what they come to, by when they were placed and by status.

-- What transactions have changed of that, until it is added up. Would they do that themselves, all of a minute would write to one
-- row, and wait for each other.
CREATE TABLE order_deltas (
    created_at timestamptz NOT NULL,
    currency text NOT NULL,
    status text NOT NULL,
    orders bigint NOT NULL,
    total bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- The sum of what was added up.
CREATE TABLE order_stats (
    span text NOT NULL CHECK (span IN ('minute', 'hour', 'day', 'ever')),
    begins_at timestamptz NOT NULL,
    currency text NOT NULL,
    status text NOT NULL,
    orders bigint NOT NULL,
    total bigint NOT NULL,
    PRIMARY KEY (span, begins_at, currency, status)
) WITH (fillfactor = 50);

-- One row: how often it was added up, and when last.
CREATE TABLE order_stats_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL,
    added_up_at timestamptz NOT NULL
);
INSERT INTO order_stats_head (version, added_up_at) VALUES (0, now());

CREATE FUNCTION span_begin(span text, moment timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE span WHEN 'ever' THEN 'epoch'::timestamptz ELSE date_trunc(span, moment, 'UTC') END;

INSERT INTO order_deltas (created_at, currency, status, orders, total)
SELECT date_trunc('minute', created_at), currency, status, count(*), sum(total)
FROM orders
GROUP BY 1, 2, 3;
