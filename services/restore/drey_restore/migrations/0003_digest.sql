-- A plan keeps what it was made of, and the number of the recipe of its digest. Those of the recipe
-- before, 1, can be read and not be executed any more.
ALTER TABLE restore.plan
    ADD COLUMN recipe smallint NOT NULL DEFAULT 1,
    ADD COLUMN spec bytea NOT NULL DEFAULT '';
ALTER TABLE restore.plan ALTER COLUMN recipe DROP DEFAULT, ALTER COLUMN spec DROP DEFAULT;

-- NULL: any number but all
ALTER TABLE restore.restore ADD COLUMN max_unreachable integer;
