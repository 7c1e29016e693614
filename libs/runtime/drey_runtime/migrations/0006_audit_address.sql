-- From where the actor called; part of the row's hash where it is known. Empty: it is not.
ALTER TABLE audit.entry ADD COLUMN address text NOT NULL DEFAULT '';
