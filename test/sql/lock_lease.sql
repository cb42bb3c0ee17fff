-- Leases of one session: what is granted, refused, prolonged, given back, and what a transaction does to it.
\set VERBOSITY sqlstate

-- a grant
SELECT acquired, reason, name, owner, mode, token > 0 AND token < 2 ^ 53 AS token, expires_at - acquired_at AS ttl, ttl_remaining, retry_after, data
FROM distsys.lease_acquire('job', 'worker 1', '30 s');
SELECT token AS t1 FROM distsys.lease_get('job') \gset
-- a refusal is a row: no token, owner and times of the holder; the same owner does not re-enter
SELECT acquired, reason, owner, token, ttl_remaining BETWEEN '29 s' AND '30 s' AS left, retry_after = ttl_remaining AS retry_then
FROM distsys.lease_acquire('job', 'worker 2', '30 s');
SELECT acquired, reason, owner, token FROM distsys.lease_acquire('job', 'worker 1', '30 s');
SELECT acquired, reason, owner FROM distsys.lease_acquire('job', 'worker 2', '30 s', '50 ms');
-- get and the view say the same
SELECT g.acquired, g.reason, g.owner = v.owner AND g.token = v.token AND g.acquired_at = v.acquired_at AS same, v.role::text = current_user AS role, v.mode, v.live
FROM distsys.lease_get('job') g JOIN distsys.leases v USING (name);
SELECT count(*) FROM distsys.lease_get('nobody');

-- renew: from now, with the ttl it has or another
SELECT acquired, reason, token = :t1 AS same_token, expires_at - acquired_at >= '30 s' AS prolonged, ttl_remaining FROM distsys.lease_renew('job', :t1);
SELECT ttl_remaining FROM distsys.lease_renew('job', :t1, '5 min');
SELECT ttl_remaining FROM distsys.lease_renew('job', :t1);
SELECT distsys.lease_renew('job', :t1 - 1);
SELECT distsys.lease_renew('job', :t1 + 1);
-- assert
SELECT distsys.lease_assert('job', :t1), distsys.lease_assert('job', :t1, '4 min');
SELECT distsys.lease_assert('job', :t1, '6 min');
SELECT distsys.lease_assert('job', :t1 + 1);
-- release, twice; the next token is higher
SELECT distsys.lease_release('job', :t1 + 1), distsys.lease_release('job', :t1), distsys.lease_release('job', :t1);
SELECT acquired, reason, ttl_remaining FROM distsys.lease_get('job');
SELECT distsys.lease_renew('job', :t1);
SELECT distsys.lease_assert('job', :t1);
SELECT token AS t2, token > :t1 AS higher FROM distsys.lease_acquire('job', 'worker 2', '30 s') \gset
SELECT :'higher' AS higher;
SELECT distsys.lease_renew('job', :t1);
SELECT distsys.lease_release('job', :t1);
SELECT reason FROM distsys.lease_get('job');

-- what the messages say
\set VERBOSITY default
SELECT distsys.lease_renew('job', 1);
SELECT distsys.lease_assert('job', 1);
SELECT distsys.lease_assert('nobody', 1);
SELECT reason FROM distsys.lease_acquire('job', 'me', '30');
SELECT distsys.lease_acquire('job', 'me', '3600');
SELECT distsys.lease_acquire('job', 'me', '30 s', '1 h');
SELECT acquired, reason, owner, mode, token IS NULL AS no_token FROM distsys.lease_acquire('job', 'me', '30 s', mode => 'shared');
BEGIN;
SELECT acquired FROM distsys.lease_acquire('in block', 'me', '30 s');
SELECT acquired FROM distsys.lease_acquire('job', 'me', '30 s');
SET LOCAL distsys.notice_in_transaction = off;
SELECT acquired FROM distsys.lease_acquire('in block 2', 'me', '30 s');
ROLLBACK;
\set VERBOSITY sqlstate
SELECT count(*) AS rolled_back FROM distsys.leases WHERE name LIKE 'in block%';
SET distsys.notice_in_transaction = off;

-- time passes: expired, renewing comes too late, the next one gets it
SET distsys.clock_offset = '29 s';
SELECT distsys.lease_assert('job', :t2);
SET distsys.clock_offset = '31 s';
SELECT acquired, reason, owner, ttl_remaining FROM distsys.lease_get('job');
SELECT live, ttl_remaining FROM distsys.leases WHERE name = 'job';
SELECT distsys.lease_assert('job', :t2);
SELECT distsys.lease_renew('job', :t2);
SELECT distsys.lease_release('job', :t2);
SELECT acquired, token > :t2 AS higher, owner, ttl_remaining FROM distsys.lease_acquire('job', 'worker 3', '1 min');
SELECT token AS t3 FROM distsys.lease_get('job') \gset
SELECT distsys.lease_release('job', :t2);
SELECT owner FROM distsys.lease_get('job') WHERE acquired;
RESET distsys.clock_offset;

-- somebody sets the clock: the lease is neither freed nor frozen, and the row says the time of the new clock
SET distsys.clock_step = '1 h';
SELECT reason, owner, ttl_remaining BETWEEN '1 min' AND '92 s' AS left, expires_at > now() + interval '1 h' AS on_this_clock FROM distsys.lease_acquire('job', 'x', '1 s');
SELECT distsys.lease_assert('job', :t3);
SET distsys.clock_step = '-1 h';
SELECT reason, owner, ttl_remaining BETWEEN '1 min' AND '92 s' AS left FROM distsys.lease_acquire('job', 'x', '1 s');
SET distsys.clock_offset = '2 min';
SELECT acquired, reason FROM distsys.lease_get('job');
RESET distsys.clock_step;
RESET distsys.clock_offset;
SELECT distsys.lease_release('job', :t3);

-- rollback takes the grant back, the token is never given again
BEGIN;
SELECT token AS r1 FROM distsys.lease_acquire('rolled back', 'me', '30 s') \gset
ROLLBACK;
SELECT count(*) FROM distsys.lease_get('rolled back');
SELECT distsys.lease_assert('rolled back', :r1);
SELECT token > :r1 AS higher FROM distsys.lease_acquire('rolled back', 'me', '30 s');
SELECT token AS r2 FROM distsys.lease_get('rolled back') \gset
-- so does a savepoint: row and locks
BEGIN;
SAVEPOINT a;
SELECT acquired FROM distsys.lease_acquire('savepoint', 'me', '30 s');
SELECT count(*) AS locks FROM distsys.locks WHERE pid = pg_backend_pid() AND kind LIKE 'lease%';
ROLLBACK TO a;
SELECT count(*) AS locks FROM distsys.locks WHERE pid = pg_backend_pid() AND kind LIKE 'lease%';
SELECT count(*) FROM distsys.lease_get('savepoint');
SELECT acquired FROM distsys.lease_acquire('savepoint', 'me again', '30 s');
SAVEPOINT b;
SELECT distsys.lease_release('savepoint', token) FROM distsys.lease_get('savepoint');
SELECT acquired FROM distsys.lease_get('savepoint');
ROLLBACK TO b;
SELECT acquired, owner FROM distsys.lease_get('savepoint');
SELECT ttl_remaining FROM distsys.lease_renew('savepoint', (SELECT token FROM distsys.lease_get('savepoint')), '1 min');
COMMIT;
SELECT acquired, owner FROM distsys.lease_get('savepoint');
-- and a pin ends with the savepoint that took it
BEGIN;
SAVEPOINT a;
SELECT distsys.lease_assert('rolled back', :r2);
SELECT kind, name, mode FROM distsys.locks WHERE pid = pg_backend_pid();
ROLLBACK TO a;
SELECT kind, name, mode FROM distsys.locks WHERE pid = pg_backend_pid();
COMMIT;
-- PL/pgSQL: an exception block is a savepoint
\set VERBOSITY terse
DO $$
BEGIN
    PERFORM distsys.lease_acquire('exception', 'me', '30 s');
    PERFORM 1 / 0;
EXCEPTION WHEN division_by_zero THEN
    RAISE NOTICE 'locks: %', (SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid() AND kind LIKE 'lease%');
END $$;
\set VERBOSITY sqlstate
SELECT count(*) FROM distsys.lease_get('exception');

-- a retry after a lost answer: the same request gets the same live grant, another request does not
SELECT token AS q1 FROM distsys.lease_acquire('request', 'me', '30 s', request_id => '00000000-0000-0000-0000-000000000001') \gset
SELECT acquired, reason, token = :q1 AS same, retry_after FROM distsys.lease_acquire('request', 'me', '30 s', request_id => '00000000-0000-0000-0000-000000000001');
SELECT acquired, reason, token = :q1 AS same FROM distsys.lease_acquire('request', 'me', '30 s', '20 ms', request_id => '00000000-0000-0000-0000-000000000001');
SELECT acquired, reason, token FROM distsys.lease_acquire('request', 'me', '30 s', request_id => '00000000-0000-0000-0000-000000000002');
SELECT acquired, reason, token FROM distsys.lease_acquire('request', 'me', '30 s');
SELECT token = :q1 AS same FROM distsys.lease_renew('request', :q1, '1 min');
SELECT token = :q1 AS same, ttl_remaining > '59 s' AS renewed FROM distsys.lease_acquire('request', 'me', '30 s', request_id => '00000000-0000-0000-0000-000000000001');
-- dead is dead: released or expired, the request gets a new grant
SELECT distsys.lease_release('request', :q1);
SELECT token AS q2, token > :q1 AS higher FROM distsys.lease_acquire('request', 'me', '30 s', request_id => '00000000-0000-0000-0000-000000000001') \gset
SELECT :'higher' AS higher;
SET distsys.clock_offset = '1 min';
SELECT acquired, token > :q2 AS higher FROM distsys.lease_acquire('request', 'me', '30 s', request_id => '00000000-0000-0000-0000-000000000001');
RESET distsys.clock_offset;
SELECT distsys.lease_release('request', token) FROM distsys.lease_get('request');

-- release and acquire again in one transaction: the token in between is never the live one for anybody else
BEGIN;
SELECT token AS a1 FROM distsys.lease_acquire('twice', 'me', '30 s') \gset
SELECT distsys.lease_release('twice', :a1);
SELECT token AS a2 FROM distsys.lease_acquire('twice', 'me', '30 s') \gset
SELECT distsys.lease_assert('twice', :a2), :a2 > :a1 AS higher;
COMMIT;
SELECT distsys.lease_assert('twice', :a1);

-- all three levels: no 40001 but for the stale snapshot, and own grants of this transaction are 55000
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT acquired FROM distsys.lease_acquire('rr', 'me', '30 s');
SELECT reason FROM distsys.lease_acquire('job', 'me', '30 s');
SELECT ttl_remaining FROM distsys.lease_renew('rr', (SELECT token FROM distsys.lease_get('rr')));
SELECT distsys.lease_assert('rolled back', :r2);
SELECT distsys.lease_release('rolled back', :r2);
SAVEPOINT a;
SELECT distsys.lease_assert('rr', (SELECT token FROM distsys.lease_get('rr')));
ROLLBACK TO a;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT distsys.lease_assert('rr', (SELECT token FROM distsys.lease_get('rr')));
SELECT acquired FROM distsys.lease_acquire('ser', 'me', '30 s');
SELECT ttl_remaining FROM distsys.lease_renew('rr', (SELECT token FROM distsys.lease_get('rr')));
SELECT distsys.lease_release('rr', (SELECT token FROM distsys.lease_get('rr')));
COMMIT;
BEGIN;
SELECT acquired FROM distsys.lease_acquire('rc', 'me', '30 s');
SELECT distsys.lease_assert('rc', (SELECT token FROM distsys.lease_get('rc')));
COMMIT;

-- as a guard of a statement
CREATE TABLE lock_guarded (i int);
INSERT INTO lock_guarded SELECT 1 WHERE (SELECT distsys.lease_assert('rc', token) FROM distsys.lease_get('rc'));
INSERT INTO lock_guarded SELECT 2 WHERE (SELECT distsys.lease_assert('rc', 1));
SELECT * FROM lock_guarded;
DROP TABLE lock_guarded;

-- few hash bits: names share locks, never a lease
SET distsys.hash_bits = 1;
SELECT bool_and(acquired) AS all_granted, count(DISTINCT token) AS tokens FROM generate_series(1, 20) i, distsys.lease_acquire('bits' || i, 'me', '30 s');
SELECT bool_or(acquired) AS any_granted FROM generate_series(1, 20) i, distsys.lease_acquire('bits' || i, 'other', '30 s');
SELECT bool_and(distsys.lease_assert('bits' || i, token)) AS held FROM generate_series(1, 20) i, distsys.lease_get('bits' || i);
SELECT bool_and(distsys.lease_release('bits' || i, token)) AS released FROM generate_series(1, 20) i, distsys.lease_get('bits' || i);
RESET distsys.hash_bits;

-- housekeeping: dead for more than a minute and not before; live ones stay
SELECT acquired FROM distsys.lease_acquire('kept', 'me', '10 min');
SELECT count(error) AS errors FROM distsys.maintain();
SELECT count(*) > 0 AS there FROM distsys.leases WHERE NOT live;
SET distsys.clock_offset = '5 min';
SELECT count(error) AS errors FROM distsys.maintain();
SELECT bool_and(live) AS only_live, bool_or(name = 'kept') AS kept FROM distsys.leases;
SET distsys.clock_offset = '12 min';
SELECT count(error) AS errors FROM distsys.maintain();
SELECT count(*) FROM distsys.leases WHERE name = 'kept';
RESET distsys.clock_offset;
-- the token order does not depend on the rows
SELECT token > :a2 AS higher FROM distsys.lease_acquire('twice', 'me', '10 s');
SELECT count(*) AS key_locks FROM distsys.locks WHERE pid = pg_backend_pid();
SELECT distsys.lease_release('twice', token) FROM distsys.lease_get('twice');
