-- Every function of semaphores against every kind of bad input: the SQLSTATE it answers with. Who may do what.
SET client_min_messages = warning;
SET distsys.notice_in_transaction = off;

\getenv helpers PG_ABS_SRCDIR
\set helper :helpers '/helper/state.sql'
\i :helper

SELECT distsys.semaphore_create('s', 4), distsys.semaphore_create('x', 4);
SELECT token AS t FROM distsys.semaphore_acquire('s', 'me', '10 min') \gset
SELECT token AS dead FROM distsys.semaphore_acquire('s', 'me', '10 min') \gset
SELECT distsys.semaphore_release('s', :dead);

-- names
SELECT call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, 'semaphore_create(%s, 1, if_not_exists => true)'), (2, 'semaphore_resize(%s, 1)'), (3, 'semaphore_drop(%s, true)'),
             (4, $$semaphore_acquire(%s, 'me', '1 s')$$), (5, $$semaphore_acquire('s', %s, '1 s')$$), (6, 'semaphore_renew(%s, 1)'),
             (7, 'semaphore_release(%s, 1)'), (8, 'semaphore_assert(%s, 1)')) f (i, name),
     LATERAL (SELECT 'distsys.' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'empty', $$''$$), (3, 'newline', $$E'a\nb'$$), (4, 'del', $$E'\x7f'$$), (5, '256 bytes', $$repeat('x', 256)$$),
             (6, '255 bytes', $$repeat('x', 255)$$), (7, '1 byte', $$'x'$$)) v (j, label, value)
ORDER BY i, j \crosstabview

-- numbers
SELECT call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, $$semaphore_create('new', %s)$$), (2, $$semaphore_create('new', 1, queue_limit => %s)$$), (3, $$semaphore_resize('s', %s)$$),
             (4, $$semaphore_acquire('s', 'me', '1 s', permits => %s)$$)) f (i, name),
     LATERAL (SELECT 'distsys.' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'negative', '-1'), (3, 'zero', '0'), (4, 'one', '1'), (5, '5', '5'), (6, '10000', '10000'), (7, '10001', '10001'),
             (8, 'largest', '2147483647')) v (j, label, value)
ORDER BY i, j \crosstabview

-- tokens
SELECT call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, $$semaphore_renew('s', %s)$$), (2, $$semaphore_release('s', %s)$$), (3, $$semaphore_assert('s', %s)$$),
             (4, $$semaphore_release('unknown', %s)$$)) f (i, name),
     LATERAL (SELECT 'distsys.' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'negative', '-1'), (3, 'zero', '0'), (4, 'wrong', '1'), (5, 'released', :'dead'), (6, 'live', :'t'),
             (7, '2^53 - 1', '9007199254740991'), (8, '2^53', '9007199254740992'), (9, 'largest', '9223372036854775807')) v (j, label, value)
ORDER BY i, j \crosstabview

-- intervals
SELECT replace(call, :'t', 'TOKEN') AS call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, $$semaphore_acquire('s', 'me', %s)$$), (2, $$semaphore_acquire('s', 'me', '1 s', wait => %s)$$),
             (3, $$semaphore_renew('s', $$ || :t || ', %s)')) f (i, name),
     LATERAL (SELECT 'distsys.' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'negative', $$'-1 s'$$), (3, 'zero', $$'0'$$), (4, '99 ms', $$'99 ms'$$), (5, '100 ms', $$'100 ms'$$),
             (6, '15 min', $$'15 min'$$), (7, '15 min 1 ms', $$'15 min 1 ms'$$), (8, 'month', $$'1 mon'$$), (9, 'days, 1 s', $$'-1 day 24 h 1 s'$$),
             (10, 'huge', $$'2000000000 days'$$)) v (j, label, value)
ORDER BY i, j \crosstabview
-- the parser of 17 knows infinity, that of 15 refuses it: an error with both
SELECT pg_temp.state($$distsys.semaphore_acquire('s', 'me', 'infinity')$$) IN ('22023', '22007') AS infinite_ttl,
       pg_temp.state($$distsys.semaphore_acquire('s', 'me', '1 s', wait => 'infinity')$$) IN ('22023', '22007') AS infinite_wait;

-- unknown, duplicate, NULL where a value is needed
SELECT pg_temp.state($$distsys.semaphore_acquire('unknown', 'me', '1 s')$$) AS acquire, pg_temp.state($$distsys.semaphore_renew('unknown', 1)$$) AS renew,
       pg_temp.state($$distsys.semaphore_assert('unknown', 1)$$) AS assert, pg_temp.state($$distsys.semaphore_resize('unknown', 1)$$) AS resize,
       pg_temp.state($$distsys.semaphore_drop('unknown')$$) AS drop, pg_temp.state($$distsys.semaphore_drop('unknown', if_exists => true)$$) AS drop_if_exists,
       pg_temp.state($$distsys.semaphore_drop('unknown', if_exists => NULL)$$) AS drop_null, pg_temp.state($$distsys.semaphore_create('s', 1)$$) AS duplicate,
       pg_temp.state($$distsys.semaphore_create('s', 1, if_not_exists => NULL)$$) AS create_null,
       pg_temp.state($$distsys.semaphore_acquire('s', 'me', '1 s', request_id => NULL)$$) AS no_request;

-- READ ONLY: what writes refuses, what only locks or reads does not
SELECT replace(call, :'t', 'TOKEN') AS call, pg_temp.state('distsys.' || call, true)
FROM (VALUES (1, $$semaphore_create('new', 1)$$), (2, $$semaphore_resize('s', 1)$$), (3, $$semaphore_drop('s')$$), (4, $$semaphore_acquire('s', 'me', '1 s')$$),
             (5, $$semaphore_renew('s', $$ || :t || ')'), (6, $$semaphore_release('s', $$ || :t || ')'), (7, $$semaphore_assert('s', $$ || :t || ')')) f (i, call)
ORDER BY i;
BEGIN READ ONLY;
SELECT permits, in_use FROM distsys.semaphores WHERE name = 's';
SELECT count(*) FROM distsys.semaphore_permits WHERE name = 's';
COMMIT;

-- PREPARE: a grant cannot be left in doubt; a release may
\set VERBOSITY sqlstate
BEGIN;
SELECT acquired FROM distsys.semaphore_acquire('s', 'me', '1 min');
PREPARE TRANSACTION 'lock_semaphore_errors';
BEGIN;
SELECT acquired FROM distsys.semaphore_renew('s', :t);
PREPARE TRANSACTION 'lock_semaphore_errors';
SELECT in_use FROM distsys.semaphores WHERE name = 's';

-- too many keys in one transaction; choosing several takes one more for a moment
SET distsys.max_keys_per_transaction = 4;
SELECT array_length(slots, 1) FROM distsys.semaphore_acquire('x', 'me', '1 s', permits => 4);
SELECT array_length(slots, 1) FROM distsys.semaphore_acquire('x', 'me', '1 s', permits => 3);
RESET distsys.max_keys_per_transaction;
SELECT bool_and(distsys.semaphore_release('x', token)) FROM (SELECT DISTINCT token FROM distsys.semaphore_permits WHERE name = 'x') p;

-- what ends a wait keeps nothing
SELECT array_length(slots, 1) FROM distsys.semaphore_acquire('x', 'me', '1 min', permits => 4);
BEGIN;
SET LOCAL statement_timeout = '30 ms';
SELECT distsys.semaphore_acquire('x', 'me', '1 min', wait => '5 s');
ROLLBACK;
BEGIN;
SET LOCAL statement_timeout = '30 ms';
DO $$
BEGIN
    PERFORM distsys.semaphore_acquire('x', 'me', '1 min', wait => '5 s');
    RAISE 'not canceled';
EXCEPTION WHEN query_canceled THEN
END $$;
SET LOCAL statement_timeout = 0;
DO $$
BEGIN
    PERFORM distsys.semaphore_assert('x', 1);
EXCEPTION WHEN sqlstate 'SD002' THEN
END $$;
DO $$
BEGIN
    PERFORM distsys.semaphore_renew('s', 1);
EXCEPTION WHEN sqlstate 'SD002' THEN
END $$;
SELECT count(*) AS key_locks FROM distsys.locks WHERE pid = pg_backend_pid();
SELECT waiting FROM distsys.semaphores WHERE name = 'x';
ROLLBACK;

-- indexes that cannot be kept up to date: an error, not a crash
CREATE INDEX lock_semaphore_expression ON distsys.semaphore_permit (lower(owner));
SELECT distsys.semaphore_renew('s', :t);
SELECT * FROM distsys.semaphore_permits;
DROP INDEX distsys.lock_semaphore_expression;
-- rebuilt under our feet, changed by hand
REINDEX TABLE CONCURRENTLY distsys.semaphore_permit;
SELECT acquired FROM distsys.semaphore_renew('s', :t);
VACUUM FULL distsys.semaphore_permit;
SELECT acquired FROM distsys.semaphore_renew('s', :t);
DELETE FROM distsys.semaphore_permit WHERE name = 's';
SELECT distsys.semaphore_renew('s', :t);
SELECT token > :t AS higher, token AS t FROM distsys.semaphore_acquire('s', 'me', '10 min') \gset
SELECT :'higher' AS higher;

-- roles: logins of one group go on with each other's permits, a stranger does not; whoever has the token may assert
CREATE ROLE regress_semaphore_group;
CREATE ROLE regress_semaphore_one IN ROLE regress_semaphore_group;
CREATE ROLE regress_semaphore_two IN ROLE regress_semaphore_group;
CREATE ROLE regress_semaphore_stranger;
CREATE ROLE regress_semaphore_config;
SELECT distsys.access_grant('regress_semaphore_group', 'app') > 0 AND distsys.access_grant('regress_semaphore_stranger', 'app') > 0 AS granted,
       distsys.access_grant('regress_semaphore_config', 'config') > 0 AS config;
SET ROLE regress_semaphore_config;
SELECT distsys.semaphore_create('roles', 1), distsys.semaphore_resize('roles', 2);
UPDATE distsys.semaphore SET queue_limit = 5 WHERE name = 'roles';
SELECT distsys.semaphore_acquire('roles', 'me', '1 min');
RESET ROLE;
SET ROLE regress_semaphore_group;
SELECT token AS g FROM distsys.semaphore_acquire('roles', 'me', '1 min', request_id => '7f6c2b0e-5f0c-4f0e-9d53-0c9ad5e1b6aa') \gset
SELECT distsys.semaphore_create('other', 1);
SELECT count(*) FROM distsys.semaphore_permit;
RESET ROLE;
SET ROLE regress_semaphore_one;
SELECT acquired FROM distsys.semaphore_renew('roles', :g);
SELECT token = :g AS same FROM distsys.semaphore_acquire('roles', 'me', '1 min', request_id => '7f6c2b0e-5f0c-4f0e-9d53-0c9ad5e1b6aa');
RESET ROLE;
SET ROLE regress_semaphore_stranger;
SELECT distsys.semaphore_renew('roles', :g);
SELECT distsys.semaphore_release('roles', :g);
SELECT distsys.semaphore_assert('roles', :g);
-- the same request_id of a stranger is another request
SELECT acquired, token > :g AS another FROM distsys.semaphore_acquire('roles', 'me', '1 min', request_id => '7f6c2b0e-5f0c-4f0e-9d53-0c9ad5e1b6aa');
SELECT acquired, reason FROM distsys.semaphore_acquire('roles', 'me', '1 min');
SELECT * FROM distsys.semaphore_permits;
RESET ROLE;
GRANT pg_monitor TO regress_semaphore_stranger;
SET ROLE regress_semaphore_stranger;
SELECT role, live, token IS NOT NULL AS token FROM distsys.semaphore_permits WHERE name = 'roles' ORDER BY role;
SELECT name, permits, in_use, waiting FROM distsys.semaphores WHERE name = 'roles';
RESET ROLE;
SELECT distsys.semaphore_release('roles', :g);
DROP OWNED BY regress_semaphore_group, regress_semaphore_stranger, regress_semaphore_config;
DELETE FROM distsys.access WHERE grantee::text LIKE 'regress_semaphore%';
DELETE FROM distsys.semaphore;
DELETE FROM distsys.semaphore_permit;
DROP ROLE regress_semaphore_one, regress_semaphore_two, regress_semaphore_group, regress_semaphore_stranger, regress_semaphore_config;
