-- How restores treat the PVs of a device, or those that carry a tag, as far as they say nothing
-- themselves. `policy` has the form of catalog.pv.policy.
CREATE TABLE catalog.default_policy (
    id uuid PRIMARY KEY,
    device text NOT NULL,
    -- 0: of a device
    tag integer NOT NULL,
    policy jsonb NOT NULL,
    comment text NOT NULL,
    -- who set it last
    principal text NOT NULL,
    role text NOT NULL,
    -- version of the catalog in which it last changed; its etag
    version bigint NOT NULL,
    create_time_ns bigint NOT NULL,
    update_time_ns bigint NOT NULL,
    UNIQUE (device, tag),
    CHECK ((device = '') <> (tag = 0))
);

-- version at which one of these last changed
ALTER TABLE catalog.version ADD COLUMN policies_version bigint NOT NULL DEFAULT 0;
