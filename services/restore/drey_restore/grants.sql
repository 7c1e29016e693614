-- What the services may do with plans, restores and their journal; `drey_runtime.migrate` runs it.
GRANT USAGE ON SCHEMA restore TO :application;
REVOKE ALL ON ALL TABLES IN SCHEMA restore FROM :application;

-- immutable, but for the restore that a plan became
GRANT SELECT, INSERT, UPDATE (restore_id) ON restore.plan TO :application;
GRANT SELECT, INSERT ON restore.plan_data, restore.plan_item TO :application;
GRANT SELECT ON restore.plan_item_number TO :application;
GRANT SELECT, INSERT, UPDATE ON restore.restore TO :application;
GRANT SELECT, INSERT ON restore.restore_data, restore.restore_item, restore.pre_image TO :application;
-- an intent is written once; what came of it is added
GRANT SELECT, INSERT, UPDATE (codes, result_time_ns) ON restore.journal TO :application;
-- a write that may still take place is held once, and let go once
GRANT SELECT, INSERT, UPDATE (release_time_ns) ON restore.unanswered TO :application;
-- asked for once; what a second person decides is added
GRANT SELECT, INSERT, UPDATE (state, approver, approver_role, reason, decide_time_ns,
    expire_time_ns) ON restore.approval TO :application;
