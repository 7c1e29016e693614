-- What every service stands on: jobs with their outbox, the audit chain, repeated requests, epochs.
-- Times are bigint nanoseconds since 1970 UTC; 0 means "not yet". timestamptz is too coarse.

-- ---------------------------------------------------------------- jobs
CREATE SCHEMA jobs;

-- Leases are compared by one clock, the database's, so that the clocks of hosts do not matter.
CREATE FUNCTION jobs.now_ns() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000 $$;

CREATE TABLE jobs.job (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    state text NOT NULL CHECK (state IN
        ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'interrupted')),
    principal text NOT NULL,
    role text NOT NULL,
    payload bytea NOT NULL,
    done bigint NOT NULL DEFAULT 0,
    total bigint NOT NULL DEFAULT 0,
    phase text NOT NULL DEFAULT '',
    result text NOT NULL DEFAULT '',
    error_reason integer NOT NULL DEFAULT 0,
    error_field text NOT NULL DEFAULT '',
    error_message text NOT NULL DEFAULT '',
    attempts integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL DEFAULT 5,
    -- false: what was begun is never begun again on its own
    rerun boolean NOT NULL DEFAULT true,
    -- who has it, and the fencing number of that: it grows with each claim
    owner text NOT NULL DEFAULT '',
    term bigint NOT NULL DEFAULT 0,
    lease_until_ns bigint NOT NULL DEFAULT 0,
    -- a queued job is not begun before the one, nor after the other (0: no limit)
    not_before_ns bigint NOT NULL DEFAULT 0,
    start_by_ns bigint NOT NULL DEFAULT 0,
    cancel_requested boolean NOT NULL DEFAULT false,
    cancel_reason text NOT NULL DEFAULT '',
    revision bigint NOT NULL DEFAULT 1,
    create_time_ns bigint NOT NULL,
    start_time_ns bigint NOT NULL DEFAULT 0,
    end_time_ns bigint NOT NULL DEFAULT 0,
    trace_id text NOT NULL DEFAULT '',
    traceparent text NOT NULL DEFAULT ''
) WITH (fillfactor = 70);

CREATE INDEX job_open ON jobs.job (kind, id) WHERE state IN ('queued', 'running');
CREATE INDEX job_by_kind ON jobs.job (kind, id DESC);

-- What a transaction announces: published after its commit, then deleted.
CREATE TABLE jobs.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- below `{namespace}.v1.`
    subject text NOT NULL,
    payload bytea NOT NULL,
    -- true: into the JetStream stream of jobs, acknowledged; false: a plain message
    durable boolean NOT NULL,
    -- makes the stream drop a second publication
    message_id text NOT NULL DEFAULT '',
    -- the job that it delivers; once that has ended, there is nothing to deliver
    job_id uuid,
    traceparent text NOT NULL DEFAULT ''
);

-- ---------------------------------------------------------------- audit
CREATE SCHEMA audit;

CREATE TABLE audit.entry (
    seq bigint PRIMARY KEY,
    at_ns bigint NOT NULL,
    actor text NOT NULL,
    role text NOT NULL,
    action text NOT NULL,
    object text NOT NULL,
    request_id text NOT NULL,
    -- canonical JSON as text: what was hashed, byte for byte; null: there was none
    before text,
    after text,
    previous_hash bytea NOT NULL CHECK (octet_length(previous_hash) = 32),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);
CREATE INDEX entry_by_object ON audit.entry (object, seq DESC);
CREATE INDEX entry_by_actor ON audit.entry (actor, seq DESC);

CREATE FUNCTION audit.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only: % is refused', lower(TG_OP)
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit.entry
    FOR EACH ROW EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON audit.entry
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();

-- ---------------------------------------------------------------- repeated requests
CREATE SCHEMA idem;

CREATE TABLE idem.request (
    method text NOT NULL,
    principal text NOT NULL,
    request_id text NOT NULL,
    request_hash bytea NOT NULL,
    response bytea NOT NULL,
    create_time_ns bigint NOT NULL,
    PRIMARY KEY (principal, method, request_id)
);
CREATE INDEX request_by_time ON idem.request (create_time_ns);

-- ---------------------------------------------------------------- leases
CREATE SCHEMA lease;

-- The last epoch given out for each name; rows are never deleted, so that it only grows.
CREATE TABLE lease.epoch (
    name text PRIMARY KEY,
    epoch bigint NOT NULL,
    holder text NOT NULL,
    acquire_time_ns bigint NOT NULL
);
