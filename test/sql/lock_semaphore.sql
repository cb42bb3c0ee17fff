-- Semaphores: at most so many permits, each for a time.
SET client_min_messages = warning;
SET distsys.notice_in_transaction = off;

-- create
SELECT distsys.semaphore_create('imports', permits => 3), distsys.semaphore_create('imports', 9, if_not_exists => true) AS again;
-- who makes sure of it keeps nothing locked
BEGIN;
SELECT distsys.semaphore_create('imports', 9, if_not_exists => true) AS again, distsys.semaphore_drop('none', if_exists => true) AS dropped;
SELECT count(*) AS key_locks FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
COMMIT;
SELECT * FROM distsys.semaphores WHERE name = 'imports';

-- acquire: a row, refused or not
SELECT acquired, reason, array_length(slots, 1) AS n, ttl_remaining, expires_at BETWEEN now() + '30 s' AND clock_timestamp() + '30 s' AS expires, retry_after IS NULL AND retry_after_s IS NULL AS no_retry, token AS t1
FROM distsys.semaphore_acquire('imports', 'one', '30 s') \gset one_
SELECT :'one_acquired' AS acquired, :'one_reason' AS reason, :one_n AS n, :'one_ttl_remaining' AS ttl_remaining, :'one_expires' AS expires, :'one_no_retry' AS no_retry, :one_t1 < 2::bigint ^ 53 AS token;
SELECT acquired, reason, array_length(slots, 1) AS n, token AS t2 FROM distsys.semaphore_acquire('imports', 'two', '10 min', permits => 2) \gset two_
SELECT :'two_acquired' AS acquired, :two_n AS n, :two_t2 > :one_t1 AS higher_token;
SELECT name, permits, in_use, waiting FROM distsys.semaphores WHERE name = 'imports';
SELECT slot, live, role = current_user::regrole AS role, ttl_remaining > '29 s' AS ttl_remaining, token IN (:one_t1, :two_t2) AS token
FROM distsys.semaphore_permits WHERE name = 'imports';
SELECT owner, count(*), count(DISTINCT token) AS tokens, count(DISTINCT expires_at) AS expiries FROM distsys.semaphore_permits WHERE name = 'imports' GROUP BY owner ORDER BY owner;

-- refused: when to come back is when so many have expired
SELECT acquired, reason, token, slots, expires_at, ttl_remaining, retry_after BETWEEN '29 s' AND '30 s' AS retry_after, retry_after_s FROM distsys.semaphore_acquire('imports', 'three', '30 s');
SELECT acquired, reason, retry_after BETWEEN '9 min 59 s' AND '10 min' AS retry_after, retry_after_s FROM distsys.semaphore_acquire('imports', 'three', '30 s', permits => 2);
SELECT acquired, reason, retry_after_s FROM distsys.semaphore_acquire('imports', 'three', '30 s', wait => '30 ms');

-- a release frees once, all permits of the grant
SELECT distsys.semaphore_release('imports', :two_t2), distsys.semaphore_release('imports', :two_t2) AS again;
SELECT in_use FROM distsys.semaphores WHERE name = 'imports';
-- all or nothing: two are free
SELECT acquired, reason, retry_after > '29 s' AS retry_after FROM distsys.semaphore_acquire('imports', 'three', '30 s', permits => 3);
SELECT in_use FROM distsys.semaphores WHERE name = 'imports';
-- a token of one semaphore says nothing about another
SELECT distsys.semaphore_create('exports', 1);
SELECT distsys.semaphore_release('exports', :one_t1);

-- renew: all permits, the same ttl or another
SELECT token AS t2, array_length(slots, 1) AS n FROM distsys.semaphore_acquire('imports', 'two', '1 min', permits => 2) \gset
SELECT acquired, reason, token = :t2 AS same_token, array_length(slots, 1) AS n, ttl_remaining FROM distsys.semaphore_renew('imports', :t2);
SELECT ttl_remaining FROM distsys.semaphore_renew('imports', :t2, '5 min');
SELECT ttl_remaining FROM distsys.semaphore_renew('imports', :t2);
SELECT count(*), min(ttl_remaining) > '4 min' AS renewed FROM distsys.semaphore_permits WHERE name = 'imports' AND token = :t2;

-- time passes: what has expired is free, cannot be renewed, asserted or released
SET distsys.clock_offset = '31 s';
SELECT in_use FROM distsys.semaphores WHERE name = 'imports';
SELECT distsys.semaphore_renew('imports', :one_t1);
SELECT distsys.semaphore_assert('imports', :one_t1);
SELECT distsys.semaphore_release('imports', :one_t1);
SELECT acquired, array_length(slots, 1) AS n, token > :t2 AS higher FROM distsys.semaphore_acquire('imports', 'four', '30 s');
SELECT distsys.semaphore_release('imports', :one_t1);
SELECT in_use FROM distsys.semaphores WHERE name = 'imports';
RESET distsys.clock_offset;
-- somebody sets the wall clock: nothing is freed early, nothing lives longer
SET distsys.clock_step = '1 h';
SELECT in_use FROM distsys.semaphores WHERE name = 'imports';
SELECT acquired FROM distsys.semaphore_acquire('imports', 'five', '30 s');
SET distsys.clock_step = '-1 h';
SET distsys.clock_offset = '10 min';
SELECT in_use FROM distsys.semaphores WHERE name = 'imports';
RESET distsys.clock_step;
RESET distsys.clock_offset;

-- the same request_id answers with the same grant, also when nothing is free; another one does not
SELECT distsys.semaphore_create('retry', 2);
SELECT token AS t, slots AS s FROM distsys.semaphore_acquire('retry', 'me', '1 min', 2, request_id => '7f6c2b0e-5f0c-4f0e-9d53-0c9ad5e1b6aa') \gset
SELECT acquired, reason, token = :t AS same, slots = :'s' AS same_slots, ttl_remaining <= '1 min' AS ttl FROM distsys.semaphore_acquire('retry', 'me', '10 min', 2, request_id => '7f6c2b0e-5f0c-4f0e-9d53-0c9ad5e1b6aa');
SELECT acquired, reason FROM distsys.semaphore_acquire('retry', 'me', '1 min', request_id => '00000000-0000-0000-0000-000000000001');
SELECT acquired, reason FROM distsys.semaphore_acquire('retry', 'me', '1 min');
SELECT distsys.semaphore_release('retry', :t);
SELECT acquired, token > :t AS new FROM distsys.semaphore_acquire('retry', 'me', '10 min', 1, request_id => '7f6c2b0e-5f0c-4f0e-9d53-0c9ad5e1b6aa');

-- what is found by reading all slots: grants of other connections, and large ones
SELECT distsys.semaphore_create('large', 200);
SELECT token AS t, array_length(slots, 1) AS n, slots[1] AS first, slots[150] AS last FROM distsys.semaphore_acquire('large', 'me', '1 min', 150) \gset
SELECT :n AS n, :first AS first, :last AS last;
SELECT token AS t1 FROM distsys.semaphore_acquire('large', 'me', '1 min', 1) \gset
\c
SET client_min_messages = warning;
SET distsys.notice_in_transaction = off;
SELECT array_length(slots, 1) FROM distsys.semaphore_renew('large', :t);
SELECT array_length(slots, 1) FROM distsys.semaphore_renew('large', :t1);
SELECT distsys.semaphore_assert('large', :t), distsys.semaphore_assert('large', :t1);
SELECT retry_after_s BETWEEN 1 AND 60 AS retry_after FROM distsys.semaphore_acquire('large', 'me', '1 min', 50);
SELECT array_length(slots, 1) FROM distsys.semaphore_acquire('large', 'me', '1 min', 49);
SELECT in_use FROM distsys.semaphores WHERE name = 'large';
SELECT distsys.semaphore_release('large', :t), distsys.semaphore_release('large', :t1), distsys.semaphore_release('large', :t1);
SELECT in_use FROM distsys.semaphores WHERE name = 'large';

-- transactions: a rollback gives everything back, locks too
BEGIN;
SELECT acquired FROM distsys.semaphore_acquire('exports', 'me', '1 min');
SELECT acquired FROM distsys.semaphore_acquire('exports', 'me', '1 min');
ROLLBACK;
SELECT in_use FROM distsys.semaphores WHERE name = 'exports';
BEGIN;
SAVEPOINT a;
SELECT token AS t FROM distsys.semaphore_acquire('exports', 'me', '1 min') \gset
ROLLBACK TO a;
SELECT distsys.semaphore_release('exports', :t);
SELECT count(*) AS key_locks FROM distsys.locks WHERE pid = pg_backend_pid();
SELECT token AS t FROM distsys.semaphore_acquire('exports', 'me', '1 min') \gset
SELECT distsys.semaphore_assert('exports', :t);
COMMIT;
BEGIN;
SELECT distsys.semaphore_release('exports', :t);
ROLLBACK;
SELECT distsys.semaphore_assert('exports', :t);
DO $$
BEGIN
    PERFORM distsys.semaphore_release('exports', token) FROM distsys.semaphore_permits WHERE name = 'exports';
    RAISE EXCEPTION 'undo';
EXCEPTION WHEN raise_exception THEN
END $$;
SELECT in_use FROM distsys.semaphores WHERE name = 'exports';
-- released and acquired again in one transaction
BEGIN;
SELECT distsys.semaphore_release('exports', :t);
SELECT token > :t AS higher FROM distsys.semaphore_acquire('exports', 'me', '1 min');
COMMIT;
-- refused calls keep nothing
BEGIN;
SELECT acquired FROM distsys.semaphore_acquire('exports', 'me', '1 min');
SELECT acquired FROM distsys.semaphore_acquire('exports', 'me', '1 min', wait => '30 ms');
SELECT acquired FROM distsys.semaphore_acquire('exports', 'me', '1 min', request_id => gen_random_uuid());
SELECT acquired FROM distsys.semaphore_acquire('imports', 'me', '1 min', 2);
SELECT distsys.semaphore_release('exports', :t);
SELECT count(*) AS key_locks FROM distsys.locks WHERE pid = pg_backend_pid();
ROLLBACK;
-- all isolation levels
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM distsys.semaphore_permits WHERE name = 'exports';
SELECT acquired FROM distsys.semaphore_acquire('exports', 'me', '1 min');
SELECT token AS t FROM distsys.semaphore_permits WHERE name = 'exports' AND live \gset
SELECT distsys.semaphore_assert('exports', :t), (SELECT acquired FROM distsys.semaphore_renew('exports', :t)), distsys.semaphore_release('exports', :t);
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT acquired FROM distsys.semaphore_acquire('exports', 'me', '1 min');
COMMIT;
-- the view locks knows the names
BEGIN;
SELECT distsys.semaphore_assert('exports', token) FROM distsys.semaphore_permits WHERE name = 'exports';
SELECT array_length(slots, 1) FROM distsys.semaphore_acquire('retry', 'me', '1 min');
SELECT kind, name, mode FROM distsys.locks WHERE pid = pg_backend_pid() ORDER BY name;
COMMIT;
-- a NOTICE where the grant takes effect later than it looks
SET client_min_messages = notice;
RESET distsys.notice_in_transaction;
BEGIN;
SELECT acquired FROM distsys.semaphore_acquire('large', 'me', '1 min');
COMMIT;
SELECT acquired FROM distsys.semaphore_acquire('large', 'me', '1 min');
SET client_min_messages = warning;

-- shrinking drains: nobody is blocked, who holds stays, slots above the size are not granted again
SELECT distsys.semaphore_create('size', 3);
SELECT token AS t FROM distsys.semaphore_acquire('size', 'me', '10 min', 3) \gset
SELECT distsys.semaphore_resize('size', 1), distsys.semaphore_resize('size', 1) AS again;
SELECT permits, in_use FROM distsys.semaphores WHERE name = 'size';
SELECT array_length(slots, 1) FROM distsys.semaphore_renew('size', :t);
SELECT acquired, reason, retry_after > '9 min' AS retry_after FROM distsys.semaphore_acquire('size', 'other', '10 min');
SELECT distsys.semaphore_acquire('size', 'other', '10 min', 2);
SELECT distsys.semaphore_release('size', :t);
SELECT slots FROM distsys.semaphore_acquire('size', 'other', '10 min');
SELECT acquired, reason FROM distsys.semaphore_acquire('size', 'other', '10 min');
SELECT distsys.semaphore_resize('size', 2);
SELECT slots FROM distsys.semaphore_acquire('size', 'other', '10 min');
SELECT permits, in_use FROM distsys.semaphores WHERE name = 'size';

-- nor any other slot while as many are held as there are permits now, wherever they are
SELECT distsys.semaphore_create('shrunk', 10);
SELECT count(*) AS granted FROM generate_series(1, 10) g, LATERAL distsys.semaphore_acquire('shrunk', 'holder ' || g, '10 min') a WHERE a.acquired;
SELECT count(distsys.semaphore_release(name, token)) AS released FROM distsys.semaphore_permits WHERE name = 'shrunk' AND slot NOT IN (4, 6, 8, 10);
SELECT distsys.semaphore_resize('shrunk', 4);
SELECT acquired, reason, retry_after BETWEEN '9 min' AND '10 min' AS until_one_expires FROM distsys.semaphore_acquire('shrunk', 'me', '10 min');
SELECT distsys.semaphore_resize('shrunk', 5);
SELECT acquired, reason FROM distsys.semaphore_acquire('shrunk', 'me', '10 min', permits => 2);
SELECT acquired, slots FROM distsys.semaphore_acquire('shrunk', 'me', '10 min');
SELECT acquired, reason FROM distsys.semaphore_acquire('shrunk', 'me', '10 min');
SELECT distsys.semaphore_release(name, token) FROM distsys.semaphore_permits WHERE name = 'shrunk' AND slot = 10;
SELECT acquired FROM distsys.semaphore_acquire('shrunk', 'me', '10 min');
SELECT permits, in_use FROM distsys.semaphores WHERE name = 'shrunk';

-- ordinary SQL: effective at once, and checked
UPDATE distsys.semaphore SET permits = 3, queue_limit = 0 WHERE name = 'size';
SELECT slots FROM distsys.semaphore_acquire('size', 'other', '10 min');
SELECT acquired, reason, retry_after_s > 500 AS retry_after FROM distsys.semaphore_acquire('size', 'other', '10 min', wait => '1 s');
SELECT acquired, reason FROM distsys.semaphore_acquire('size', 'other', '10 min');
INSERT INTO distsys.semaphore VALUES ('zero', 0);
INSERT INTO distsys.semaphore VALUES (E'a\nb', 1);
INSERT INTO distsys.semaphore VALUES (repeat('x', 256), 1);
INSERT INTO distsys.semaphore VALUES (repeat('x', 255), 1);
SELECT acquired FROM distsys.semaphore_acquire(repeat('x', 255), 'me', '1 min');

-- drop: nothing is granted any more, who holds stays; created again it counts them
SELECT token AS t FROM distsys.semaphore_permits WHERE name = 'size' AND slot = 2 \gset
SELECT distsys.semaphore_drop('size'), distsys.semaphore_drop('size', if_exists => true) AS again;
SELECT distsys.semaphore_acquire('size', 'me', '1 min');
SELECT distsys.semaphore_assert('size', :t);
SELECT acquired FROM distsys.semaphore_renew('size', :t);
SELECT distsys.semaphore_create('size', 3);
SELECT permits, in_use FROM distsys.semaphores WHERE name = 'size';
SELECT acquired, reason FROM distsys.semaphore_acquire('size', 'me', '1 min');
SELECT distsys.semaphore_drop('size');
SELECT distsys.semaphore_release('size', :t), distsys.semaphore_release('size', :t) AS again;
-- a name that was never one is an error
SELECT distsys.semaphore_release('sise', :t);

-- housekeeping removes dead permits of slots that are not granted any more, and no others
SELECT distsys.semaphore_create('swept', 4);
SELECT token AS t FROM distsys.semaphore_acquire('swept', 'me', '1 min', 4) \gset
SELECT distsys.semaphore_release('swept', :t), distsys.semaphore_resize('swept', 2);
SELECT error FROM distsys.maintain() WHERE job = 'semaphore_sweep';
SELECT count(*) FROM distsys.semaphore_permits WHERE name IN ('swept');
SET distsys.clock_offset = '20 min';
SELECT rows_removed > 0 AS removed, error FROM distsys.maintain() WHERE job = 'semaphore_sweep';
SELECT name, slot FROM distsys.semaphore_permits WHERE name IN ('swept', 'size') ORDER BY 1, 2;
RESET distsys.clock_offset;
SELECT slots FROM distsys.semaphore_acquire('swept', 'me', '1 min', 2);

-- renewals and claims are HOT: neither the index nor the table grows
SELECT distsys.semaphore_create('hot', 4);
SELECT token AS t FROM distsys.semaphore_acquire('hot', 'me', '1 min', 4) \gset
SELECT distsys.semaphore_release('hot', :t);
SELECT pg_stat_force_next_flush();
SELECT n_tup_upd AS upd, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relid = 'distsys.semaphore_permit'::regclass \gset
SELECT pg_relation_size('distsys.semaphore_permit_pkey') AS index_size, pg_relation_size('distsys.semaphore_permit') AS table_size \gset
DO $$
DECLARE
    t bigint;
BEGIN
    FOR i IN 1 .. 200 LOOP
        t := (distsys.semaphore_acquire('hot', 'me', '1 min')).token;
        COMMIT;
        PERFORM distsys.semaphore_renew('hot', t);
        COMMIT;
        PERFORM distsys.semaphore_release('hot', t);
        COMMIT;
    END LOOP;
END $$;
SELECT pg_stat_force_next_flush();
SELECT n_tup_upd - :upd AS updates, n_tup_hot_upd - :hot >= 594 AS hot, pg_relation_size('distsys.semaphore_permit_pkey') = :index_size AS index_flat,
       pg_relation_size('distsys.semaphore_permit') <= :table_size + 2 * 8192 AS table_flat
FROM pg_stat_user_tables WHERE relid = 'distsys.semaphore_permit'::regclass;

SELECT count(*) AS key_locks FROM distsys.locks WHERE pid = pg_backend_pid();
DELETE FROM distsys.semaphore;
DELETE FROM distsys.semaphore_permit;
