-- Housekeeping by hand: maintain(), and the views worker_jobs and stats. The same with and without a worker.
\set VERBOSITY sqlstate
SET client_min_messages = warning;

-- a row that is expired for this session's clock goes away
SELECT acquired FROM distsys.lease_acquire('worker_test', 'me', '10 s');
SELECT error FROM distsys.maintain() WHERE job = 'lease_sweep';
SELECT count(*) FROM distsys.lease_get('worker_test');
SET distsys.clock_offset = '1 h';
SELECT rows_removed >= 1 AS removed, elapsed >= '0' AS elapsed, error FROM distsys.maintain() WHERE job = 'lease_sweep';
SELECT count(*) FROM distsys.lease_get('worker_test');
RESET distsys.clock_offset;

-- one row per job, every one well
SELECT count(*) >= 1 AS jobs, count(error) AS failed FROM distsys.maintain();
SELECT count(*) = (SELECT count(*) FROM distsys.maintain()) AS same_jobs,
       bool_and(database = current_database()) AS here, bool_and(period BETWEEN '1 s' AND '1 h') AS periods
FROM distsys.worker_jobs;

-- one that fails does not take the others with it, and leaves nothing behind
SET distsys.worker_fail_job = 'lease_sweep';
SELECT job, rows_removed, error FROM distsys.maintain() WHERE job = 'lease_sweep';
SELECT count(error) AS failed FROM distsys.maintain();
RESET distsys.worker_fail_job;
SELECT count(*) AS locks_left FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';

-- each job removes its own
SELECT status FROM distsys.idempotency_begin('worker', 'k', sha256('x'));
SELECT distsys.rate_limit_create('worker_limit', quota => 5, period => '1 min');
SELECT allowed FROM distsys.rate_limit_take('worker_limit', 'k');
SELECT distsys.outbox_topic_create('worker_topic', retention => '1 hour');
SELECT distsys.outbox_publish('worker_topic', 'e', '{}') IS NOT NULL AS published;
SELECT job, error FROM distsys.maintain();
SELECT count(*) FROM distsys.outbox_read('worker_topic');
SET distsys.clock_offset = '25 h';
SET distsys.max_keys_per_transaction = 20000;
SELECT job, rows_removed >= 1 AS removed, error FROM distsys.maintain() WHERE job NOT IN ('lease_sweep', 'rate_limit_snapshot', 'outbox_settle');
RESET distsys.max_keys_per_transaction;
SELECT count(*) FROM distsys.outbox_read('worker_topic');
SELECT distsys.outbox_topic_drop('worker_topic');
SELECT count(*) FROM distsys.idempotency_get('worker', 'k');
SELECT count(*) FROM distsys.rate_limit_bucket WHERE policy = 'worker_limit';
RESET distsys.clock_offset;
SELECT remaining FROM distsys.rate_limit_peek('worker_limit', 'k');
SELECT distsys.rate_limit_drop('worker_limit');

-- no more than its share of what a transaction may hold, and the rest the next time
SELECT count(*) FROM generate_series(1, 300) i, distsys.lease_acquire('worker_many' || i, 'me', '10 s') WHERE acquired;
SET distsys.clock_offset = '1 h';
SET distsys.max_keys_per_transaction = 100;
SELECT rows_removed BETWEEN 1 AND 100 AS removed, error FROM distsys.maintain() WHERE job = 'lease_sweep';
BEGIN;
SELECT count(error) AS failed FROM distsys.maintain();
SELECT count(error) AS failed FROM distsys.maintain();
SELECT count(error) AS failed FROM distsys.maintain();
COMMIT;
RESET distsys.max_keys_per_transaction;
DO $$
BEGIN
    FOR i IN 1 .. 50 LOOP
        PERFORM FROM distsys.maintain();
    END LOOP;
END
$$;
RESET distsys.clock_offset;
SELECT count(*) FROM distsys.leases WHERE name LIKE 'worker_many%';

-- rolled back with the transaction
SELECT acquired FROM distsys.lease_acquire('worker_test', 'me', '10 s');
SET distsys.clock_offset = '1 h';
BEGIN;
SAVEPOINT s;
SELECT rows_removed >= 1 AS removed FROM distsys.maintain() WHERE job = 'lease_sweep';
ROLLBACK TO SAVEPOINT s;
COMMIT;
RESET distsys.clock_offset;
SELECT count(*) FROM distsys.lease_get('worker_test');

-- inside 2PC and the other isolation levels
BEGIN;
SELECT count(error) AS failed FROM distsys.maintain();
PREPARE TRANSACTION 'worker_test';
ROLLBACK PREPARED 'worker_test';
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(error) AS failed FROM distsys.maintain();
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(error) AS failed FROM distsys.maintain();
COMMIT;

-- refused where nothing can be written; the views still answer
BEGIN READ ONLY;
SELECT * FROM distsys.maintain();
ROLLBACK;
BEGIN READ ONLY;
SELECT count(*) >= 1 AS jobs FROM distsys.worker_jobs;
SELECT count(*) >= 0 AS stats FROM distsys.stats;
COMMIT;

-- columns are an interface
SELECT attrelid::regclass AS view, attname, format_type(atttypid, atttypmod)
FROM pg_attribute WHERE attrelid IN ('distsys.worker_jobs'::regclass, 'distsys.stats'::regclass) AND attnum > 0
ORDER BY attrelid::regclass::text, attnum;

-- the settings are for superusers
CREATE ROLE regress_worker_nobody;
SET ROLE regress_worker_nobody;
SET distsys.worker_fail_job = 'lease_sweep';
SET distsys.worker_speedup = 2;
SELECT distsys.maintain();
SELECT distsys._poke();
SELECT * FROM distsys.worker_jobs;
SELECT * FROM distsys.stats;
RESET ROLE;
DROP ROLE regress_worker_nobody;

SELECT distsys.lease_release('worker_test', token) FROM distsys.lease_get('worker_test');
