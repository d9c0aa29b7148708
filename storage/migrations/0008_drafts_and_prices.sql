-- oldest-code: 8
-- Orders are drafted before they are placed; discounts and taxes are part of what they come to.

ALTER TABLE orders DROP CONSTRAINT orders_status_check;
ALTER TABLE orders
    ADD CONSTRAINT orders_status_check CHECK (
        status IN (
            'draft', 'placed', 'payment_failed', 'paid', 'packed', 'shipped', 'delivered', 'cancelled', 'expired', 'returned',
            'refunded'
        )
    ),
    ADD COLUMN discount_code text,
    ADD COLUMN tax_included boolean NOT NULL DEFAULT true,
    -- When a draft was placed. Other orders were when they were created.
    ADD COLUMN placed_at timestamptz;

-- Rates are basis points. A line's discount is its share of what is taken off the order.
ALTER TABLE products ADD COLUMN tax_rate integer NOT NULL DEFAULT 0 CHECK (tax_rate BETWEEN 0 AND 10000);
ALTER TABLE order_lines
    ADD COLUMN tax_rate integer NOT NULL DEFAULT 0 CHECK (tax_rate BETWEEN 0 AND 10000),
    ADD COLUMN discount bigint NOT NULL DEFAULT 0 CHECK (discount BETWEEN 0 AND unit_price * quantity);

-- Codes that customers give, with the part that they take off, in basis points.
CREATE TABLE discounts (
    id uuid PRIMARY KEY,
    code text NOT NULL,
    rate integer NOT NULL CHECK (rate BETWEEN 1 AND 10000),
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    max_uses integer CHECK (max_uses > 0),
    uses integer NOT NULL DEFAULT 0 CHECK (uses >= 0),
    version integer NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX discounts_code_key ON discounts (code);
