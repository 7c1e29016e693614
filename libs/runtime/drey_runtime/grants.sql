-- What the services may do with the tables of the runtime; `drey_runtime.migrate` runs it.
GRANT USAGE ON SCHEMA drey_meta, jobs, audit, idem, lease, event_log TO :application;
REVOKE ALL ON ALL TABLES IN SCHEMA drey_meta, jobs, audit, idem, lease, event_log FROM :application;

GRANT SELECT ON drey_meta.migration TO :application;
GRANT SELECT, INSERT, UPDATE ON jobs.job TO :application;
-- append-only
GRANT SELECT, INSERT ON audit.entry TO :application;
-- forgotten by idem.forget() alone, which spares what is young
GRANT SELECT, INSERT ON idem.request TO :application;
GRANT SELECT, INSERT, UPDATE ON lease.epoch TO :application;
-- written once; forgotten by event_log.forget() alone, which notes up to where
GRANT SELECT, INSERT ON event_log.event TO :application;
GRANT SELECT ON event_log.forgotten TO :application;
