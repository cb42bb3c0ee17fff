-- Shared locks, several names at once, and their settings, against every kind of bad input.
SET client_min_messages = warning;

\getenv helpers PG_ABS_SRCDIR
\set helper :helpers '/helper/state.sql'
\i :helper

SELECT call, label, pg_temp.state(format('distsys.' || call, value))
FROM (VALUES (1, 'xact_lock_shared(%s)'), (2, 'xact_lock_all(ARRAY[%s])'), (3, $$xact_lock_all(ARRAY['y', %s])$$)) f (i, call),
     (VALUES (1, 'null', 'NULL'), (2, 'empty', $$''$$), (3, 'newline', $$E'a\nb'$$), (4, 'del', $$E'\x7f'$$), (5, '256 bytes', $$repeat('x', 256)$$),
             (6, '255 bytes', $$repeat('x', 255)$$)) v (j, label, value)
ORDER BY i, j \crosstabview
SELECT label, pg_temp.state(format('distsys.xact_lock_all(%s)', value))
FROM (VALUES (1, 'null', 'NULL'), (2, 'empty', $$'{}'$$), (3, 'two dimensions', $$'{{a,b},{c,d}}'$$), (4, 'from zero', $$'[0:1]={a,b}'$$),
             (5, 'duplicates', $$'{a,b,a}'$$)) v (j, label, value)
ORDER BY j;
SELECT call, label, pg_temp.state(format('distsys.' || call, value))
FROM (VALUES (1, $$xact_lock_shared('x', %s)$$), (2, $$xact_lock_all('{x,y}', %s)$$)) f (i, call),
     (VALUES (1, 'null', 'NULL'), (2, 'negative', $$'-1 s'$$), (3, 'zero', $$'0'$$), (4, 'month', $$'1 mon'$$), (5, 'days, 1 s', $$'-1 day 24 h 1 s'$$),
             (6, 'huge', $$'2000000000 days'$$)) v (j, label, value)
ORDER BY i, j \crosstabview
SELECT pg_temp.state($$distsys.xact_lock_shared('x')$$, true) AS shared_read_only, pg_temp.state($$distsys.xact_lock_all('{x,y}')$$, true) AS all_read_only;
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();

-- the bound on keys: what is asked for twice counts once, and the failed call holds nothing
SET distsys.max_keys_per_transaction = 3;
BEGIN;
SELECT distsys.xact_lock('a'), distsys.xact_lock_all('{b,a,c,b}'), distsys.xact_lock_all('{c,b,a}');
SELECT pg_temp.state($$distsys.xact_lock_all('{b,a,c,d}')$$) AS a_fourth;
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();
ROLLBACK;
RESET distsys.max_keys_per_transaction;

-- the settings
SELECT name, setting, context, enumvals FROM pg_settings WHERE name IN ('distsys.advisory_keyspace', 'distsys.stale_snapshot') ORDER BY 1;
\set VERBOSITY sqlstate
SET distsys.stale_snapshot = sometimes;
CREATE ROLE regress_lock_app;
SELECT distsys.access_grant('regress_lock_app', 'app') > 0 AS granted;
SET ROLE regress_lock_app;
SET distsys.advisory_keyspace = shared;
SET distsys.stale_snapshot = warning;
SELECT distsys.xact_lock_shared('x'), distsys.xact_lock_all('{x,y}');
SELECT distsys._lock_names();
RESET distsys.stale_snapshot;
RESET ROLE;
SELECT distsys.access_revoke('regress_lock_app', 'app') > 0 AS revoked;
DROP ROLE regress_lock_app;

-- the CALL form in an exception block, which is a subtransaction
\set VERBOSITY terse
DO $$
DECLARE
    t bigint;
BEGIN
    CALL distsys.session_lock_wait('x', '0', t);
EXCEPTION WHEN invalid_transaction_termination THEN
    RAISE WARNING '%', SQLERRM;
END $$;
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();

-- a prepared transaction keeps its locks, and the view shows them without a pid
BEGIN;
SELECT distsys.xact_lock('p'), distsys.xact_lock_shared('q');
CREATE TABLE lock_advisory_prepared ();
PREPARE TRANSACTION 'lock_advisory';
SELECT distsys.xact_lock('p', '0'), distsys.xact_lock_shared('q', '0'), distsys.xact_lock_all('{o,p}', '0');
SELECT kind, mode, granted, pid FROM distsys.locks WHERE kind = 'xact' AND pid IS NULL ORDER BY mode;
ROLLBACK PREPARED 'lock_advisory';
SELECT distsys.xact_lock('p', '0');
