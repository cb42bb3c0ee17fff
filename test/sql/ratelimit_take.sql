-- Taking from a durable token bucket: answers, refusals, transactions, every bad argument with its SQLSTATE.
\set VERBOSITY sqlstate
SET client_min_messages = warning;

\getenv helpers PG_ABS_SRCDIR
\set helper :helpers '/helper/fails.sql'
\i :helper

SELECT distsys.rate_limit_create('login', quota => 5, period => '10 h');

-- a new key is a full bucket, and looking makes no row
SELECT allowed, reason, policy, key, quota, remaining, retry_after, retry_after_s, reset_after, next_after, within,
       decided_at BETWEEN clock_timestamp() - interval '1 min' AND clock_timestamp() AS decided
FROM distsys.rate_limit_peek('login', '203.0.113.7');
SELECT count(*) FROM distsys.rate_limit_bucket WHERE policy = 'login';

-- one by one
SELECT allowed, reason, remaining, retry_after, within FROM distsys.rate_limit_take('login', '203.0.113.7');
SELECT allowed, reason, remaining, retry_after, within FROM distsys.rate_limit_take('login', '203.0.113.7', 4);
SELECT reset_after BETWEEN '9 h 59 min' AND '10 h' AS reset, next_after BETWEEN '1 h 59 min' AND '2 h' AS next
FROM distsys.rate_limit_peek('login', '203.0.113.7');
SELECT allowed, reason, remaining, retry_after BETWEEN '1 h 59 min' AND '2 h' AS retry, retry_after_s BETWEEN 7140 AND 7200 AS seconds, within
FROM distsys.rate_limit_take('login', '203.0.113.7');
SELECT allowed, retry_after BETWEEN '5 h 59 min' AND '6 h' AS retry FROM distsys.rate_limit_take('login', '203.0.113.7', 3);
-- another key has its own bucket
SELECT allowed, remaining FROM distsys.rate_limit_take('login', '203.0.113.8');
-- (policy, key) is not their concatenation
SELECT distsys.rate_limit_create('log', quota => 5, period => '10 h');
SELECT allowed, remaining FROM distsys.rate_limit_take('log', 'in203.0.113.7');

-- cost 0 looks, at a full, a used and an empty bucket
SELECT allowed, reason, remaining FROM distsys.rate_limit_take('login', 'new', 0);
SELECT allowed, reason, remaining FROM distsys.rate_limit_take('login', '203.0.113.7', 0);
SELECT count(*) FROM distsys.rate_limit_bucket WHERE key = 'new';
-- a cost that can never be had; what there is is told all the same
SELECT allowed, reason, remaining, retry_after, retry_after_s, within FROM distsys.rate_limit_take('login', '203.0.113.8', 6);
SELECT allowed, reason, remaining, retry_after FROM distsys.rate_limit_take('login', '203.0.113.8', 9223372036854775807);
SELECT allowed, reason, remaining, retry_after FROM distsys.rate_limit_peek('login', '203.0.113.8', 6);

-- time brings tokens, and retry_after is honest: that long is enough, less is not
SELECT ceil(extract(epoch FROM retry_after) * 1000)::bigint AS ms FROM distsys.rate_limit_take('login', '203.0.113.7') \gset
SELECT set_config('distsys.clock_offset', (:ms - 5000)::text, false) IS NOT NULL AS moved;
SELECT allowed FROM distsys.rate_limit_take('login', '203.0.113.7');
SELECT set_config('distsys.clock_offset', (:ms)::text, false) IS NOT NULL AS moved;
SELECT allowed, remaining FROM distsys.rate_limit_take('login', '203.0.113.7');
SET distsys.clock_offset = '100 h';
SELECT allowed, remaining FROM distsys.rate_limit_take('login', '203.0.113.7', 5);
RESET distsys.clock_offset;
SELECT distsys.rate_limit_reset('login', '203.0.113.7');
SELECT distsys.rate_limit_reset('login', '203.0.113.7');
SELECT distsys.rate_limit_reset('login', 'never seen');
SELECT remaining FROM distsys.rate_limit_peek('login', '203.0.113.7');

-- rollback and savepoint give the tokens back, exactly
SELECT allowed FROM distsys.rate_limit_take('login', 'tx', 2);
SELECT credit, updated_at FROM distsys.rate_limit_bucket WHERE key = 'tx' \gset before_
BEGIN;
SELECT remaining FROM distsys.rate_limit_take('login', 'tx', 3);
SELECT allowed, reason FROM distsys.rate_limit_take('login', 'tx');
ROLLBACK;
SELECT credit = :before_credit AND updated_at = :'before_updated_at' AS exact FROM distsys.rate_limit_bucket WHERE key = 'tx';
BEGIN;
SELECT remaining FROM distsys.rate_limit_take('login', 'tx');
SAVEPOINT s;
SELECT remaining FROM distsys.rate_limit_take('login', 'tx');
SELECT remaining FROM distsys.rate_limit_take('login', 'new');
ROLLBACK TO s;
SELECT remaining FROM distsys.rate_limit_peek('login', 'tx');
SELECT remaining FROM distsys.rate_limit_peek('login', 'new');
COMMIT;
SELECT remaining FROM distsys.rate_limit_peek('login', 'tx');
-- a refusal in a transaction keeps no lock, a take keeps one
BEGIN;
SELECT allowed FROM distsys.rate_limit_take('login', 'tx', 5);
SELECT count(*) AS locks FROM pg_locks WHERE pid = pg_backend_pid() AND (locktype = 'advisory' OR mode = 'RowExclusiveLock');
SELECT allowed FROM distsys.rate_limit_take('login', 'tx', 1);
SELECT count(*) AS locks FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';
COMMIT;

-- modes
SELECT distsys.rate_limit_create('shadowed', quota => 2, period => '10 h', mode => 'shadow');
SELECT allowed, reason, remaining, within FROM distsys.rate_limit_take('shadowed', 'k', 2);
SELECT allowed, reason, remaining, retry_after, within FROM distsys.rate_limit_take('shadowed', 'k');
SELECT allowed, reason, remaining, retry_after, within FROM distsys.rate_limit_take('shadowed', 'k', 3);
SELECT allowed, reason, within FROM distsys.rate_limit_peek('shadowed', 'k');
SELECT distsys.rate_limit_alter('shadowed', mode => 'disabled');
SELECT allowed, reason, remaining, within FROM distsys.rate_limit_take('shadowed', 'k');
SELECT allowed, reason, remaining, within FROM distsys.rate_limit_take('shadowed', 'k', 3);
SELECT distsys.rate_limit_alter('shadowed', mode => 'enforce');
SELECT allowed, reason, remaining, within FROM distsys.rate_limit_take('shadowed', 'k');

-- in_transaction 'forbid': a rollback could undo the take
SELECT distsys.rate_limit_create('outside', quota => 2, period => '10 h', in_transaction => 'forbid');
SELECT allowed FROM distsys.rate_limit_take('outside', 'k');
BEGIN;
SELECT allowed FROM distsys.rate_limit_take('outside', 'k');
ROLLBACK;
BEGIN;
SELECT remaining FROM distsys.rate_limit_peek('outside', 'k');
SAVEPOINT s;
SELECT * FROM distsys.rate_limit_http('{login,outside}', '{k,k}');
ROLLBACK TO s;
SELECT remaining FROM distsys.rate_limit_peek('login', 'k');
COMMIT;
SELECT 1 AS one \; SELECT allowed FROM distsys.rate_limit_take('outside', 'k');
DO $$ BEGIN PERFORM distsys.rate_limit_take('outside', 'k'); EXCEPTION WHEN active_sql_transaction THEN RAISE WARNING 'in a block with EXCEPTION'; END $$;

-- as an error, with the row as JSON
SELECT allowed, remaining FROM distsys.rate_limit_take_or_raise('outside', 'k');
SELECT allowed FROM distsys.rate_limit_take_or_raise('outside', 'k');
CREATE FUNCTION pg_temp.detail(call text) RETURNS TABLE (state text, allowed text, reason text, remaining text, retry text) LANGUAGE plpgsql AS $$
DECLARE
    detail text;
BEGIN
    EXECUTE 'SELECT ' || call;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN QUERY SELECT SQLSTATE, detail::jsonb ->> 'allowed', detail::jsonb ->> 'reason', detail::jsonb ->> 'remaining',
                        (detail::jsonb ->> 'retry_after_s' IS NOT NULL)::text;
END
$$;
SELECT * FROM pg_temp.detail($$distsys.rate_limit_take_or_raise('shadowed', 'k')$$);
SELECT * FROM pg_temp.detail($$distsys.rate_limit_take_or_raise('shadowed', 'k', 3)$$);

-- READ ONLY: looks work, the rest does not
BEGIN READ ONLY;
SELECT remaining FROM distsys.rate_limit_peek('login', 'tx');
SELECT allowed, remaining FROM distsys.rate_limit_take('login', 'tx', 0);
SELECT allowed, status FROM distsys.rate_limit_http('{login}', '{tx}', '{0}');
SELECT remaining FROM distsys.rate_limit_take('login', 'tx');
ROLLBACK;
BEGIN READ ONLY;
SELECT distsys.rate_limit_reset('login', 'tx');
ROLLBACK;
BEGIN READ ONLY;
SELECT allowed FROM distsys.rate_limit_http('{login}', '{tx}');
ROLLBACK;
-- levels above READ COMMITTED see the newest state all the same
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT remaining FROM distsys.rate_limit_take('login', 'level');
SELECT remaining FROM distsys.rate_limit_take('login', 'level');
COMMIT;

-- prepared statements
PREPARE take(text, text, bigint) AS SELECT allowed, remaining FROM distsys.rate_limit_take($1, $2, $3);
EXECUTE take('login', 'prepared', 2);
EXECUTE take('login', 'prepared', 3);
EXECUTE take('login', 'prepared', 1);
DEALLOCATE take;

-- names of every length, and hash bits that collide: another key's bucket is never touched
SELECT allowed, remaining FROM distsys.rate_limit_take('login', repeat('k', 255));
SELECT allowed, remaining FROM distsys.rate_limit_take('login', chr(233) || chr(252));
SET distsys.hash_bits = 1;
SELECT key, t.remaining FROM (VALUES ('c1'), ('c2'), ('c1')) v(k), distsys.rate_limit_take('login', v.k) t;
SELECT allowed FROM distsys.rate_limit_http('{login,login}', '{c1,c2}');
SELECT key, t.remaining FROM (VALUES ('c1'), ('c2'), ('c3')) v(k), distsys.rate_limit_peek('login', v.k) t;
RESET distsys.hash_bits;

-- bad arguments
SELECT call, pg_temp.fails('distsys.rate_limit_' || call) FROM (VALUES
    ($$take(NULL, 'k')$$), ($$take('', 'k')$$), ($$take(repeat('x', 64), 'k')$$), ($$take(E'a\nb', 'k')$$), ($$take('nope', 'k')$$),
    ($$take('login', NULL)$$), ($$take('login', '')$$), ($$take('login', repeat('k', 256))$$), ($$take('login', E'a\x1b')$$),
    ($$take('login', 'k', NULL)$$), ($$take('login', 'k', -1)$$), ($$take('login', 'k', 0)$$),
    ($$peek(NULL, 'k')$$), ($$peek('nope', 'k')$$), ($$peek('login', NULL)$$), ($$peek('login', '')$$), ($$peek('login', 'k', NULL)$$),
    ($$peek('login', 'k', -1)$$), ($$peek('login', repeat('k', 256))$$),
    ($$take_or_raise(NULL, 'k')$$), ($$take_or_raise('nope', 'k')$$), ($$take_or_raise('login', NULL)$$), ($$take_or_raise('login', 'k', -1)$$),
    ($$take_or_raise('login', 'k', NULL)$$), ($$take_or_raise('login', 'k', 6)$$),
    ($$reset(NULL, 'k')$$), ($$reset('nope', 'k')$$), ($$reset('login', NULL)$$), ($$reset('login', '')$$), ($$reset('login', repeat('k', 256))$$)) v(call);
SELECT count(*) AS locks_left FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';

SELECT distsys.rate_limit_drop(policy) FROM (SELECT policy FROM distsys.rate_limit_policy ORDER BY policy) p;
DELETE FROM distsys.rate_limit_bucket;
