-- What is immutable refuses DELETE and TRUNCATE too, and a restore keeps the digest that it was
-- asked for, so that neither the items of a plan nor its column can be replaced under it.

ALTER TABLE restore.restore ADD COLUMN plan_digest text NOT NULL DEFAULT '';
UPDATE restore.restore r SET plan_digest = p.digest FROM restore.plan p WHERE p.id = r.plan_id;
ALTER TABLE restore.restore ALTER COLUMN plan_digest DROP DEFAULT;

-- An entry of the journal gets its result once, and is otherwise as it was announced.
CREATE FUNCTION restore.only_result() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(NEW) = to_jsonb(OLD) THEN
        RETURN NEW;
    END IF;
    IF OLD.codes IS NOT NULL OR cardinality(NEW.codes) IS DISTINCT FROM cardinality(OLD.rows)
        OR to_jsonb(OLD) - '{codes,result_time_ns}'::text[]
            <> to_jsonb(NEW) - '{codes,result_time_ns}'::text[]
    THEN
        RAISE EXCEPTION 'restore.journal is immutable: a result is written once'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

-- What was asked for never changes, and nothing does once the restore has ended.
CREATE FUNCTION restore.only_course() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    course text[] := '{state,verdicts,all_verified,abort_requested,abort_reason,error_reason,
        error_message,start_time_ns,end_time_ns,revision}';
BEGIN
    IF OLD.end_time_ns <> 0 OR to_jsonb(OLD) - course <> to_jsonb(NEW) - course THEN
        RAISE EXCEPTION 'restore.restore is immutable: % has ended, or was asked for otherwise',
            OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON restore.plan
    FOR EACH STATEMENT EXECUTE FUNCTION drey_meta.refuse_change();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON restore.plan_data
    FOR EACH STATEMENT EXECUTE FUNCTION drey_meta.refuse_change();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON restore.plan_item
    FOR EACH STATEMENT EXECUTE FUNCTION drey_meta.refuse_change();
CREATE TRIGGER only_result BEFORE UPDATE ON restore.journal
    FOR EACH ROW EXECUTE FUNCTION restore.only_result();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON restore.journal
    FOR EACH STATEMENT EXECUTE FUNCTION drey_meta.refuse_change();
CREATE TRIGGER only_course BEFORE UPDATE ON restore.restore
    FOR EACH ROW EXECUTE FUNCTION restore.only_course();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON restore.restore
    FOR EACH STATEMENT EXECUTE FUNCTION drey_meta.refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON restore.restore_data
    FOR EACH STATEMENT EXECUTE FUNCTION drey_meta.refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON restore.restore_item
    FOR EACH STATEMENT EXECUTE FUNCTION drey_meta.refuse_change();

-- Writes that were sent, never answered, and may still take place. They hold their channels until
-- an IOC has answered on a channel that was made after them. `circuit`: host and port, or empty.
CREATE TABLE restore.unanswered (
    restore_id uuid NOT NULL REFERENCES restore.restore,
    number bigint NOT NULL,
    name text NOT NULL,
    address text NOT NULL,
    circuit text NOT NULL,
    sent_time_ns bigint NOT NULL,
    -- 0: it may still take place
    release_time_ns bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (restore_id, number)
);
CREATE INDEX unanswered_open ON restore.unanswered (restore_id) WHERE release_time_ns = 0;

CREATE FUNCTION restore.only_release() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.release_time_ns <> 0
        OR to_jsonb(OLD) - 'release_time_ns' <> to_jsonb(NEW) - 'release_time_ns'
    THEN
        RAISE EXCEPTION 'restore.unanswered is immutable: a write is released once'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_release BEFORE UPDATE ON restore.unanswered
    FOR EACH ROW EXECUTE FUNCTION restore.only_release();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON restore.unanswered
    FOR EACH STATEMENT EXECUTE FUNCTION drey_meta.refuse_change();
