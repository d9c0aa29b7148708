-- oldest-code: 1
-- Accounts, products, orders; the outbox; the streams; the broker of the embedded default.

CREATE TABLE accounts (
    id uuid PRIMARY KEY,
    email text NOT NULL CHECK (email = lower(email)),
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('customer', 'staff', 'admin')),
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX accounts_email_key ON accounts (email);

CREATE TABLE products (
    id uuid PRIMARY KEY,
    sku text NOT NULL CHECK (char_length(sku) BETWEEN 1 AND 64),
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    price bigint NOT NULL CHECK (price >= 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    stock integer NOT NULL CHECK (stock >= 0)
);
CREATE UNIQUE INDEX products_sku_key ON products (sku);

CREATE TABLE orders (
    id uuid PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY,
    customer_id uuid NOT NULL REFERENCES accounts (id),
    status text NOT NULL CHECK (status IN ('placed', 'paid', 'shipped', 'delivered', 'cancelled')),
    version integer NOT NULL CHECK (version > 0),
    currency text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX orders_number_key ON orders (number);
CREATE INDEX orders_customer_id_number_idx ON orders (customer_id, number DESC);

CREATE TABLE order_lines (
    order_id uuid NOT NULL REFERENCES orders (id),
    line smallint NOT NULL,
    product_id uuid NOT NULL REFERENCES products (id),
    sku text NOT NULL,
    name text NOT NULL,
    unit_price bigint NOT NULL CHECK (unit_price >= 0),
    quantity integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, line)
);

-- The first answer to each Idempotency-Key, replayed for 24 hours.
CREATE TABLE idempotency_answers (
    account_id uuid NOT NULL REFERENCES accounts (id),
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, key)
);
CREATE INDEX idempotency_answers_created_at_idx ON idempotency_answers (created_at);

-- Events of committed transactions that the broker has not confirmed yet. Ids of one subject are in commit order,
-- because a row is inserted after the lock of its subject and the sequence hands out one number at a time.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    event_id text NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (
    -- The table is short and churns: without this, dead rows made a read 53 ms after a long transaction elsewhere.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- The head of each channel's stream. `salt` is the random part of its epoch. No index on updated_at: an append would have
-- to write it, for the page of the row's new version would no longer do.
CREATE TABLE streams (
    channel text PRIMARY KEY,
    salt text NOT NULL,
    top bigint NOT NULL CHECK (top >= 0),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE publications (
    channel text NOT NULL,
    "offset" bigint NOT NULL,
    data bytea NOT NULL,
    time_ms bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel, "offset")
) WITH (autovacuum_vacuum_scale_factor = 0.05);
-- Not BRIN: its ranges never shrink when rows go, so each look for old ones would read the whole table.
CREATE INDEX publications_created_at_idx ON publications (created_at);

-- Which events a channel has had, whatever became of their publications.
CREATE TABLE seen (
    channel text NOT NULL,
    source text NOT NULL,
    id text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel, source, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX seen_seen_at_idx ON seen (seen_at);

-- One row: which incarnation of the database this is. The generation is part of every epoch.
CREATE TABLE deployment (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    generation integer NOT NULL,
    system_identifier bigint NOT NULL,
    timeline bigint NOT NULL
);
INSERT INTO deployment (generation, system_identifier, timeline)
SELECT 1, system_identifier, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint
FROM pg_control_system();

-- The broker of the embedded default: one row per message and bound queue.
CREATE TABLE broker_messages (
    queue text NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
    body bytea NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (queue, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
