-- oldest-code: 8
-- Staff add and change products; everybody hears of it, and of what orders leave of the stock.

ALTER TABLE products
    ADD COLUMN for_sale boolean NOT NULL DEFAULT true,
    ADD COLUMN version integer NOT NULL DEFAULT 1 CHECK (version > 0);

-- Products of which orders have taken pieces, or given some back, since that was told: one row each time, so that nobody waits for
-- anybody.
CREATE TABLE stock_changes (
    product_id uuid NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- Who knows of no versions, the code before or a script of an operator's, makes some too, and what it changes is told.
CREATE FUNCTION next_product_version() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    INSERT INTO stock_changes (product_id) VALUES (NEW.id);
    RETURN NEW;
END
$$;
CREATE TRIGGER next_product_version
BEFORE UPDATE ON products
FOR EACH ROW
WHEN (NEW.version = OLD.version AND NEW.* IS DISTINCT FROM OLD.*)
EXECUTE FUNCTION next_product_version();
