-- Owner and application apart: what the application may not do to tables directly, functions do.

-- The trigger of every table that only grows, for its owner too.
CREATE FUNCTION drey_meta.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% is immutable: % is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, lower(TG_OP)
        USING ERRCODE = 'insufficient_privilege';
END $$;

-- An answer that a client may still ask for is never forgotten, whoever asks for it: a day at least.
CREATE FUNCTION idem.forget(before_ns bigint) RETURNS bigint LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE gone bigint;
BEGIN
    DELETE FROM idem.request
    WHERE create_time_ns < least(before_ns, jobs.now_ns() - 86400000000000);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

-- An epoch that was given out is never given out again.
CREATE FUNCTION lease.only_grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.name <> OLD.name OR NEW.epoch <= OLD.epoch THEN
        RAISE EXCEPTION 'the epoch of % only grows: % after % is refused', OLD.name, NEW.epoch,
            OLD.epoch USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_grow BEFORE UPDATE ON lease.epoch
    FOR EACH ROW EXECUTE FUNCTION lease.only_grow();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON lease.epoch
    FOR EACH STATEMENT EXECUTE FUNCTION drey_meta.refuse_change();

-- How often a message could not be published: such rows go to the end of the queue.
ALTER TABLE jobs.outbox ADD COLUMN attempts integer NOT NULL DEFAULT 0;
