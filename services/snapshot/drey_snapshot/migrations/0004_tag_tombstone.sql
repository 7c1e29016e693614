-- Deleted groups and tags, and which PVs carried them, so that they can be brought back.
CREATE TABLE catalog.tag_tombstone (
    id uuid PRIMARY KEY,
    -- of a group its own id
    group_id uuid NOT NULL,
    -- number of the tag; 0: a group
    number integer NOT NULL,
    name text NOT NULL,
    description text NOT NULL,
    -- numbers of the PVs that carried the tag
    pvs bigint[] NOT NULL,
    -- tags that went with their group have its time
    delete_time_ns bigint NOT NULL
);
CREATE INDEX tag_tombstone_by_group ON catalog.tag_tombstone (group_id);
