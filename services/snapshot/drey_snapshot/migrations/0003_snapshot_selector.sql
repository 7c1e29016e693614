-- What was chosen when a snapshot was taken: the page with its selector, as JSON by the names of
-- `drey_core.selector.Selector`. Null: taken before selectors were kept.
ALTER TABLE snapshot.snapshot
    ADD COLUMN selector_hash bytea CHECK (octet_length(selector_hash) = 32);
