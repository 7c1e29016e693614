-- What the stages of a plan wait for: shortest time and time after which they are late (NULL: no
-- time-out of their own), in nanoseconds, and writes by how their completion is judged, as a list of
-- [mode, writes]. Empty: made by an older server.
ALTER TABLE restore.plan ADD COLUMN stage_waits jsonb NOT NULL DEFAULT '[]';
