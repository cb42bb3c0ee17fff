
-- ---------------------------------------------------------------------------
-- worker: housekeeping
-- ---------------------------------------------------------------------------

CREATE FUNCTION distsys.maintain(OUT job text, OUT rows_removed bigint, OUT elapsed interval, OUT error text) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'distsys_maintain';
COMMENT ON FUNCTION distsys.maintain() IS 'Runs every housekeeping job now, in this transaction, each for at most about two seconds and in a subtransaction of its own. One row per job: rows_removed, elapsed, and error when it failed (NULL: well). For servers without shared_preload_libraries call it from a scheduler, once a minute. 25006 on a standby and in a read-only transaction.';

CREATE FUNCTION distsys._worker_jobs(OUT job text, OUT period interval, OUT last_started_at timestamptz, OUT last_success_at timestamptz,
    OUT next_run_at timestamptz, OUT consecutive_failures int, OUT last_error text, OUT rows_removed bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'distsys__worker_jobs';
COMMENT ON FUNCTION distsys._worker_jobs() IS 'Internal: rows of the view distsys.worker_jobs.';

CREATE VIEW distsys.worker_jobs AS
    SELECT j.job, pg_catalog.current_database() AS database, j.period, j.last_started_at, j.last_success_at, j.next_run_at,
           j.consecutive_failures, j.last_error, j.rows_removed
    FROM distsys._worker_jobs() j;
COMMENT ON VIEW distsys.worker_jobs IS 'The housekeeping jobs of this database, one row each, since the server started. NULL from last_started_at on: no worker looks after this database (the library is not in shared_preload_libraries, distsys.worker_enabled is off, this is a standby, or the launcher has not been here yet). last_error stays after the next success; consecutive_failures goes back to 0.';

CREATE FUNCTION distsys._poke() RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'distsys__poke';
COMMENT ON FUNCTION distsys._poke() IS 'Internal: has the launcher look at this database when this transaction commits. Called by the install script; false without shared_preload_libraries.';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('operator', 'routine', 'maintain'),
    ('operator', 'view', 'worker_jobs'),
    ('operator', 'routine', '_worker_jobs'),
    ('monitor', 'view', 'worker_jobs'),
    ('monitor', 'routine', '_worker_jobs');

SELECT distsys._poke();
