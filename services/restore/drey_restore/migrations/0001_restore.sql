-- Plans, restores and their journal. Times are bigint nanoseconds since 1970 UTC; 0: not yet.
CREATE SCHEMA restore;

CREATE TABLE restore.plan (
    id uuid PRIMARY KEY,
    digest text NOT NULL CHECK (length(digest) = 64),
    snapshot_id uuid NOT NULL,
    pvs bigint NOT NULL,
    writes bigint NOT NULL,
    -- PVs left out, by the number of the reason
    skips bigint[] NOT NULL,
    exact boolean NOT NULL,
    principal text NOT NULL,
    role text NOT NULL,
    comment text NOT NULL,
    create_time_ns bigint NOT NULL,
    expire_time_ns bigint NOT NULL,
    undoes_restore_id uuid,
    -- the only column that may change, once
    restore_id uuid
);
CREATE INDEX plan_by_snapshot ON restore.plan (snapshot_id, id DESC);

-- All items of a plan, what its digest covers: columns, compressed.
CREATE TABLE restore.plan_data (
    plan_id uuid PRIMARY KEY REFERENCES restore.plan,
    items bytea NOT NULL
);
ALTER TABLE restore.plan_data ALTER COLUMN items SET STORAGE EXTERNAL;

-- The writes of a plan, for SQL. Numbers as float8, NaN where the value is none.
CREATE TABLE restore.plan_item (
    plan_id uuid NOT NULL,
    number bigint NOT NULL,
    stage integer NOT NULL,
    current double precision NOT NULL,
    target double precision NOT NULL,
    delta double precision NOT NULL,
    deviation double precision NOT NULL,
    name text NOT NULL,
    address text NOT NULL
);
CREATE INDEX plan_item_by_plan ON restore.plan_item USING brin (plan_id);
CREATE VIEW restore.plan_item_number AS
    SELECT plan_id, number, name, address, stage,
        nullif(current, 'NaN') AS current, nullif(target, 'NaN') AS target,
        nullif(delta, 'NaN') AS delta, nullif(deviation, 'NaN') AS deviation
    FROM restore.plan_item;

CREATE TABLE restore.restore (
    id uuid PRIMARY KEY,
    plan_id uuid NOT NULL UNIQUE REFERENCES restore.plan,
    state smallint NOT NULL,
    -- PVs by the number of the verdict
    verdicts bigint[] NOT NULL,
    all_verified boolean NOT NULL DEFAULT false,
    principal text NOT NULL,
    role text NOT NULL,
    comment text NOT NULL,
    job_id uuid NOT NULL UNIQUE,
    start_by_ns bigint NOT NULL,
    write_timeout_ns bigint NOT NULL,
    verify_timeout_ns bigint NOT NULL,
    accept_moved boolean NOT NULL,
    abort_requested boolean NOT NULL DEFAULT false,
    abort_reason text NOT NULL DEFAULT '',
    error_reason integer NOT NULL DEFAULT 0,
    error_message text NOT NULL DEFAULT '',
    create_time_ns bigint NOT NULL,
    start_time_ns bigint NOT NULL DEFAULT 0,
    end_time_ns bigint NOT NULL DEFAULT 0,
    revision bigint NOT NULL DEFAULT 1
) WITH (fillfactor = 50);
CREATE INDEX restore_open ON restore.restore (id) WHERE end_time_ns = 0;

-- What became of all items, once it has ended: columns, compressed.
CREATE TABLE restore.restore_data (
    restore_id uuid PRIMARY KEY REFERENCES restore.restore,
    outcome bytea NOT NULL
);
ALTER TABLE restore.restore_data ALTER COLUMN outcome SET STORAGE EXTERNAL;

-- The writes of an ended restore, for SQL. `code` is the ECA status, 0: not sent.
CREATE TABLE restore.restore_item (
    restore_id uuid NOT NULL,
    number bigint NOT NULL,
    verdict smallint NOT NULL,
    code integer NOT NULL,
    readback_reached smallint NOT NULL,
    sent_time_ns bigint NOT NULL,
    completion_time_ns bigint NOT NULL,
    seen double precision NOT NULL,
    name text NOT NULL
);
CREATE INDEX restore_item_by_restore ON restore.restore_item USING brin (restore_id);

-- Which PVs were about to be sent, durable before; and what came of it. `rows` are their places
-- in the plan. An entry without codes after a crash: nobody knows.
CREATE TABLE restore.journal (
    restore_id uuid NOT NULL REFERENCES restore.restore,
    batch integer NOT NULL,
    rows integer[] NOT NULL,
    numbers bigint[] NOT NULL,
    intent_time_ns bigint NOT NULL,
    codes integer[],
    result_time_ns bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (restore_id, batch)
);

CREATE FUNCTION restore.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a plan is immutable: % of %.% is refused', lower(TG_OP), TG_TABLE_SCHEMA,
        TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER immutable BEFORE UPDATE ON restore.plan_data
    FOR EACH ROW EXECUTE FUNCTION restore.refuse();
CREATE TRIGGER immutable BEFORE UPDATE ON restore.plan_item
    FOR EACH ROW EXECUTE FUNCTION restore.refuse();

CREATE FUNCTION restore.only_restore_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.restore_id IS NOT NULL OR to_jsonb(OLD) - 'restore_id' <> to_jsonb(NEW) - 'restore_id'
    THEN
        RAISE EXCEPTION 'a plan is immutable' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER immutable BEFORE UPDATE ON restore.plan
    FOR EACH ROW EXECUTE FUNCTION restore.only_restore_id();
