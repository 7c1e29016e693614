-- The decision of a second person on a plan that writes PVs which the site keeps under approval.
-- Inserted with its plan; `state` 1: nobody has decided, 2: approved, 3: rejected for ever.
CREATE TABLE restore.approval (
    id uuid PRIMARY KEY,
    plan_id uuid NOT NULL UNIQUE REFERENCES restore.plan,
    digest text NOT NULL,
    requester text NOT NULL,
    requester_role text NOT NULL,
    -- writes that need it, and the name of the first
    pvs bigint NOT NULL,
    first_pv text NOT NULL,
    create_time_ns bigint NOT NULL,
    state smallint NOT NULL DEFAULT 1 CHECK (state BETWEEN 1 AND 3),
    approver text NOT NULL DEFAULT '' CHECK (approver <> requester),
    approver_role text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    decide_time_ns bigint NOT NULL DEFAULT 0,
    expire_time_ns bigint NOT NULL,
    CHECK ((state = 1) = (approver = ''))
);

CREATE FUNCTION restore.only_decision() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    decision text[] := '{state,approver,approver_role,reason,decide_time_ns,expire_time_ns}';
BEGIN
    IF OLD.state = 3 OR NEW.state = 1 OR to_jsonb(OLD) - decision <> to_jsonb(NEW) - decision
    THEN
        RAISE EXCEPTION 'restore.approval is immutable: % was rejected, or asked for otherwise',
            OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_decision BEFORE UPDATE ON restore.approval
    FOR EACH ROW EXECUTE FUNCTION restore.only_decision();
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON restore.approval
    FOR EACH STATEMENT EXECUTE FUNCTION drey_meta.refuse_change();
