-- shared leases, several at once, and what a grant carries with it
\set VERBOSITY terse
CREATE FUNCTION pg_temp.state(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE 'SELECT ' || call; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;

-- two shared grants hold together, each with its own token; an exclusive one holds alone
SELECT acquired, reason, mode, token AS s1 FROM distsys.lease_acquire('doc', 'reader 1', '30 s', mode => 'shared') \gset
SELECT acquired, reason, mode, token AS s2 FROM distsys.lease_acquire('doc', 'reader 2', '60 s', mode => 'shared') \gset
SELECT :'reason' AS reason, :'mode' AS mode, :s2 > :s1 AS own_token;
SELECT acquired, reason, owner, mode, token IS NULL AS no_token, retry_after > '31 s' AS until_the_last FROM distsys.lease_acquire('doc', 'writer', '30 s');
SELECT owner, mode, acquired FROM distsys.lease_get('doc') ORDER BY owner;
SELECT name, owner, mode, live FROM distsys.leases WHERE name = 'doc' ORDER BY owner;
SELECT distsys.lease_assert('doc', :s1), distsys.lease_assert('doc', :s2);
SELECT owner, ttl_remaining > '100 s' AS prolonged FROM distsys.lease_renew('doc', :s1, '2 min');
SELECT distsys.lease_release('doc', :s1), distsys.lease_release('doc', :s1) AS again;
SELECT pg_temp.state(format('distsys.lease_assert(''doc'', %s)', :s1)) AS released, pg_temp.state(format('distsys.lease_renew(''doc'', %s)', :s1)) AS renew;
SELECT acquired, reason FROM distsys.lease_acquire('doc', 'writer', '30 s');
SELECT distsys.lease_release('doc', :s2);
SELECT acquired, mode, token AS x FROM distsys.lease_acquire('doc', 'writer', '30 s') \gset
SELECT :'acquired' AS acquired, :'mode' AS mode, :x > :s2 AS higher;
SELECT acquired, reason, owner, mode FROM distsys.lease_acquire('doc', 'reader 3', '30 s', mode => 'shared');
SELECT distsys.lease_release('doc', :x);
-- the slots of dead grants are used again
SELECT count(DISTINCT token) FROM generate_series(1, 5) i, distsys.lease_acquire('doc', 'r' || i, '1 s', mode => 'shared');
SET distsys.clock_offset = '2 s';
SELECT count(DISTINCT token) FROM generate_series(1, 5) i, distsys.lease_acquire('doc', 'q' || i, '1 s', mode => 'shared');
SELECT count(*) AS rows, min(slot), max(slot) FROM distsys.lease_grant WHERE name = 'doc' AND slot > 0;
SELECT count(*) AS live FROM distsys.lease_get('doc') WHERE acquired;
RESET distsys.clock_offset;
-- the same request_id gets the same shared grant, another role or mode does not
SELECT token AS r1 FROM distsys.lease_acquire('req', 'me', '30 s', mode => 'shared', request_id => '00000000-0000-0000-0000-000000000001') \gset
SELECT token = :r1 AS same FROM distsys.lease_acquire('req', 'me', '30 s', mode => 'shared', request_id => '00000000-0000-0000-0000-000000000001');
SELECT token = :r1 AS same FROM distsys.lease_acquire('req', 'me', '30 s', mode => 'shared', request_id => '00000000-0000-0000-0000-000000000002');
SELECT acquired FROM distsys.lease_acquire('req', 'me', '30 s', request_id => '00000000-0000-0000-0000-000000000001');
-- ten readers with one hash bit
SET distsys.hash_bits = 1;
SELECT bool_and(acquired), count(DISTINCT token) FROM generate_series(1, 10) i, distsys.lease_acquire('bit' || i % 3, 'r' || i, '30 s', mode => 'shared');
SELECT bool_or(acquired) FROM generate_series(0, 2) i, distsys.lease_acquire('bit' || i, 'writer', '30 s');
RESET distsys.hash_bits;
-- a rolled back grant is gone with its slot and its locks
BEGIN;
SET LOCAL distsys.notice_in_transaction = off;
SAVEPOINT s;
SELECT acquired FROM distsys.lease_acquire('undone', 'me', '30 s', mode => 'shared');
ROLLBACK TO s;
SELECT count(*) FROM distsys.lease_get('undone');
SELECT count(*) AS key_locks FROM distsys.locks WHERE pid = pg_backend_pid();
ROLLBACK;

-- all or none, sorted, without duplicates
SELECT acquired, reason, name, token IS NOT NULL AS token FROM distsys.lease_acquire_all('{c,a,b,a}', 'me', '30 s');
SELECT acquired, reason, name, owner FROM distsys.lease_acquire_all('{z,b,x}', 'other', '30 s');
SELECT count(*) FROM distsys.leases WHERE name IN ('x', 'z') AND live;
SELECT count(*) AS key_locks FROM distsys.locks WHERE pid = pg_backend_pid();
SELECT acquired, name FROM distsys.lease_acquire_all('{r1,r2}', 'me', '30 s', request_id => '00000000-0000-0000-0000-000000000003');
SELECT a.name, a.token = g.token AS same FROM distsys.lease_acquire_all('{r2,r1}', 'me', '30 s', request_id => '00000000-0000-0000-0000-000000000003') a,
  LATERAL distsys.lease_get(a.name) g;
-- a retry that lacks one of them by now is refused, and what it has is held
SELECT distsys.lease_release('r2', token) FROM distsys.lease_get('r2');
SELECT acquired FROM distsys.lease_acquire('r2', 'other', '30 s');
SELECT acquired, reason, name, owner FROM distsys.lease_acquire_all('{r1,r2}', 'me', '30 s', request_id => '00000000-0000-0000-0000-000000000003');
SELECT acquired, reason, name, mode FROM distsys.lease_acquire_all('{m,n}', 'me', '30 s', mode => 'shared');
SELECT pg_temp.state($$distsys.lease_acquire_all('{}', 'me', '30 s')$$) AS empty, pg_temp.state($$distsys.lease_acquire_all('{{a},{b}}', 'me', '30 s')$$) AS two_dimensions,
       pg_temp.state($$distsys.lease_acquire_all('{a,NULL}', 'me', '30 s')$$) AS null_element, pg_temp.state($$distsys.lease_acquire_all(NULL, 'me', '30 s')$$) AS null_array,
       pg_temp.state($$distsys.lease_acquire_all(ARRAY[''], 'me', '30 s')$$) AS empty_name,
       pg_temp.state($$distsys.lease_acquire_all((SELECT array_agg('n' || i) FROM generate_series(1, 2000) i), 'me', '30 s')$$) AS too_many;

-- data
SELECT data, token AS d FROM distsys.lease_acquire('data', 'me', '30 s', data => '{"url": "http://a"}') \gset
SELECT :'data' AS data;
SELECT acquired, data FROM distsys.lease_acquire('data', 'other', '30 s');
SELECT distsys.lease_set_data('data', :d, '{"url": "http://b"}');
SELECT data FROM distsys.lease_get('data');
SELECT distsys.lease_set_data('data', :d, NULL);
SELECT data FROM distsys.lease_renew('data', :d);
SELECT pg_temp.state($$distsys.lease_set_data('data', 1, '1')$$) AS wrong_token,
       pg_temp.state($$distsys.lease_acquire('big', 'me', '1 s', data => to_jsonb(repeat('x', 9000)))$$) AS too_large;

-- a least time to hold
SELECT token AS h FROM distsys.lease_acquire('cron', 'me', '1 min', min_hold => '30 s') \gset
SELECT distsys.lease_release('cron', :h);
SELECT acquired, reason, retry_after BETWEEN '20 s' AND '30 s' AS later FROM distsys.lease_acquire('cron', 'other', '1 min');
SELECT acquired, reason FROM distsys.lease_acquire('cron', 'other', '1 min', mode => 'shared');
SET distsys.clock_offset = '31 s';
SELECT acquired, reason FROM distsys.lease_acquire('cron', 'other', '1 min');
RESET distsys.clock_offset;
-- which an operator cuts short, also that of a shared one
SELECT token AS h FROM distsys.lease_acquire('cron 2', 'me', '1 min', min_hold => '30 s') \gset
SELECT distsys.lease_release('cron 2', :h);
BEGIN;
SELECT distsys.lease_break('cron 2', '10 s', 'wrong day') AS free_now;
ROLLBACK;
SELECT acquired, reason FROM distsys.lease_acquire('cron 2', 'other', '1 min');
SELECT distsys.lease_break('cron 2', '10 s', 'wrong day') AS free_now, distsys.lease_break('cron 2') IS NULL AS again;
SELECT event, owner, reason FROM distsys.lease_history WHERE name = 'cron 2';
SELECT acquired, reason FROM distsys.lease_acquire('cron 2', 'other', '1 min');
SELECT token AS h FROM distsys.lease_acquire('cron 3', 'me', '1 min', mode => 'shared', min_hold => '30 s') \gset
SELECT distsys.lease_release('cron 3', :h);
SELECT reason FROM distsys.lease_acquire('cron 3', 'other', '1 min');
SELECT distsys.lease_break('cron 3') AS free_now;
SELECT reason FROM distsys.lease_acquire('cron 3', 'other', '1 min');

-- handed on without a gap
SELECT token AS t1 FROM distsys.lease_acquire('relay', 'first', '30 s', data => '1', request_id => '00000000-0000-0000-0000-000000000004') \gset
SELECT acquired, reason, owner, data, token AS t2, ttl_remaining > '50 s' AS ttl FROM distsys.lease_transfer('relay', :t1, 'second', '1 min') \gset
SELECT :'acquired' AS acquired, :'reason' AS reason, :'owner' AS owner, :'data' AS data, :t2 > :t1 AS higher, :'ttl' AS ttl;
SELECT pg_temp.state(format('distsys.lease_assert(''relay'', %s)', :t1)) AS old, pg_temp.state(format('distsys.lease_assert(''relay'', %s)', :t2)) AS new,
       pg_temp.state(format('distsys.lease_transfer(''relay'', %s, ''third'')', :t1)) AS again;
SELECT acquired FROM distsys.lease_acquire('relay', 'first', '30 s', request_id => '00000000-0000-0000-0000-000000000004');

-- broken by an operator
SELECT token AS b FROM distsys.lease_acquire('stuck', 'me', '30 s', min_hold => '30 s') \gset
SELECT b BETWEEN '9 s' AND '10 s' AS in_ten_seconds FROM distsys.lease_break('stuck', '10 s', 'deploy') b;
SELECT pg_temp.state(format('distsys.lease_assert(''stuck'', %s)', :b)) AS still_held, pg_temp.state(format('distsys.lease_renew(''stuck'', %s)', :b)) AS no_renewal,
       pg_temp.state(format('distsys.lease_transfer(''stuck'', %s, ''x'')', :b)) AS no_transfer;
SELECT distsys.lease_break('stuck') AS free_now;
SELECT acquired FROM distsys.lease_acquire('stuck', 'other', '30 s');
SELECT distsys.lease_break('nobody') IS NULL AS nobody_held_it;
SELECT pg_temp.state($$distsys.lease_break('stuck', '-1 s')$$) AS negative, pg_temp.state($$distsys.lease_break('stuck', NULL)$$) AS is_null,
       pg_temp.state($$distsys.lease_break(NULL)$$) AS null_name, pg_temp.state($$distsys.lease_break('stuck', '0', repeat('x', 1025))$$) AS long_reason;
-- what has happened
SELECT name, event, owner, reason FROM distsys.lease_history WHERE name IN ('relay', 'stuck', 'doc') ORDER BY name, at, owner;

-- one heartbeat for many
SELECT distsys.lease_session_open('worker 1', '10 s') AS session \gset
SELECT ttl_remaining > '9 s' AS at_least_the_sessions FROM distsys.lease_acquire('p1', 'worker 1', '1 s', session_id => :'session');
SELECT token AS p2 FROM distsys.lease_acquire('p2', 'worker 1', '20 s', session_id => :'session') \gset
SELECT count(*) FROM distsys.lease_acquire_all('{p3,p4}', 'worker 1', '15 s', session_id => :'session');
SELECT distsys.lease_release('p4', token) FROM distsys.lease_get('p4');
SELECT distsys.lease_break('p3') AS free_now;
SELECT acquired, reason, name, owner, ttl_remaining > '9 s' AS prolonged FROM distsys.lease_session_renew(:'session');
SELECT acquired, name FROM distsys.lease_session_renew(:'session');
SELECT distsys.lease_session_close(:'session') AS released, distsys.lease_session_close(:'session') AS again;
SELECT pg_temp.state(format('distsys.lease_assert(''p2'', %s)', :p2)) AS released;
SELECT count(*) FROM distsys.lease_session_member;
SELECT pg_temp.state(format('distsys.lease_session_renew(%L)', :'session')) AS over, pg_temp.state(format('distsys.lease_acquire(''p5'', ''me'', ''1 s'', session_id => %L)', :'session')) AS acquire,
       pg_temp.state('distsys.lease_session_renew(NULL)') AS null_id, pg_temp.state('distsys.lease_session_close(NULL)') AS null_close,
       pg_temp.state($$distsys.lease_session_open('x', '1 h')$$) AS long_ttl, pg_temp.state($$distsys.lease_session_open(NULL, '1 s')$$) AS null_owner;
-- not renewed in time: over; swept with what hangs on it
SELECT distsys.lease_session_open('worker 2', '1 s') AS session \gset
SELECT acquired FROM distsys.lease_acquire('p6', 'worker 2', '1 s', session_id => :'session');
SET distsys.clock_offset = '2 s';
SELECT pg_temp.state(format('distsys.lease_session_renew(%L)', :'session')) AS over;
SET distsys.clock_offset = '2 min';
SELECT count(error) AS errors FROM distsys.maintain();
SELECT (SELECT count(*) FROM distsys.lease_session) AS sessions, (SELECT count(*) FROM distsys.lease_session_member) AS members;
RESET distsys.clock_offset;
-- no more than can be renewed at once
SET distsys.max_keys_per_transaction = 10;
SELECT distsys.lease_session_open('worker 3', '1 min') AS session \gset
SELECT count(*) FROM generate_series(1, 3) i, distsys.lease_acquire('room ' || i, 'worker 3', '1 min', session_id => :'session');
SELECT pg_temp.state(format('distsys.lease_acquire_all(''{room 4,room 5}'', ''worker 3'', ''1 min'', session_id => %L)', :'session')) AS two_more;
SELECT acquired FROM distsys.lease_acquire('room 4', 'worker 3', '1 min', session_id => :'session');
SELECT pg_temp.state(format('distsys.lease_acquire(''room 5'', ''worker 3'', ''1 min'', session_id => %L)', :'session')) AS one_more,
       count(*) AS free FROM distsys.lease_get('room 5');
SELECT count(*), bool_and(acquired) FROM distsys.lease_session_renew(:'session');
SELECT distsys.lease_release('room 1', token) FROM distsys.lease_get('room 1');
SELECT acquired FROM distsys.lease_acquire('room 5', 'worker 3', '1 min', session_id => :'session');
SELECT distsys.lease_session_close(:'session');
RESET distsys.max_keys_per_transaction;

-- CALL lease_lock: its own transactions
CALL distsys.lease_lock('call', 'me', '30 s', '0', NULL, NULL, NULL) \gset c_
SELECT :c_token > 0 AS token, :'c_ttl_remaining'::interval > '29 s' AS ttl, :'c_ttl_remaining'::interval < '30 s' AS from_now, :'c_expires_at'::timestamptz > clock_timestamp() AS expires;
CALL distsys.lease_lock('call', 'other', '30 s', '10 ms', NULL, NULL, NULL);
CALL distsys.lease_lock('call', 'me', '30 s');
BEGIN;
CALL distsys.lease_lock('call 2', 'me', '30 s');
ROLLBACK;
CREATE FUNCTION pg_temp.within() RETURNS void LANGUAGE plpgsql AS $$ DECLARE t bigint; e timestamptz; r interval; BEGIN CALL distsys.lease_lock('call 3', 'me', '30 s', '0', t, e, r); END $$;
SELECT pg_temp.within();
CALL distsys.lease_lock('call 4', 'me', '1 h');
CALL distsys.lease_lock('call 4', 'me', '30 s', '-1 s');
CALL distsys.lease_lock(NULL, 'me', '30 s');
SELECT count(*) AS key_locks FROM distsys.locks WHERE pid = pg_backend_pid();
SELECT count(*) AS waiters FROM distsys.lease_waiters;
