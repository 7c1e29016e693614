-- What the services may do with catalog and snapshots; `drey_runtime.migrate` runs it.
GRANT USAGE ON SCHEMA catalog, snapshot TO :application;
REVOKE ALL ON ALL TABLES IN SCHEMA catalog, snapshot FROM :application;

GRANT SELECT, UPDATE ON catalog.version TO :application;
GRANT SELECT, INSERT, UPDATE ON catalog.pv TO :application;
GRANT SELECT, INSERT, UPDATE (retire_time_ns) ON catalog.channel TO :application;
GRANT SELECT, INSERT, UPDATE, DELETE ON catalog.tag_group, catalog.tag TO :application;
GRANT SELECT, INSERT, DELETE ON catalog.tag_tombstone TO :application;
GRANT SELECT, INSERT, UPDATE, DELETE ON catalog.default_policy TO :application;
GRANT SELECT ON catalog.pv_tag TO :application;
-- immutable
GRANT SELECT, INSERT ON snapshot.page, snapshot.snapshot, snapshot.manifest TO :application;
GRANT SELECT, INSERT, UPDATE ON snapshot.label TO :application;
GRANT SELECT, INSERT, UPDATE, DELETE ON snapshot.golden TO :application;
-- the oldest are forgotten
GRANT SELECT, INSERT, DELETE ON snapshot.refusal TO :application;
