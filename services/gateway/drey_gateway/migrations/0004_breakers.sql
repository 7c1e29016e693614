-- What administrators say of the circuit breakers of IOCs. A breaker that is automatic again keeps its
-- row, so that the time of the last change of all of them only grows.
CREATE TABLE access.breaker (
    ioc text PRIMARY KEY CHECK (ioc <> ''),
    -- drey.common.v1.BreakerMode: 1 automatic, 2 held open, 3 held closed
    mode smallint NOT NULL CHECK (mode BETWEEN 1 AND 3),
    reason text NOT NULL,
    principal text NOT NULL,
    roles text NOT NULL,
    time_ns bigint NOT NULL
);
