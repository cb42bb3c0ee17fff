-- Every function of the lock domain against every kind of bad input: the SQLSTATE it answers with.
SET client_min_messages = warning;

\getenv helpers PG_ABS_SRCDIR
\set helper :helpers '/helper/state.sql'
\i :helper

SELECT token AS t FROM distsys.lease_acquire('held', 'me', '10 min') \gset
SELECT format('%s', token) AS dead FROM distsys.lease_acquire('dead', 'me', '10 min') \gset
SELECT distsys.lease_release('dead', :dead);

-- names
SELECT call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, 'lock_key(%s)'), (2, 'lock_name(%s, 1)'), (3, 'xact_lock(%s)'), (4, 'session_lock(%s)'), (5, 'session_unlock(%s, 1)'),
             (6, $$lease_acquire(%s, 'me', '1 s')$$), (7, $$lease_acquire('n', %s, '1 s')$$), (8, 'lease_renew(%s, 1)'), (9, 'lease_release(%s, 1)'),
             (10, 'lease_assert(%s, 1)'), (11, 'lease_get(%s)'), (12, 'fence_pass(%s, 1)'), (13, 'fence_assert(%s, 1)'), (14, 'fence_current(%s)')) f (i, name),
     LATERAL (SELECT 'distsys.' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'empty', $$''$$), (3, 'newline', $$E'a\nb'$$), (4, 'del', $$E'\x7f'$$), (5, '256 bytes', $$repeat('x', 256)$$),
             (6, '1 byte', $$'x'$$)) v (j, label, value)
ORDER BY i, j \crosstabview
SELECT pg_temp.state($$distsys.lock_name(repeat('x', 234), -9223372036854775808)$$) AS longest, pg_temp.state($$distsys.lock_name(repeat('x', 235), 1)$$) AS too_long,
       pg_temp.state($$distsys.lock_name('x', NULL)$$) AS null_id;
SELECT pg_advisory_unlock_all();

-- tokens
SELECT call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, $$session_unlock('x', %s)$$), (2, $$lease_renew('held', %s)$$), (3, $$lease_release('held', %s)$$), (4, $$lease_assert('held', %s)$$),
             (5, $$fence_pass('x', %s)$$), (6, $$fence_assert('x', %s)$$), (7, 'token_advance(%s)')) f (i, name),
     LATERAL (SELECT 'distsys.' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'negative', '-1'), (3, 'zero', '0'), (4, 'lower', '1'), (5, '2^53 - 1', '9007199254740991'),
             (6, '2^53', '9007199254740992'), (7, 'largest', '9223372036854775807')) v (j, label, value)
ORDER BY i, j \crosstabview

-- intervals
SELECT replace(call, :'t', 'TOKEN') AS call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, $$xact_lock('x', %s)$$), (2, $$session_lock('y' || clock_timestamp(), %s)$$), (3, $$lease_acquire('n', 'me', %s)$$), (4, $$lease_acquire('n', 'me', '1 s', %s)$$),
             (5, $$lease_acquire('n', 'me', '1 s', min_hold => %s)$$), (6, $$lease_renew('held', $$ || :t || ', %s)'), (7, $$lease_assert('held', $$ || :t || ', %s)')) f (i, name),
     LATERAL (SELECT 'distsys.' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'negative', $$'-1 s'$$), (3, 'zero', $$'0'$$), (4, '99 ms', $$'99 ms'$$), (5, '100 ms', $$'100 ms'$$),
             (6, '15 min', $$'15 min'$$), (7, '15 min 1 ms', $$'15 min 1 ms'$$), (8, 'month', $$'1 mon'$$), (9, 'days, 1 s', $$'-1 day 24 h 1 s'$$),
             (10, 'huge', $$'2000000000 days'$$)) v (j, label, value)
ORDER BY i, j \crosstabview
SELECT pg_advisory_unlock_all();
-- the parser of 17 knows infinity, that of 15 refuses it: an error with both
SELECT pg_temp.state($$distsys.lease_acquire('n', 'me', 'infinity')$$) IN ('22023', '22007') AS infinite_ttl,
       pg_temp.state($$distsys.xact_lock('n', 'infinity')$$) IN ('22023', '22007') AS infinite_wait;

-- what is not built yet, and unknown words
SELECT pg_temp.state($$distsys.lease_acquire('n', 'me', '1 s', mode => 'shared')$$) AS shared,
       pg_temp.state($$distsys.lease_acquire('n', 'me', '1 s', mode => 'write')$$) AS unknown_mode,
       pg_temp.state($$distsys.lease_acquire('n', 'me', '1 s', mode => NULL)$$) AS null_mode,
       pg_temp.state($$distsys.lease_acquire('n', 'me', '1 s', data => '{}')$$) AS data,
       pg_temp.state($$distsys.lease_acquire('n', 'me', '1 s', min_hold => '1 s')$$) AS min_hold,
       pg_temp.state($$distsys.lease_acquire('n', 'me', '1 s', min_hold => '2 s')$$) AS min_hold_too_long,
       pg_temp.state($$distsys.lease_acquire('n', 'me', '1 s', session_id => gen_random_uuid())$$) AS session_id;

-- unknown and dead leases, wrong tokens
SELECT pg_temp.state($$distsys.lease_renew('nobody', 1)$$) AS renew_unknown, pg_temp.state($$distsys.lease_assert('nobody', 1)$$) AS assert_unknown,
       distsys.lease_release('nobody', 1) AS release_unknown,
       pg_temp.state('distsys.lease_renew(''dead'', ' || :dead || ')') AS renew_released, pg_temp.state('distsys.lease_assert(''dead'', ' || :dead || ')') AS assert_released,
       distsys.lease_release('dead', :dead) AS release_released,
       distsys.lease_release('held', :dead) AS release_wrong_token;

-- READ ONLY: what writes refuses, what only locks or reads does not
SELECT replace(call, :'t', 'TOKEN') AS call, pg_temp.state('distsys.' || call, true)
FROM (VALUES (1, $$lock_key('x')$$), (2, $$xact_lock('x')$$), (3, $$session_lock('x')$$), (4, $$session_unlock('x', 1)$$), (5, $$lease_acquire('n', 'me', '1 s')$$),
             (6, $$lease_renew('held', $$ || :t || ')'), (7, $$lease_release('held', $$ || :t || ')'), (8, $$lease_assert('held', $$ || :t || ')'), (9, $$lease_get('held')$$),
             (10, $$fence_pass('x', 1)$$), (11, $$fence_assert('x', 1)$$), (12, $$fence_current('x')$$), (13, 'token_epoch()'), (14, 'token_epoch_bump()'),
             (15, 'token_advance(9007199254740991)')) f (i, call)
ORDER BY i;

-- PREPARE: a grant cannot be left in doubt
\set VERBOSITY sqlstate
BEGIN;
SELECT acquired FROM distsys.lease_acquire('prepared', 'me', '1 s');
PREPARE TRANSACTION 'lock_errors';
BEGIN;
SELECT acquired FROM distsys.lease_renew('held', :t);
PREPARE TRANSACTION 'lock_errors';
SELECT count(*) AS not_granted FROM distsys.lease_get('prepared');

-- the CALL form: 2D000 inside a transaction or a function
BEGIN;
CALL distsys.session_lock_wait('x');
ROLLBACK;
CREATE FUNCTION pg_temp.atomic() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    t bigint;
BEGIN
    CALL distsys.session_lock_wait('x', '0', t);
    RETURN t;
END $$;
SELECT pg_temp.atomic();
CALL distsys.session_lock_wait(NULL);
CALL distsys.session_lock_wait('');
CALL distsys.session_lock_wait('x', '-1 s');
SET default_transaction_read_only = on;
CALL distsys.session_lock_wait('x');
RESET default_transaction_read_only;

-- too many keys in one transaction
SET distsys.max_keys_per_transaction = 3;
BEGIN;
SELECT distsys.xact_lock('k' || i) FROM generate_series(1, 3) i;
-- one that it has already does not count
SELECT distsys.xact_lock('k1');
SAVEPOINT a;
SELECT distsys.xact_lock('k4');
ROLLBACK TO a;
SELECT distsys.lease_assert('held', :t);
ROLLBACK;
-- a rollback to a savepoint gives the places back
BEGIN;
SAVEPOINT a;
SELECT distsys.xact_lock('k' || i) FROM generate_series(1, 3) i;
ROLLBACK TO a;
SELECT distsys.xact_lock('l' || i) FROM generate_series(1, 3) i;
COMMIT;
RESET distsys.max_keys_per_transaction;

-- refused calls keep nothing
BEGIN;
SELECT acquired, reason FROM distsys.lease_acquire('held', 'other', '1 s');
SELECT distsys.lease_release('held', 1);
SELECT distsys.lease_release('nobody', 1);
SELECT count(*) AS key_locks FROM distsys.locks WHERE pid = pg_backend_pid();
ROLLBACK;
-- nor do calls that failed
BEGIN;
DO $$
BEGIN
    PERFORM distsys.lease_assert('held', 1);
EXCEPTION WHEN sqlstate 'SD002' THEN
END $$;
DO $$
BEGIN
    PERFORM distsys.lease_renew('dead', 1);
EXCEPTION WHEN sqlstate 'SD002' THEN
END $$;
SELECT count(*) AS key_locks FROM distsys.locks WHERE pid = pg_backend_pid();
ROLLBACK;

SELECT distsys.lease_release('held', :t);
SELECT count(*) AS key_locks FROM distsys.locks WHERE pid = pg_backend_pid();
