-- A role of a key may hold for some PVs only: those of a selector (an encoded
-- drey.common.v1.Selector). `roles` are those that hold for all; `some_roles` and `some_selectors`
-- belong together, element by element.
ALTER TABLE access.key
    ADD COLUMN some_roles text[] NOT NULL DEFAULT '{}',
    ADD COLUMN some_selectors bytea[] NOT NULL DEFAULT '{}',
    DROP CONSTRAINT key_has_roles,
    ADD CONSTRAINT key_has_roles CHECK (cardinality(roles) + cardinality(some_roles) > 0),
    ADD CONSTRAINT key_limits_match CHECK (cardinality(some_roles) = cardinality(some_selectors));
