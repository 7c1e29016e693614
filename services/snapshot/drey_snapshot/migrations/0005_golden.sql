-- Which snapshot is golden for a scope and label: one for each; setting the mark again moves it.
CREATE TABLE snapshot.golden (
    -- empty: the whole catalog
    scope text NOT NULL,
    -- empty: the one without a label
    label text NOT NULL,
    snapshot_no bigint NOT NULL REFERENCES snapshot.snapshot (no),
    -- who set it, and the roles as in the audit trail; empty: set before marks were kept
    principal text NOT NULL,
    roles text NOT NULL,
    reason text NOT NULL,
    -- 0: set before marks were kept
    mark_time_ns bigint NOT NULL,
    PRIMARY KEY (scope, label)
);
CREATE INDEX golden_by_snapshot ON snapshot.golden (snapshot_no);

-- A flag becomes a mark of the whole catalog. Of several, each is labelled with its title, or with
-- its id where the title is empty or not the only one of its kind.
INSERT INTO snapshot.golden (scope, label, snapshot_no, principal, roles, reason, mark_time_ns)
SELECT
    '',
    CASE
        WHEN count(*) OVER () = 1 THEN ''
        WHEN l.title = '' OR count(*) OVER (PARTITION BY l.title) > 1 THEN s.id::text
        ELSE l.title
    END,
    s.no, '', '', '', 0
FROM snapshot.label AS l JOIN snapshot.snapshot AS s ON s.no = l.snapshot_no
WHERE l.golden;

ALTER TABLE snapshot.label DROP COLUMN golden;
