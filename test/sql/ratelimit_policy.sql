-- Rate limit policies: create, alter, drop, ordinary SQL, every bad argument with its SQLSTATE.
\set VERBOSITY sqlstate
SET client_min_messages = warning;

\getenv helpers PG_ABS_SRCDIR
\set helper :helpers '/helper/fails.sql'
\i :helper

SELECT distsys.rate_limit_create('api', quota => 100, period => '1 min');
SELECT * FROM distsys.rate_limit_policy WHERE policy = 'api' AND changed_at <= clock_timestamp() \gset p_
SELECT :'p_quota' AS quota, :'p_period' AS period, :'p_algorithm' AS algorithm, :'p_storage' AS storage, :'p_on_restart' AS on_restart,
       :'p_on_error' AS on_error, :'p_in_transaction' AS in_transaction, :'p_mode' AS mode, :'p_time_zone' AS time_zone,
       :'p_anchor' AS anchor, :'p_quota_unit' AS quota_unit, :'p_on_change' AS on_change;

-- there already
SELECT distsys.rate_limit_create('api', quota => 1, period => '1 s');
SELECT distsys.rate_limit_create('api', quota => 1, period => '1 s', if_not_exists => true);
SELECT quota FROM distsys.rate_limit_policy WHERE policy = 'api';

-- a burst of its own, every built word
SELECT distsys.rate_limit_create('full', quota => 10, period => '1 s', burst => 20, algorithm => 'token_bucket', storage => 'durable',
    on_abort => 'refund', on_restart => 'empty', on_error => 'closed', in_transaction => 'forbid', mode => 'shadow', time_zone => 'UTC',
    anchor => 'epoch', quota_unit => 'content-bytes');
SELECT quota, burst, on_abort, on_restart, on_error, in_transaction, mode, quota_unit FROM distsys.rate_limit_policy WHERE policy = 'full';

-- alter: what is NULL stays
SELECT distsys.rate_limit_alter('full', quota => 30);
SELECT quota, burst, period, mode FROM distsys.rate_limit_policy WHERE policy = 'full';
SELECT distsys.rate_limit_alter('full', mode => 'enforce', in_transaction => 'allow', period => '2 s', burst => 5, on_change => 'reset');
SELECT quota, burst, period, mode, in_transaction, on_change FROM distsys.rate_limit_policy WHERE policy = 'full';
-- an option that is not the limit leaves alone what the last change said
SELECT distsys.rate_limit_alter('full', quota_unit => 'requests');
SELECT on_change, quota_unit FROM distsys.rate_limit_policy WHERE policy = 'full';
-- the same rules as at creation, over the merged row
SELECT distsys.rate_limit_alter('full', burst => 9223372036854775807);
SELECT distsys.rate_limit_alter('full', period => '366 days', quota => 1);
SELECT distsys.rate_limit_alter('full', burst => 9000000000000);
SELECT distsys.rate_limit_alter('nope', quota => 1);

-- effective at once in this session, at commit in others, undone by a rollback
BEGIN;
SELECT distsys.rate_limit_create('gone', quota => 1, period => '1 h');
SELECT allowed FROM distsys.rate_limit_take('gone', 'k');
ROLLBACK;
SELECT allowed FROM distsys.rate_limit_take('gone', 'k');
BEGIN;
SAVEPOINT s;
SELECT distsys.rate_limit_alter('api', quota => 7);
SELECT quota FROM distsys.rate_limit_peek('api', 'k');
ROLLBACK TO s;
SELECT quota FROM distsys.rate_limit_peek('api', 'k');
COMMIT;

-- ordinary SQL, with ordinary constraints
INSERT INTO distsys.rate_limit_policy (policy, quota, period) VALUES ('by_hand', 3, '1 h');
SELECT allowed, quota, remaining FROM distsys.rate_limit_take('by_hand', 'k');
UPDATE distsys.rate_limit_policy SET quota = 6 WHERE policy = 'by_hand';
SELECT quota, remaining FROM distsys.rate_limit_peek('by_hand', 'k');
DELETE FROM distsys.rate_limit_policy WHERE policy = 'by_hand';
SELECT quota FROM distsys.rate_limit_peek('by_hand', 'k');
INSERT INTO distsys.rate_limit_policy (policy, quota, period) VALUES ('x', 0, '1 h');
INSERT INTO distsys.rate_limit_policy (policy, quota, period) VALUES ('x', 1, '0');
INSERT INTO distsys.rate_limit_policy (policy, quota, period) VALUES ('x', 1, '1 month');
INSERT INTO distsys.rate_limit_policy (policy, quota, period) VALUES ('x', 1, '1 year');
INSERT INTO distsys.rate_limit_policy (policy, quota, period) VALUES ('x', 9223372036854775807, '1 s');
INSERT INTO distsys.rate_limit_policy (policy, quota, period) VALUES ('gr' || chr(252) || 'n', 1, '1 s');
INSERT INTO distsys.rate_limit_policy (policy, quota, period) VALUES ('', 1, '1 s');
INSERT INTO distsys.rate_limit_policy (policy, quota, period, mode) VALUES ('x', 1, '1 s', 'off');
INSERT INTO distsys.rate_limit_policy (policy, quota, period, algorithm) VALUES ('x', 1, '1 s', 'sieve');
INSERT INTO distsys.rate_limit_policy (policy, quota, period, algorithm) VALUES ('x', 1001, '1 s', 'sliding_window_log');
INSERT INTO distsys.rate_limit_policy (policy, quota, period, algorithm, burst) VALUES ('x', 1, '1 s', 'fixed_window', 2);
INSERT INTO distsys.rate_limit_policy (policy, quota, period, algorithm, calendar_unit) VALUES ('x', 1, '1 day', 'calendar', 'month');
INSERT INTO distsys.rate_limit_policy (policy, quota, period, algorithm) VALUES ('x', 1, '1 month', 'calendar');
INSERT INTO distsys.rate_limit_policy (policy, quota, period, calendar_unit) VALUES ('x', 1, '1 day', 'day');
INSERT INTO distsys.rate_limit_policy (policy, quota, period, anchor) VALUES ('x', 1, '1 day', 'first_hit');
INSERT INTO distsys.rate_limit_policy (policy, quota, period, on_abort) VALUES ('x', 1, '1 day', 'keep');
INSERT INTO distsys.rate_limit_policy (policy, quota, period, time_zone) VALUES ('x', 1, '1 day', 'Mars/Olympus');

-- the edges of a limit
SELECT distsys.rate_limit_create('edge1', quota => 9223372036854775807, period => '0.000001 s');
SELECT distsys.rate_limit_create('edge2', quota => 1, period => '366 days', burst => 291671);
SELECT allowed, remaining FROM distsys.rate_limit_take('edge1', 'k', 9223372036854775807);
SELECT allowed, remaining, reset_after > interval '100000000 days' AS reset FROM distsys.rate_limit_take('edge2', 'k', 291671);
SELECT allowed, retry_after > interval '290000 days' AS long, retry_after_s FROM distsys.rate_limit_take('edge2', 'k', 291671);

-- a rate is computed with in its smallest numbers: 10 million per 30 days fit
SELECT distsys.rate_limit_create('month', quota => 10000000, period => '30 days', burst => 20000000);
SELECT allowed, quota, remaining FROM distsys.rate_limit_take('month', 'k', 20000000);
SELECT allowed, retry_after BETWEEN '14 days 23:59' AND '15 days' AS retry FROM distsys.rate_limit_take('month', 'k', 5000000);
SELECT headers ->> 'RateLimit-Policy' AS policy FROM distsys.rate_limit_http(ARRAY['month'], ARRAY['k'], ARRAY[0]);
INSERT INTO distsys.rate_limit_policy (policy, quota, period) VALUES ('month by hand', 10000000, '30 days');
SELECT allowed, remaining FROM distsys.rate_limit_take('month by hand', 'k');

-- every bad argument of create
SELECT call, pg_temp.fails('distsys.rate_limit_create(' || call || ')') FROM (VALUES
    ($$NULL, 1, '1 s'$$), ($$'', 1, '1 s'$$), ($$E'a\tb', 1, '1 s'$$), ($$E'a\x7f', 1, '1 s'$$), ($$'gr' || chr(252) || 'n', 1, '1 s'$$),
    ($$repeat('x', 63), 1, '1 s', if_not_exists => true$$), ($$repeat('x', 64), 1, '1 s'$$),
    ($$'x', NULL, '1 s'$$), ($$'x', 0, '1 s'$$), ($$'x', -1, '1 s'$$),
    ($$'x', 1, NULL$$), ($$'x', 1, '0'$$), ($$'x', 1, '-1 s'$$), ($$'x', 1, '1 month'$$), ($$'x', 1, '1 year'$$), ($$'x', 1, '367 days'$$),
    ($$'x', 1, '2147483647 days'$$), ($$'x', 1, '1 mon -29 days'$$),
    ($$'x', 1, '1 s', 0$$), ($$'x', 1, '1 s', -1$$),
    ($$'x', 9223372036854775807, '1 s'$$), ($$'x', 1, '1 s', 9223372036855$$), ($$'x', 1, '366 days', 291672$$)) v(call);
-- unknown words, words that do not go together, NULL where a word is needed
SELECT call, pg_temp.fails($$distsys.rate_limit_create('x', 1, '1 s', $$ || call || ')') FROM (VALUES
    ($$algorithm => 'tokens'$$), ($$algorithm => 'TOKEN_BUCKET'$$), ($$algorithm => ''$$), ($$algorithm => NULL$$),
    ($$algorithm => 'gcra'$$), ($$algorithm => 'sliding_window_log'$$), ($$algorithm => 'sliding_window'$$),
    ($$algorithm => 'fixed_window'$$), ($$algorithm => 'leaky_bucket'$$), ($$algorithm => 'calendar'$$),
    ($$storage => 'disk'$$), ($$storage => NULL$$),
    ($$on_abort => 'lose'$$), ($$on_abort => 'keep'$$),
    ($$on_restart => 'half'$$), ($$on_restart => NULL$$), ($$on_error => 'ajar'$$), ($$on_error => NULL$$),
    ($$in_transaction => 'maybe'$$), ($$in_transaction => NULL$$), ($$mode => 'off'$$), ($$mode => NULL$$),
    ($$calendar_unit => 'fortnight'$$), ($$calendar_unit => 'month'$$),
    ($$time_zone => 'Mars/Olympus'$$), ($$time_zone => ''$$), ($$time_zone => repeat('z', 300)$$), ($$time_zone => NULL$$), ($$time_zone => 'Europe/Berlin'$$),
    ($$anchor => 'last_hit'$$), ($$anchor => NULL$$), ($$anchor => 'first_hit'$$),
    ($$block_for => '0'$$), ($$block_for => '1 month'$$), ($$block_for => '10 min'$$),
    ($$quota_unit => ''$$), ($$quota_unit => NULL$$), ($$quota_unit => 'St' || chr(252) || 'ck'$$), ($$quota_unit => repeat('u', 64)$$),
    ($$if_not_exists => NULL$$),
    ($$on_abort => 'keep', mode => 'off'$$),
    ($$algorithm => 'fixed_window', anchor => 'first_hit'$$), ($$algorithm => 'sliding_window', anchor => 'first_hit'$$),
    ($$algorithm => 'fixed_window', burst => 1$$), ($$algorithm => 'fixed_window', burst => 2$$), ($$algorithm => 'leaky_bucket', burst => 2$$),
    ($$algorithm => 'calendar', calendar_unit => 'minute'$$)) v(call);
-- shared storage is there with shared_preload_libraries only
SELECT call, pg_temp.fails('distsys.rate_limit_' || call) = CASE WHEN current_setting('shared_preload_libraries') LIKE '%distsys%' THEN 'no error' ELSE '55000, hint' END AS right
FROM (VALUES ($$create('x', 1, '1 s', storage => 'shared')$$), ($$create('x', 1, '1 s', storage => 'shared', on_abort => 'keep')$$), ($$alter('api', storage => 'shared')$$)) v(call);
-- calendars, and the size of a log
SELECT call, pg_temp.fails($$distsys.rate_limit_create('x', $$ || call || ')') FROM (VALUES
    ($$1, '1 month', algorithm => 'calendar'$$), ($$1, '1 month', algorithm => 'calendar', calendar_unit => 'month'$$),
    ($$1, '30 days', algorithm => 'calendar', calendar_unit => 'month'$$), ($$1, '1 day', algorithm => 'calendar', calendar_unit => 'month'$$),
    ($$1, '3 months', algorithm => 'calendar'$$), ($$1, '24 h', algorithm => 'calendar'$$), ($$1, '7 days', algorithm => 'calendar', calendar_unit => 'week'$$),
    ($$1, '12 months', algorithm => 'calendar'$$), ($$1, '1 h', algorithm => 'calendar', time_zone => 'Europe/Berlin'$$),
    ($$1, '1 min', algorithm => 'calendar', burst => 7$$), ($$2305843009213693951, '1 year', algorithm => 'calendar'$$),
    ($$2305843009213693952, '1 year', algorithm => 'calendar'$$),
    ($$1000, '1 h', algorithm => 'sliding_window_log'$$), ($$1001, '1 h', algorithm => 'sliding_window_log'$$)) v(call);
-- another algorithm leaves behind the options that are not its own
SELECT distsys.rate_limit_create('turns', 5, '1 month', algorithm => 'calendar', time_zone => 'Europe/Berlin');
SELECT algorithm, calendar_unit, time_zone, anchor, burst FROM distsys.rate_limit_policy WHERE policy = 'turns';
SELECT distsys.rate_limit_alter('turns', algorithm => 'token_bucket');
SELECT distsys.rate_limit_alter('turns', algorithm => 'token_bucket', period => '1 h', burst => 9);
SELECT algorithm, calendar_unit, time_zone, anchor, burst FROM distsys.rate_limit_policy WHERE policy = 'turns';
SELECT distsys.rate_limit_alter('turns', algorithm => 'fixed_window', anchor => 'first_hit');
SELECT algorithm, calendar_unit, time_zone, anchor, burst FROM distsys.rate_limit_policy WHERE policy = 'turns';
SELECT distsys.rate_limit_alter('turns', algorithm => 'calendar', period => '7 days');
SELECT distsys.rate_limit_alter('turns', period => '1 day');
SELECT algorithm, calendar_unit, period, time_zone, anchor, burst FROM distsys.rate_limit_policy WHERE policy = 'turns';
-- alter and drop
SELECT call, pg_temp.fails('distsys.rate_limit_' || call) FROM (VALUES
    ($$alter(NULL)$$), ($$alter('')$$), ($$alter(repeat('x', 64))$$), ($$alter('nope')$$), ($$alter('api', quota => 0)$$),
    ($$alter('api', period => '1 month')$$), ($$alter('api', burst => 0)$$), ($$alter('api', on_change => 'double')$$),
    ($$alter('api', on_change => NULL)$$), ($$alter('api', algorithm => 'gcra')$$), ($$alter('api', anchor => 'first_hit')$$),
    ($$alter('api', algorithm => 'calendar')$$),
    ($$alter('api', mode => 'off')$$), ($$alter('api', block_for => '1 s')$$),
    ($$drop(NULL)$$), ($$drop('')$$), ($$drop('nope')$$), ($$drop('api', if_exists => NULL)$$)) v(call);
-- the hint is the call to make
\set VERBOSITY default
SELECT * FROM distsys.rate_limit_take('o''hara', 'k');
\set VERBOSITY sqlstate

-- read only
BEGIN READ ONLY;
SELECT distsys.rate_limit_create('ro', 1, '1 s');
ROLLBACK;
BEGIN READ ONLY;
SELECT distsys.rate_limit_alter('api', quota => 1);
ROLLBACK;
BEGIN READ ONLY;
SELECT distsys.rate_limit_drop('api');
ROLLBACK;

-- drop; the policy is unknown, its buckets are left to the sweep; a policy of the same name finds them
SELECT allowed FROM distsys.rate_limit_take('api', 'k', 60);
SELECT distsys.rate_limit_drop('api');
SELECT allowed FROM distsys.rate_limit_take('api', 'k');
SELECT distsys.rate_limit_drop('api');
SELECT distsys.rate_limit_drop('api', if_exists => true);
SELECT count(*) FROM distsys.rate_limit_bucket WHERE policy = 'api';
SELECT distsys.rate_limit_create('api', quota => 100, period => '1 min');
SELECT remaining < 100 AS found FROM distsys.rate_limit_peek('api', 'k');

SELECT count(*) AS locks_left FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';
SELECT distsys.rate_limit_drop(policy) FROM (SELECT policy FROM distsys.rate_limit_policy ORDER BY policy) p;
DELETE FROM distsys.rate_limit_bucket;
