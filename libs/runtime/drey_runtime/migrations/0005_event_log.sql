-- Events: what changed, written in the transaction that changes it, read by `EventService`.
CREATE SCHEMA event_log;

-- Names what the numbers of transactions are of: another cluster, one that failed over or went back
-- to an earlier state, and a table that was brought back from a dump, would tell something else
-- under the same numbers.
CREATE FUNCTION event_log.timeline() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws('-', (SELECT system_identifier FROM pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8),
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        to_regclass('event_log.event')::oid)
$$;

CREATE TABLE event_log.event (
    -- Events are read in the order of (transaction, no), and only those of transactions below the
    -- oldest one that still runs: no event can come to stand before one that has been read.
    transaction bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    no bigint GENERATED ALWAYS AS IDENTITY,
    timeline text NOT NULL DEFAULT event_log.timeline(),
    at_ns bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN
        ('created', 'updated', 'deleted', 'undeleted', 'state_changed')),
    resource text NOT NULL,
    -- empty: several, which are counted below
    id text NOT NULL DEFAULT '',
    name text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT '',
    etag text NOT NULL DEFAULT '',
    principal text NOT NULL DEFAULT '',
    role text NOT NULL DEFAULT '',
    created bigint NOT NULL DEFAULT 0,
    updated bigint NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    undeleted bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (timeline, transaction, no)
);

CREATE FUNCTION event_log.notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('drey_events', '');
    RETURN NULL;
END $$;
CREATE TRIGGER notify_event AFTER INSERT ON event_log.event
    FOR EACH STATEMENT EXECUTE FUNCTION event_log.notify();

-- The last transaction whose events were forgotten: who has not read further has missed some.
CREATE TABLE event_log.forgotten (
    timeline text PRIMARY KEY,
    transaction bigint NOT NULL
);

-- Forget the events before the first that is younger, whole transactions, an hour at least kept.
CREATE FUNCTION event_log.forget(before_ns bigint) RETURNS bigint LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    limit_ns bigint := least(before_ns, jobs.now_ns() - 3600000000000);
    here text := event_log.timeline();
    ends_before bigint;
    last_gone bigint;
    gone bigint;
    gone_elsewhere bigint;
BEGIN
    SELECT least(
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
        (SELECT transaction FROM event_log.event WHERE timeline = here AND at_ns >= limit_ns
         ORDER BY transaction LIMIT 1)) INTO ends_before;
    WITH old AS (
        DELETE FROM event_log.event WHERE timeline = here AND transaction < ends_before
        RETURNING transaction
    )
    SELECT count(*), max(transaction) INTO gone, last_gone FROM old;
    IF last_gone IS NOT NULL THEN
        INSERT INTO event_log.forgotten AS f VALUES (here, last_gone)
        ON CONFLICT (timeline) DO UPDATE
            SET transaction = greatest(f.transaction, excluded.transaction);
    END IF;
    -- nobody reads those of another timeline
    DELETE FROM event_log.event WHERE timeline <> here AND at_ns < limit_ns;
    GET DIAGNOSTICS gone_elsewhere = ROW_COUNT;
    RETURN gone + gone_elsewhere;
END $$;

-- Jobs are begun, run and ended by statements of the job tables, so these note their own events.
-- Progress is no event: `JobService.WatchJob` tells of it.
CREATE FUNCTION event_log.note_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_log.event (at_ns, kind, resource, id, name, state, principal, role)
    VALUES (jobs.now_ns(),
        CASE WHEN TG_OP = 'INSERT' THEN 'created'
            WHEN OLD.state IS DISTINCT FROM NEW.state THEN 'state_changed' ELSE 'updated' END,
        'job', NEW.id::text, NEW.kind, NEW.state, NEW.principal, NEW.role);
    RETURN NULL;
END $$;
CREATE TRIGGER note_created AFTER INSERT ON jobs.job
    FOR EACH ROW EXECUTE FUNCTION event_log.note_job();
CREATE TRIGGER note_changed AFTER UPDATE ON jobs.job
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state
        OR OLD.cancel_requested IS DISTINCT FROM NEW.cancel_requested)
    EXECUTE FUNCTION event_log.note_job();

-- Whoever follows the audit trail is told in the same way.
CREATE TRIGGER notify_entry AFTER INSERT ON audit.entry
    FOR EACH STATEMENT EXECUTE FUNCTION event_log.notify();
