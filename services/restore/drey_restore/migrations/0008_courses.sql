-- A restore that was interrupted is continued by another one of the same plan, which goes on from its
-- outcome; `also_unknown`: it may send again what may or may not have been sent.
ALTER TABLE restore.restore
    ADD COLUMN continues_restore_id uuid REFERENCES restore.restore,
    ADD COLUMN also_unknown boolean NOT NULL DEFAULT false,
    -- PVs that somebody else changed while it wrote
    ADD COLUMN interfered integer NOT NULL DEFAULT 0,
    -- the way back: asked for by whoever aborted it, begun as another restore when it ended, or why not
    ADD COLUMN roll_back_requested boolean NOT NULL DEFAULT false,
    ADD COLUMN rollback_restore_id uuid,
    ADD COLUMN rollback_error_reason integer NOT NULL DEFAULT 0,
    ADD COLUMN rollback_error_message text NOT NULL DEFAULT '';

ALTER TABLE restore.restore DROP CONSTRAINT restore_plan_id_key;
CREATE UNIQUE INDEX restore_first_of_plan ON restore.restore (plan_id)
    WHERE continues_restore_id IS NULL;
CREATE INDEX restore_continues ON restore.restore (continues_restore_id)
    WHERE continues_restore_id IS NOT NULL;

-- What was asked for never changes, and nothing does once the restore has ended.
CREATE OR REPLACE FUNCTION restore.only_course() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    course text[] := '{state,verdicts,all_verified,abort_requested,abort_reason,pause_requested,
        error_reason,error_message,start_time_ns,end_time_ns,revision,interfered,
        roll_back_requested,rollback_restore_id,rollback_error_reason,rollback_error_message}';
BEGIN
    IF OLD.end_time_ns <> 0 OR to_jsonb(OLD) - course <> to_jsonb(NEW) - course THEN
        RAISE EXCEPTION 'restore.restore is immutable: % has ended, or was asked for otherwise',
            OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
