-- oldest-code: 6
-- Payments, by a provider or by hand, and what of them is given back.

ALTER TABLE orders DROP CONSTRAINT orders_status_check;
ALTER TABLE orders
    ADD CONSTRAINT orders_status_check CHECK (
        status IN (
            'placed', 'payment_failed', 'paid', 'packed', 'shipped', 'delivered', 'cancelled', 'expired', 'returned', 'refunded'
        )
    ),
    ADD COLUMN refunded bigint NOT NULL DEFAULT 0 CHECK (refunded >= 0 AND refunded <= total);

ALTER TABLE order_changes DROP CONSTRAINT order_changes_changed_by_check, DROP CONSTRAINT order_changes_check;
ALTER TABLE order_changes
    ADD CONSTRAINT order_changes_changed_by_check CHECK (changed_by IN ('customer', 'staff', 'time', 'provider')),
    ADD CONSTRAINT order_changes_account_id_check CHECK ((account_id IS NULL) = (changed_by IN ('time', 'provider')));

ALTER TABLE order_deltas ADD COLUMN refunded bigint NOT NULL DEFAULT 0;
ALTER TABLE order_stats ADD COLUMN refunded bigint NOT NULL DEFAULT 0;

-- Those of an order are changed while its row is locked. `ask_at` is the schedule of asking the provider, so there is no other.
CREATE TABLE payments (
    id uuid PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY,
    order_id uuid NOT NULL REFERENCES orders (id),
    provider text NOT NULL,
    amount bigint NOT NULL CHECK (amount >= 0),
    currency text NOT NULL,
    status text NOT NULL CHECK (
        status IN ('requires_payment_method', 'requires_action', 'processing', 'succeeded', 'cancelled')
    ),
    version integer NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    attempt_key text,
    -- What the provider has told; nothing without a reference.
    reference text,
    provider_status text,
    client_secret text,
    action_url text,
    decline_attempt text,
    decline_code text,
    decline_message text,
    ask_at timestamptz,
    asked integer NOT NULL DEFAULT 0
);
CREATE INDEX payments_order_id_idx ON payments (order_id, number);
CREATE UNIQUE INDEX payments_reference_key ON payments (provider, reference);
CREATE INDEX payments_ask_at_idx ON payments (ask_at) WHERE ask_at IS NOT NULL;

CREATE TABLE refunds (
    id uuid PRIMARY KEY,
    payment_id uuid NOT NULL REFERENCES payments (id),
    amount bigint NOT NULL CHECK (amount > 0),
    reason text NOT NULL CHECK (reason IN ('requested', 'order_cancelled', 'paid_too_late')),
    status text NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
    requested_by uuid REFERENCES accounts (id),
    created_at timestamptz NOT NULL
);
CREATE INDEX refunds_payment_id_idx ON refunds (payment_id, created_at, id);

-- So far staff have collected all there was.
INSERT INTO payments (id, order_id, provider, amount, currency, status, version, created_at, updated_at)
SELECT
    gen_random_uuid(), o.id, 'by_hand', o.total, o.currency, 'succeeded', 1,
    coalesce(c.changed_at, o.updated_at), coalesce(c.changed_at, o.updated_at)
FROM orders AS o
LEFT JOIN order_changes AS c ON c.order_id = o.id AND c.action = 'pay'
WHERE o.status IN ('paid', 'packed', 'shipped', 'delivered');

-- The sandbox: a payment provider that collects no money. What it knows is its own, as if it were far away.
CREATE TABLE sandbox_payments (
    reference text PRIMARY KEY,
    payment_id uuid NOT NULL UNIQUE,
    amount bigint NOT NULL,
    currency text NOT NULL,
    status text NOT NULL,
    client_secret text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    method text,
    return_url text,
    decline_attempt text,
    decline_code text,
    settles_at timestamptz,
    notify_at timestamptz
);
CREATE INDEX sandbox_payments_settles_at_idx ON sandbox_payments (settles_at) WHERE settles_at IS NOT NULL;
CREATE INDEX sandbox_payments_notify_at_idx ON sandbox_payments (notify_at) WHERE notify_at IS NOT NULL;

-- Its bank statement: what was collected (positive) and given back (negative).
CREATE TABLE sandbox_movements (
    id text PRIMARY KEY,
    reference text NOT NULL REFERENCES sandbox_payments (reference),
    amount bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
