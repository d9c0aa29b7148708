-- oldest-code: 3
-- Orders are packed before they are shipped and expire while they are not paid, and each change of them is kept.

ALTER TABLE orders DROP CONSTRAINT orders_status_check;
ALTER TABLE orders
    ADD CONSTRAINT orders_status_check
    CHECK (status IN ('placed', 'paid', 'packed', 'shipped', 'delivered', 'cancelled', 'expired')),
    -- Until it is paid. It is the schedule of what lets orders expire, so there is no other.
    ADD COLUMN expires_at timestamptz;
CREATE INDEX orders_expires_at_idx ON orders (expires_at) WHERE expires_at IS NOT NULL;

-- Who did what when: a row for each version of an order.
CREATE TABLE order_changes (
    order_id uuid NOT NULL REFERENCES orders (id),
    version integer NOT NULL,
    action text NOT NULL,
    status text NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL CHECK (changed_by IN ('customer', 'staff', 'time')),
    account_id uuid REFERENCES accounts (id) CHECK ((account_id IS NULL) = (changed_by = 'time')),
    PRIMARY KEY (order_id, version)
);

-- Of older orders only the beginning is known.
INSERT INTO order_changes (order_id, version, action, status, changed_at, changed_by, account_id)
SELECT id, 1, 'place', 'placed', created_at, 'customer', customer_id
FROM orders;
