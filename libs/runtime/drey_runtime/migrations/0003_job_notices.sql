-- Jobs are announced by NOTIFY, by the transaction that makes or changes them; the row decides.

-- Whoever has a session may send: a listener believes nothing of it but that it is time to look.
CREATE FUNCTION jobs.notify_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('drey_jobs', concat_ws(' ', NEW.id, NEW.revision, NEW.state, NEW.kind));
    RETURN NULL;
END $$;
-- nobody knows the id of one that is made as running or ended, and nobody may begin it
CREATE TRIGGER notify_queued AFTER INSERT ON jobs.job
    FOR EACH ROW WHEN (NEW.state = 'queued') EXECUTE FUNCTION jobs.notify_change();
CREATE TRIGGER notify_changed AFTER UPDATE ON jobs.job
    FOR EACH ROW WHEN (OLD.revision IS DISTINCT FROM NEW.revision)
    EXECUTE FUNCTION jobs.notify_change();

-- What waited in it were deliveries of jobs that are in their table.
DROP TABLE jobs.outbox;
