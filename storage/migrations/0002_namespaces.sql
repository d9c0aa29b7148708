-- oldest-code: 1
-- Channels whose namespace says how much of them is kept, and publications that say who published them.

-- How many of its last publications can be read; the append keeps it up to date with the settings.
ALTER TABLE streams ADD COLUMN history_size bigint NOT NULL DEFAULT 9223372036854775807;

-- Of the last publication that had a version: an older one that comes late is left out.
ALTER TABLE streams
    ADD COLUMN version bigint NOT NULL DEFAULT 0,
    ADD COLUMN version_epoch text NOT NULL DEFAULT '';

ALTER TABLE publications
    ADD COLUMN info bytea,
    ADD COLUMN tags bytea,
    -- The age at which a publication goes differs between namespaces.
    ADD COLUMN expires_at timestamptz NOT NULL DEFAULT now() + interval '1 day';
CREATE INDEX publications_expires_at_idx ON publications (expires_at);
DROP INDEX publications_created_at_idx;

-- What was published, for who publishes the same again and wants to know.
ALTER TABLE seen ADD COLUMN "offset" bigint;
