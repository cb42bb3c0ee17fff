-- Advisory helpers: names, locks of a transaction, locks of a session.
\set VERBOSITY sqlstate

-- any client can compute the key: the first 8 bytes of SHA-256, big-endian, signed
SELECT distsys.lock_key('orders') = ('x' || encode(substr(sha256('orders'), 1, 8), 'hex'))::bit(64)::bigint AS same,
       distsys.lock_key('orders') AS orders, distsys.lock_key(repeat('x', 255)) AS longest;
SELECT distsys.lock_name('account', 42), distsys.lock_name('a', -1), distsys.lock_name('a:1', 2);

-- to the end of the transaction, again and again
BEGIN;
SELECT distsys.xact_lock('a'), distsys.xact_lock('a', '0'), distsys.xact_lock('b', '1 s');
SELECT kind, mode, granted, lock_id IN (distsys._lock_id(16, 'a'), distsys._lock_id(16, 'b')) AS mine
FROM distsys.locks WHERE pid = pg_backend_pid();
COMMIT;
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();

-- a savepoint takes its lock with it
BEGIN;
SELECT distsys.xact_lock('a');
SAVEPOINT s;
SELECT distsys.xact_lock('b');
ROLLBACK TO s;
SELECT count(*), bool_and(lock_id = distsys._lock_id(16, 'a')) AS only_a FROM distsys.locks WHERE pid = pg_backend_pid();
SAVEPOINT s;
SELECT distsys.xact_lock('b');
RELEASE s;
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();
ROLLBACK;

-- a space of its own: the application's numbers do not meet it
BEGIN;
SELECT pg_advisory_xact_lock(distsys.lock_key('a')), pg_try_advisory_xact_lock(distsys._lock_id(16, 'a'));
SELECT distsys.xact_lock('a', '0');
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();
ROLLBACK;

-- unless it is told to use them
BEGIN;
SET LOCAL distsys.advisory_keyspace = shared;
SELECT distsys.xact_lock('a'), distsys.xact_lock_shared('b');
SELECT l.mode, (l.classid::bigint << 32) | l.objid::bigint IN (distsys.lock_key('a'), distsys.lock_key('b')) AS same
FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.pid = pg_backend_pid() ORDER BY 1;
ROLLBACK;

-- several names at once, each locked once; what was locked already stays so at ROLLBACK TO
BEGIN;
SELECT distsys.xact_lock('b');
SAVEPOINT s;
SELECT distsys.xact_lock_all('{c,a,b,a}'), distsys.xact_lock_all('{a,c}', '0');
SELECT count(*), min(mode) FROM distsys.locks WHERE pid = pg_backend_pid();
ROLLBACK TO s;
SELECT count(*), bool_and(lock_id = distsys._lock_id(16, 'b')) AS only_b FROM distsys.locks WHERE pid = pg_backend_pid();
COMMIT;
BEGIN;
SELECT distsys.xact_lock_shared('a'), distsys.xact_lock('a'), distsys.xact_lock_shared('a');
SELECT mode FROM distsys.locks WHERE pid = pg_backend_pid() ORDER BY 1;
COMMIT;

-- not waiting in REPEATABLE READ is no reason for 40001
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM pg_class WHERE false;
SELECT distsys.xact_lock('a');
ROLLBACK;

-- session locks: tokens rise, never re-entrant, survive ROLLBACK
SELECT distsys.session_lock('s') AS s1 \gset
SELECT distsys.session_lock('s');
SELECT distsys.session_lock('s', '0');
BEGIN;
SELECT distsys.session_lock('t', '1 s') AS t1 \gset
SAVEPOINT a;
SELECT distsys.session_lock('u', '0') AS u1 \gset
ROLLBACK TO a;
ROLLBACK;
SELECT :s1 < :t1 AND :t1 < :u1 AS rising, :u1 < 2 ^ 53 AS exact;
SELECT kind, mode, granted, count(*) FROM distsys.locks WHERE pid = pg_backend_pid() GROUP BY 1, 2, 3;

-- unlocking: this connection, this token
SELECT distsys.session_unlock('s', :t1);
SELECT distsys.session_unlock('nobody', :s1);
SELECT distsys.session_unlock('s', :s1), distsys.session_unlock('t', :t1), distsys.session_unlock('u', :u1);
SELECT distsys.session_unlock('s', :s1);
SELECT distsys.session_lock('s') > :u1 AS higher;

-- the lock table decides, not what this backend remembers
DISCARD ALL;
SELECT distsys.session_lock('s') AS s2 \gset
SELECT :s2 > :u1 AS higher;
SELECT pg_advisory_unlock_all();
SELECT distsys.session_unlock('s', :s2);
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();

-- more of them than the list begins with
SELECT count(DISTINCT distsys.session_lock('many' || i)) FROM generate_series(1, 100) i;
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid() AND kind = 'session';
SELECT pg_advisory_unlock_all();

-- one session cannot fill the server's lock table; freed ones do not count
SET distsys.max_keys_per_transaction = 3;
SELECT count(distsys.session_lock('few' || i)) FROM generate_series(1, 3) i;
SELECT distsys.session_lock('few4');
SELECT pg_advisory_unlock_all();
SELECT count(distsys.session_lock('few' || i)) FROM generate_series(4, 6) i;
SELECT pg_advisory_unlock_all();
RESET distsys.max_keys_per_transaction;

-- a statement that fails holds nothing, also when it fails after the lock was taken
SELECT distsys.session_lock('failed') / 0;
BEGIN;
SELECT distsys.session_lock('failed') / 0;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT distsys.session_lock('failed') / 0;
ROLLBACK TO s;
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();
COMMIT;
-- one that rolls back by itself goes on with it: in a procedure, in an exception block, in one message
CREATE PROCEDURE pg_temp.rolls_back() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM distsys.session_lock('kept 1');
    ROLLBACK;
    BEGIN
        PERFORM distsys.session_lock('kept 2');
        PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
    END;
    PERFORM distsys.session_lock('kept 3');
    COMMIT;
END $$;
CALL pg_temp.rolls_back();
BEGIN\; SELECT distsys.session_lock('kept 4') IS NOT NULL AS locked\; ROLLBACK;
BEGIN\; SAVEPOINT s\; SELECT distsys.session_lock('kept 5') IS NOT NULL AS locked\; ROLLBACK TO s\; COMMIT;
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();
SELECT pg_advisory_unlock_all();
-- a procedure that fails later in the same statement holds nothing
CREATE PROCEDURE pg_temp.fails() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM distsys.session_lock('failed');
    ROLLBACK;
    PERFORM 1 / 0;
END $$;
CALL pg_temp.fails();
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();
-- no lock with a token of an epoch that may be rolled back: later tokens would be lower
BEGIN;
SAVEPOINT s;
SELECT distsys.token_epoch_bump() > 0 AS bumped;
SAVEPOINT t;
SELECT distsys.session_lock('epoch');
ROLLBACK TO t;
SELECT distsys.token_advance(1) > 0 AS advanced;
RELEASE t;
SELECT distsys.session_lock('epoch');
ROLLBACK TO s;
SELECT distsys.session_lock('epoch') IS NOT NULL AS locked;
ROLLBACK;
SELECT pg_advisory_unlock_all();

-- the CALL form; a token of a rolled back transaction is never given again
CALL distsys.session_lock_wait('c') \gset c_
SELECT :c_token > :s2 AS higher;
CALL distsys.session_lock_wait('c');
CALL distsys.session_lock_wait('d', '10 ms') \gset d_
\set VERBOSITY terse
DO $$
DECLARE
    t bigint;
BEGIN
    CALL distsys.session_lock_wait('e', NULL, t);
    COMMIT;
    RAISE NOTICE '% %', t IS NOT NULL, distsys.session_unlock('e', t);
END $$;
SELECT distsys.session_unlock('c', :c_token), distsys.session_unlock('d', :d_token);
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();
