-- A write that may still take place holds its field by the real name of the record, whatever it was
-- called: an alias of it cannot be written meanwhile. Before, it was known by its address alone.
ALTER TABLE restore.unanswered ADD COLUMN field text NOT NULL DEFAULT '';
ALTER TABLE restore.unanswered DISABLE TRIGGER only_release;
UPDATE restore.unanswered
    SET field = regexp_replace(regexp_replace(address, '\$$', ''), '\.R?VAL$', '');
ALTER TABLE restore.unanswered ENABLE TRIGGER only_release;
ALTER TABLE restore.unanswered ALTER COLUMN field DROP DEFAULT;
