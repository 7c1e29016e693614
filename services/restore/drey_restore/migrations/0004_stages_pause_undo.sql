-- Writes of a plan by stage, lowest first. There was one stage before.
ALTER TABLE restore.plan
    ADD COLUMN stages integer[] NOT NULL DEFAULT '{0}',
    ADD COLUMN stage_writes bigint[] NOT NULL DEFAULT '{}';
ALTER TABLE restore.plan DISABLE TRIGGER immutable;
UPDATE restore.plan SET stages = CASE WHEN writes = 0 THEN '{}'::integer[] ELSE '{0}' END,
    stage_writes = CASE WHEN writes = 0 THEN '{}'::bigint[] ELSE ARRAY[writes] END;
ALTER TABLE restore.plan ENABLE TRIGGER immutable;
ALTER TABLE restore.plan ALTER COLUMN stages DROP DEFAULT, ALTER COLUMN stage_writes DROP DEFAULT;

-- A plan of the way back has no snapshot.
ALTER TABLE restore.plan ALTER COLUMN snapshot_id DROP NOT NULL;

-- What was there before the first write of a restore: setpoints and readbacks, columns, compressed.
CREATE TABLE restore.pre_image (
    restore_id uuid PRIMARY KEY REFERENCES restore.restore,
    values bytea NOT NULL
);
ALTER TABLE restore.pre_image ALTER COLUMN values SET STORAGE EXTERNAL;
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON restore.pre_image
    FOR EACH STATEMENT EXECUTE FUNCTION drey_meta.refuse_change();

-- Somebody wants a restore to hold where it is: nothing is announced meanwhile.
ALTER TABLE restore.restore ADD COLUMN pause_requested boolean NOT NULL DEFAULT false;

-- What was asked for never changes, and nothing does once the restore has ended.
CREATE OR REPLACE FUNCTION restore.only_course() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    course text[] := '{state,verdicts,all_verified,abort_requested,abort_reason,pause_requested,
        error_reason,error_message,start_time_ns,end_time_ns,revision}';
BEGIN
    IF OLD.end_time_ns <> 0 OR to_jsonb(OLD) - course <> to_jsonb(NEW) - course THEN
        RAISE EXCEPTION 'restore.restore is immutable: % has ended, or was asked for otherwise',
            OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
