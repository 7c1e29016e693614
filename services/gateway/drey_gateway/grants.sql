-- What the services may do with the keys; `drey_runtime.migrate` runs it.
GRANT USAGE ON SCHEMA access TO :application;
REVOKE ALL ON ALL TABLES IN SCHEMA access FROM :application;

GRANT SELECT, INSERT, UPDATE (revoke_time_ns) ON access.key TO :application;
GRANT SELECT, INSERT, UPDATE ON access.breaker TO :application;
