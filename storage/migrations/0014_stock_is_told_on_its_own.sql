-- oldest-code: 12
-- What orders leave of the stock is told in portions, a transaction each, not with what orders come to.

-- One row: when telling of it began last.
CREATE TABLE stock_changes_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    told_at timestamptz NOT NULL
);
INSERT INTO stock_changes_head (told_at) VALUES (now());
