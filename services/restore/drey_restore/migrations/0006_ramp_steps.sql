-- Of a ramp the journal knows each step: by row its number from 1, and 0 for the target. NULL: the
-- targets of all.
ALTER TABLE restore.journal ADD COLUMN steps integer[];
