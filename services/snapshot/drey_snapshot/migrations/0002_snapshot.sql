-- Snapshots: immutable, in pages that are addressed by the hash of their content.
-- Times are bigint nanoseconds since 1970 UTC.
CREATE SCHEMA snapshot;

-- Value pages, pages of receive times, catalogue and metadata pages, and directory trees. Compressed
-- already, and small enough to stay in their row.
CREATE TABLE snapshot.page (
    hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    data bytea NOT NULL
) WITH (toast_tuple_target = 8160);
ALTER TABLE snapshot.page ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE snapshot.snapshot (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    -- one snapshot a job, however often the job is delivered; null: made by no job
    job_id uuid UNIQUE,
    time_ns bigint NOT NULL,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    -- page with the tree of the directory: which channel was what, as of the snapshot
    directory_hash bytea NOT NULL CHECK (octet_length(directory_hash) = 32),
    catalog_version bigint NOT NULL,
    source smallint NOT NULL,
    principal text NOT NULL,
    role text NOT NULL,
    scope text NOT NULL,
    pv_count bigint NOT NULL,
    -- StateCounts, Skew, and a list of ShardStamps, by the names of their fields
    counts jsonb NOT NULL,
    skew jsonb NOT NULL,
    shards jsonb NOT NULL,
    duration_ns bigint NOT NULL
);
CREATE INDEX snapshot_by_time ON snapshot.snapshot (time_ns DESC, no DESC);

-- "This channel through time" is a range of the primary key, "this snapshot" one of the index.
CREATE TABLE snapshot.manifest (
    page_no integer NOT NULL,
    snapshot_no bigint NOT NULL,
    value_hash bytea NOT NULL,
    times_hash bytea NOT NULL,
    PRIMARY KEY (page_no, snapshot_no)
);
CREATE INDEX manifest_by_snapshot ON snapshot.manifest (snapshot_no, page_no);

-- What people say about a snapshot; this may change, and `version` counts how often it did.
CREATE TABLE snapshot.label (
    snapshot_no bigint PRIMARY KEY REFERENCES snapshot.snapshot (no),
    title text NOT NULL,
    comment text NOT NULL,
    labels text[] NOT NULL,
    golden boolean NOT NULL DEFAULT false,
    version bigint NOT NULL DEFAULT 1,
    delete_time_ns bigint NOT NULL DEFAULT 0
);
CREATE INDEX label_by_labels ON snapshot.label USING gin (labels);

CREATE FUNCTION snapshot.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'snapshots are immutable: % of %.% is refused',
        lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON snapshot.page
    FOR EACH ROW EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON snapshot.page
    FOR EACH STATEMENT EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON snapshot.manifest
    FOR EACH ROW EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON snapshot.manifest
    FOR EACH STATEMENT EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON snapshot.snapshot
    FOR EACH ROW EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON snapshot.snapshot
    FOR EACH STATEMENT EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER tombstones BEFORE DELETE ON snapshot.label
    FOR EACH ROW EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON snapshot.label
    FOR EACH STATEMENT EXECUTE FUNCTION snapshot.refuse();
