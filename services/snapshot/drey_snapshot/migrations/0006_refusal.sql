-- What was missing where a gate refused a snapshot: lists that a status has no room for. The newest
-- 1,000 are kept.
CREATE TABLE snapshot.refusal (
    -- of the call, or of the job that was refused
    id uuid PRIMARY KEY,
    no bigint GENERATED ALWAYS AS IDENTITY,
    create_time_ns bigint NOT NULL,
    -- JSON, compressed
    missing bytea NOT NULL
);
CREATE INDEX refusal_by_no ON snapshot.refusal (no DESC);
