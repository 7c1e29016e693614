-- The catalogue: PVs, their channels, their tags. Times are bigint nanoseconds since 1970 UTC, 0 means
-- "not". Names compare by bytes.
CREATE SCHEMA catalog;

-- One row. Each transaction that changes the catalogue locks it first, so that changes have one order,
-- and whoever has version v asks for the rows whose version is greater.
CREATE TABLE catalog.version (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL,
    -- version at which a group, a tag or a name of these last changed
    tags_version bigint NOT NULL,
    -- counters, never set back: a number once given out is never given out again
    next_pv bigint NOT NULL,
    -- ordinals: the channel numbers follow from them, setpoints and readbacks on pages of their own
    next_setpoint bigint NOT NULL,
    next_readback bigint NOT NULL,
    next_tag integer NOT NULL
);
-- page 0 stays empty, so that channel 0 can mean "none"
INSERT INTO catalog.version (version, tags_version, next_pv, next_setpoint, next_readback, next_tag)
VALUES (1, 1, 1, 0, 0, 1);

CREATE TABLE catalog.pv (
    number bigint PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    name text COLLATE "C" NOT NULL CHECK (name <> ''),
    device text NOT NULL,
    description text NOT NULL,
    protocol smallint NOT NULL,
    read_only boolean NOT NULL,
    -- 0: has none
    setpoint_channel bigint NOT NULL,
    readback_channel bigint NOT NULL,
    setpoint_address text COLLATE "C" NOT NULL,
    readback_address text COLLATE "C" NOT NULL,
    setpoint_absolute double precision NOT NULL,
    setpoint_relative double precision NOT NULL,
    readback_absolute double precision NOT NULL,
    readback_relative double precision NOT NULL,
    -- what of the restore policy the PV itself says, as a JSON object; null: nothing
    policy jsonb,
    -- numbers of catalog.tag, ascending; the view catalog.pv_tag has them as rows
    tags integer[] NOT NULL,
    -- version of the catalogue in which the PV last changed; its etag
    version bigint NOT NULL,
    create_time_ns bigint NOT NULL,
    update_time_ns bigint NOT NULL,
    -- not 0: a tombstone
    delete_time_ns bigint NOT NULL DEFAULT 0,
    CHECK (setpoint_channel <> 0 OR readback_channel <> 0),
    CHECK ((setpoint_channel = 0) = (setpoint_address = '')),
    CHECK ((readback_channel = 0) = (readback_address = '')),
    CHECK (setpoint_absolute >= 0 AND setpoint_absolute < 'Infinity'),
    CHECK (setpoint_relative >= 0 AND setpoint_relative < 'Infinity'),
    CHECK (readback_absolute >= 0 AND readback_absolute < 'Infinity'),
    CHECK (readback_relative >= 0 AND readback_relative < 'Infinity')
);
CREATE UNIQUE INDEX pv_living_name ON catalog.pv (name) WHERE delete_time_ns = 0;
CREATE INDEX pv_by_version ON catalog.pv (version);
CREATE INDEX pv_tombstones ON catalog.pv (name, number) WHERE delete_time_ns <> 0;

-- Every channel number ever given out. A changed address retires its channel and takes a new one.
CREATE TABLE catalog.channel (
    number bigint PRIMARY KEY,
    pv_number bigint NOT NULL,
    -- 1 setpoint, 2 readback
    role smallint NOT NULL,
    address text COLLATE "C" NOT NULL,
    protocol smallint NOT NULL,
    create_time_ns bigint NOT NULL,
    retire_time_ns bigint NOT NULL DEFAULT 0
);
CREATE INDEX channel_by_pv ON catalog.channel (pv_number);

CREATE TABLE catalog.tag_group (
    id uuid PRIMARY KEY,
    name text NOT NULL CHECK (name <> ''),
    -- the name without case: what must be unique
    folded text COLLATE "C" NOT NULL UNIQUE,
    description text NOT NULL,
    version bigint NOT NULL
);

CREATE TABLE catalog.tag (
    number integer PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    group_id uuid NOT NULL REFERENCES catalog.tag_group (id) ON DELETE CASCADE,
    name text NOT NULL CHECK (name <> ''),
    folded text COLLATE "C" NOT NULL,
    UNIQUE (group_id, folded)
);

CREATE VIEW catalog.pv_tag AS
SELECT pv.number AS pv_number, pv.name AS pv_name, g.name AS group_name, t.name AS tag_name
FROM catalog.pv
CROSS JOIN LATERAL unnest(pv.tags) AS carried (number)
JOIN catalog.tag AS t ON t.number = carried.number
JOIN catalog.tag_group AS g ON g.id = t.group_id
WHERE pv.delete_time_ns = 0;
