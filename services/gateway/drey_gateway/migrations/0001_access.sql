-- API keys. Times are bigint nanoseconds since 1970 UTC; 0 means "not".
CREATE SCHEMA access;

CREATE TABLE access.key (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    role smallint NOT NULL CHECK (role BETWEEN 1 AND 4),
    -- first characters of the secret, to find the key and to tell keys apart
    prefix text NOT NULL,
    secret_sha256 bytea NOT NULL UNIQUE CHECK (octet_length(secret_sha256) = 32),
    create_time_ns bigint NOT NULL,
    expire_time_ns bigint NOT NULL DEFAULT 0,
    revoke_time_ns bigint NOT NULL DEFAULT 0,
    created_by text NOT NULL
);

-- Names are unique among the living; one that has expired is revoked when its name is used again.
CREATE UNIQUE INDEX key_living_name ON access.key (name) WHERE revoke_time_ns = 0;
CREATE INDEX key_by_name ON access.key (name, id);
