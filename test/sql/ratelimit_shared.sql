-- Limits in shared memory. Without shared_preload_libraries there are none: the other expected file.
\set VERBOSITY sqlstate
SET client_min_messages = warning;

\getenv helpers PG_ABS_SRCDIR
\set helper :helpers '/helper/fails.sql'
\i :helper

SELECT current_setting('shared_preload_libraries') LIKE '%distsys%' AS preload \gset
\if :preload
\else
-- a policy can come with a dump; taking says what is missing
SELECT pg_temp.fails($$distsys.rate_limit_create('sh', quota => 5, period => '10 h', storage => 'shared')$$);
INSERT INTO distsys.rate_limit_policy (policy, quota, period, storage) VALUES ('sh', 5, '10 h', 'shared');
SELECT call, pg_temp.fails(format('distsys.rate_limit_%s', call))
FROM unnest(ARRAY[$$take('sh', 'k')$$, $$peek('sh', 'k')$$, $$take_or_raise('sh', 'k')$$, $$http('{sh}', '{k}')$$, $$reset('sh', 'k')$$]) call;
SELECT distsys.rate_limit_drop('sh');
\quit
\endif

SELECT distsys.rate_limit_create('sh', quota => 5, period => '10 h', storage => 'shared');
SELECT distsys.rate_limit_create('sh_refund', quota => 5, period => '10 h', storage => 'shared', on_abort => 'refund');

-- as a durable one
SELECT allowed, reason, policy, key, quota, remaining, retry_after, retry_after_s, reset_after, next_after, within,
       decided_at BETWEEN clock_timestamp() - interval '1 min' AND clock_timestamp() + interval '1 s' AS decided
FROM distsys.rate_limit_peek('sh', 'k');
SELECT allowed, reason, remaining, retry_after, within FROM distsys.rate_limit_take('sh', 'k');
SELECT allowed, reason, remaining, retry_after, within FROM distsys.rate_limit_take('sh', 'k', 4);
SELECT allowed, reason, remaining, retry_after BETWEEN '1 h 59 min' AND '2 h' AS retry, within FROM distsys.rate_limit_take('sh', 'k');
SELECT allowed, reason, remaining, retry_after, within FROM distsys.rate_limit_take('sh', 'k', 6);
SELECT allowed, reason, remaining FROM distsys.rate_limit_take('sh', 'other');
SELECT allowed, remaining FROM distsys.rate_limit_peek('sh', 'k', 0);

-- time passes
SET distsys.clock_offset = '2 h';
SELECT allowed, remaining FROM distsys.rate_limit_take('sh', 'k');
SET distsys.clock_offset = '30 h';
SELECT remaining, reset_after FROM distsys.rate_limit_peek('sh', 'k');
RESET distsys.clock_offset;
-- a step of the wall clock changes nothing
SELECT distsys.rate_limit_reset('sh', 'k'), distsys.rate_limit_reset('sh', 'k');
SELECT remaining FROM distsys.rate_limit_take('sh', 'k', 3);
SET distsys.clock_step = '3 h';
SELECT remaining, decided_at > clock_timestamp() + interval '2 h 59 min' AS later FROM distsys.rate_limit_take('sh', 'k');
SET distsys.clock_step = '-3 h';
SELECT remaining, decided_at < clock_timestamp() - interval '2 h 59 min' AS earlier FROM distsys.rate_limit_take('sh', 'k');
RESET distsys.clock_step;
SELECT allowed, remaining FROM distsys.rate_limit_take('sh', 'k');

-- kept at rollback unless the policy says refund
BEGIN;
SELECT remaining FROM distsys.rate_limit_take('sh', 'kept', 2);
SELECT remaining FROM distsys.rate_limit_take('sh_refund', 'a', 2);
ROLLBACK;
SELECT remaining FROM distsys.rate_limit_peek('sh', 'kept');
SELECT remaining FROM distsys.rate_limit_peek('sh_refund', 'a');
-- savepoints: exactly once, whatever the depth
BEGIN;
SELECT remaining FROM distsys.rate_limit_take('sh_refund', 'a');
SAVEPOINT one;
SELECT remaining FROM distsys.rate_limit_take('sh_refund', 'a');
SAVEPOINT two;
SELECT remaining FROM distsys.rate_limit_take('sh_refund', 'a');
RELEASE two;
SELECT remaining FROM distsys.rate_limit_peek('sh_refund', 'a');
ROLLBACK TO one;
SELECT remaining FROM distsys.rate_limit_peek('sh_refund', 'a');
SELECT remaining FROM distsys.rate_limit_take('sh_refund', 'a');
RELEASE one;
COMMIT;
SELECT remaining FROM distsys.rate_limit_peek('sh_refund', 'a');
DO $$
BEGIN
    PERFORM distsys.rate_limit_take('sh_refund', 'a');
    BEGIN
        PERFORM distsys.rate_limit_take('sh_refund', 'a', 2);
        RAISE EXCEPTION 'no';
    EXCEPTION WHEN raise_exception THEN
        NULL;
    END;
END
$$;
SELECT remaining FROM distsys.rate_limit_peek('sh_refund', 'a');
-- an error in a statement of its own
SELECT 1 / remaining::int * 0 / 0 FROM distsys.rate_limit_take('sh_refund', 'a');
SELECT remaining FROM distsys.rate_limit_peek('sh_refund', 'a');
-- two-phase commit: not with a pending refund
BEGIN;
SELECT remaining FROM distsys.rate_limit_take('sh_refund', 'a');
PREPARE TRANSACTION 'refund';
SELECT remaining FROM distsys.rate_limit_peek('sh_refund', 'a');
BEGIN;
SELECT remaining FROM distsys.rate_limit_take('sh', 'prepared');
PREPARE TRANSACTION 'keep';
ROLLBACK PREPARED 'keep';
SELECT remaining FROM distsys.rate_limit_peek('sh', 'prepared');

-- works in a READ ONLY transaction, which a durable take does not
BEGIN READ ONLY;
SELECT allowed, remaining FROM distsys.rate_limit_take('sh', 'readonly');
COMMIT;

-- together with a durable limit: all or nothing
SELECT distsys.rate_limit_create('sh_durable', quota => 5, period => '10 h');
SELECT allowed, status, violated FROM distsys.rate_limit_http('{sh,sh_durable,sh_refund}', '{m,m,m}', '{2,2,2}');
SELECT allowed, status, violated FROM distsys.rate_limit_http('{sh,sh_durable,sh_refund}', '{m,m,m}', '{2,4,2}');
SELECT allowed, status, violated FROM distsys.rate_limit_http('{sh,sh_durable,sh_refund}', '{m,m,m}', '{4,2,4}');
SELECT p, remaining FROM unnest('{sh,sh_durable,sh_refund}'::text[]) p, distsys.rate_limit_peek(p, 'm');
BEGIN;
SELECT allowed FROM distsys.rate_limit_http('{sh,sh_durable,sh_refund}', '{m,m,m}');
ROLLBACK;
SELECT p, remaining FROM unnest('{sh,sh_durable,sh_refund}'::text[]) p, distsys.rate_limit_peek(p, 'm');
BEGIN READ ONLY;
SELECT allowed FROM distsys.rate_limit_http('{sh,sh_durable}', '{m,m}');
ROLLBACK;
SELECT remaining FROM distsys.rate_limit_peek('sh', 'm');

-- a change of the policy
SELECT distsys.rate_limit_create('sh_change', quota => 10, period => '10 h', storage => 'shared');
SELECT remaining FROM distsys.rate_limit_take('sh_change', 'k', 5);
SELECT distsys.rate_limit_alter('sh_change', quota => 20);
SELECT quota, remaining FROM distsys.rate_limit_peek('sh_change', 'k');
SELECT distsys.rate_limit_alter('sh_change', quota => 10, on_change => 'as_is');
SELECT quota, remaining FROM distsys.rate_limit_take('sh_change', 'k', 3);
SELECT distsys.rate_limit_alter('sh_change', quota => 12, on_change => 'additive');
SELECT quota, remaining FROM distsys.rate_limit_take('sh_change', 'k', 0);
UPDATE distsys.rate_limit_policy SET quota = 30, on_change = 'reset', changed_at = clock_timestamp() WHERE policy = 'sh_change';
SELECT quota, remaining FROM distsys.rate_limit_take('sh_change', 'k');

-- of many limits at once: their rules share slots
SELECT count(distsys.rate_limit_create('sh_many_' || g, quota => g, period => '300 days', storage => 'shared')) FROM generate_series(101, 500) g;
CREATE FUNCTION pg_temp.take_many(cost bigint) RETURNS TABLE (policy text, allowed boolean, remaining bigint) LANGUAGE sql AS $$
    SELECT t.policy, t.allowed, t.remaining FROM (SELECT array_agg('sh_many_' || g) AS names FROM generate_series(101, 500) g) n,
        distsys.rate_limit_take_all(n.names, array_fill('k'::text, ARRAY[400]), array_fill(take_many.cost, ARRAY[400])) t
$$;
SELECT count(*) FROM pg_temp.take_many(50) WHERE allowed;
UPDATE distsys.rate_limit_policy SET quota = 3 * quota + 1, on_change = 'as_is', changed_at = clock_timestamp() WHERE policy LIKE 'sh\_many%';
SELECT count(*) FROM pg_temp.take_many(1) WHERE allowed AND remaining = split_part(policy, '_', 3)::bigint - 51;
SELECT count(*) FROM pg_temp.take_many(1) WHERE allowed AND remaining = split_part(policy, '_', 3)::bigint - 52;

-- shadow and disabled
SELECT distsys.rate_limit_alter('sh_change', mode => 'shadow');
SELECT allowed, within, reason FROM distsys.rate_limit_take('sh_change', 'k', 30);
SELECT distsys.rate_limit_alter('sh_change', mode => 'disabled');
SELECT allowed, within, reason FROM distsys.rate_limit_take('sh_change', 'k', 30);

-- every other algorithm with a state of fixed size
SELECT distsys.rate_limit_create('sh_' || a, quota => 5, period => '10 h', algorithm => a, storage => 'shared')
FROM unnest('{gcra,leaky_bucket,fixed_window,sliding_window}'::text[]) a;
SELECT distsys.rate_limit_create('sh_calendar', quota => 5, period => '1 year', algorithm => 'calendar', calendar_unit => 'year', storage => 'shared');
SELECT a, t.remaining, (SELECT reason FROM distsys.rate_limit_take('sh_' || a, 'k', CASE WHEN t.allowed THEN 3 END)),
       (SELECT remaining FROM distsys.rate_limit_peek('sh_' || a, 'k'))
FROM unnest('{gcra,leaky_bucket,fixed_window,sliding_window,calendar}'::text[]) a, distsys.rate_limit_take('sh_' || a, 'k', 3) t;
-- ahead of time: reserve, cancel, wait
SELECT distsys.rate_limit_create('sh_ahead', quota => 10, period => '10 h', burst => 1, storage => 'shared');
SELECT granted, reason, reservation, delay FROM distsys.rate_limit_reserve('sh_ahead', 'k', 1, '2 h');
SELECT granted, reason, reservation % 2 AS odd, delay BETWEEN '59 min' AND '1 h' AS delayed, reservation FROM distsys.rate_limit_reserve('sh_ahead', 'k', 1, '2 h') \gset
SELECT :'granted' AS granted, :'reason' AS reason, :odd AS odd, :'delayed' AS delayed;
SELECT granted, reason, reservation, delay FROM distsys.rate_limit_reserve('sh_ahead', 'k', 1, '1 h');
SELECT distsys.rate_limit_cancel(:reservation), distsys.rate_limit_cancel(:reservation), distsys.rate_limit_cancel(1);
SELECT reservation FROM distsys.rate_limit_reserve('sh_ahead', 'k', 1, '2 h') \gset
SET distsys.clock_offset = '61 min';
SELECT distsys.rate_limit_cancel(:reservation) AS has_acted;
RESET distsys.clock_offset;
-- too long is refused at once; enough is waited for
SELECT allowed, reason, retry_after > '50 min' AS later FROM distsys.rate_limit_wait('sh_ahead', 'wait', 1, '1 s')
UNION ALL SELECT allowed, reason, retry_after > '50 min' FROM distsys.rate_limit_wait('sh_ahead', 'wait', 1, '1 s');
SELECT distsys.rate_limit_create('sh_soon', quota => 10, period => '1 s', burst => 1, storage => 'shared');
SELECT count(*) FILTER (WHERE allowed), clock_timestamp() - now() BETWEEN '200 ms' AND '4 s' AS waited
FROM generate_series(1, 3) g, distsys.rate_limit_wait('sh_soon', CASE WHEN g > 0 THEN 'k' END);
-- a wait that ends early gives back, exactly once
SELECT distsys.rate_limit_create('sh_wait', quota => 1000, period => '1 h', burst => 1, storage => 'shared');
SELECT allowed FROM distsys.rate_limit_take('sh_wait', 'k');
SET statement_timeout = '100 ms';
SELECT allowed FROM distsys.rate_limit_wait('sh_wait', 'k', 1, '9 s');
RESET statement_timeout;
SELECT reset_after < '3.6 s' AS given_back FROM distsys.rate_limit_peek('sh_wait', 'k');
-- a rollback cancels a reservation when the policy says refund
SELECT distsys.rate_limit_create('sh_undo', quota => 10, period => '10 h', burst => 1, storage => 'shared', on_abort => 'refund');
SELECT allowed FROM distsys.rate_limit_take('sh_undo', 'k');
BEGIN;
SELECT reservation FROM distsys.rate_limit_reserve('sh_undo', 'k', 1, '2 h') \gset
SELECT reset_after > '1 h' AS reserved FROM distsys.rate_limit_peek('sh_undo', 'k');
ROLLBACK;
SELECT reset_after > '1 h' AS reserved, distsys.rate_limit_cancel(:reservation) FROM distsys.rate_limit_peek('sh_undo', 'k');

-- the other verbs
SELECT distsys.rate_limit_take_up_to('sh', 'verbs', 3), distsys.rate_limit_take_up_to('sh', 'verbs', 9), distsys.rate_limit_take_up_to('sh', 'verbs', 9);
SELECT allowed, remaining FROM distsys.rate_limit_charge('sh', 'verbs', 2);
SELECT distsys.rate_limit_refund('sh', 'verbs', 4), remaining FROM distsys.rate_limit_peek('sh', 'verbs');
SELECT distsys.rate_limit_refund('sh', 'verbs', 9), remaining FROM distsys.rate_limit_peek('sh', 'verbs');
SELECT distsys.rate_limit_block('sh', 'verbs', '1 h'), distsys.rate_limit_block('sh', 'new', '1 h');
SELECT key, allowed, reason, retry_after BETWEEN '59 min' AND '1 h' AS retry FROM unnest('{verbs,new}'::text[]) k, distsys.rate_limit_take('sh', k);
SELECT distsys.rate_limit_unblock('sh', 'verbs'), distsys.rate_limit_unblock('sh', 'verbs');
SELECT distsys.rate_limit_alter('sh', block_for => '2 h');
SELECT allowed, reason FROM distsys.rate_limit_take('sh', 'blocks', 5) UNION ALL SELECT allowed, reason FROM distsys.rate_limit_take('sh', 'blocks', 5);
SELECT allowed, reason, retry_after > '1 h 59 min' AS retry FROM distsys.rate_limit_take('sh', 'blocks');
SELECT allowed, within, reason FROM distsys.rate_limit_take_all('{sh,sh_durable,sh}', '{verbs,verbs,blocks}');

-- the log: exact in any stretch, in parts of four times
SELECT distsys.rate_limit_create('sh_log', quota => 10, period => '10 s', algorithm => 'sliding_window_log', storage => 'shared', on_abort => 'refund');
SELECT count(*) FILTER (WHERE allowed) AS allowed, min(remaining) FROM generate_series(1, 6) g, distsys.rate_limit_take('sh_log', CASE WHEN g > 0 THEN 'k' END);
SET distsys.clock_offset = '4 s';
SELECT count(*) FILTER (WHERE allowed) AS allowed, min(remaining), bool_or(retry_after BETWEEN '5 s' AND '6 s') AS retry
FROM generate_series(1, 6) g, distsys.rate_limit_take('sh_log', CASE WHEN g > 0 THEN 'k' END);
SELECT capacity, remaining FROM distsys.rate_limits WHERE policy = 'sh_log';
SET distsys.clock_offset = '11 s';
SELECT allowed, remaining FROM distsys.rate_limit_peek('sh_log', 'k');
SELECT distsys.rate_limit_take_up_to('sh_log', 'k', 10);
SELECT allowed, remaining, retry_after BETWEEN '2 s' AND '3 s' AS retry FROM distsys.rate_limit_take('sh_log', 'k', 2);
SELECT distsys.rate_limit_refund('sh_log', 'k', 3);
BEGIN;
SELECT remaining FROM distsys.rate_limit_take('sh_log', 'k', 2);
SAVEPOINT s;
SELECT remaining FROM distsys.rate_limit_take('sh_log', 'k');
ROLLBACK TO s;
SELECT remaining FROM distsys.rate_limit_peek('sh_log', 'k');
ROLLBACK;
SELECT remaining FROM distsys.rate_limit_peek('sh_log', 'k');
SELECT remaining FROM distsys.rate_limit_charge('sh_log', 'k', 100);
-- to another algorithm and back, as many tokens as there were
SELECT distsys.rate_limit_reset('sh_log', 'k');
SELECT remaining FROM distsys.rate_limit_take('sh_log', 'k', 4);
SELECT distsys.rate_limit_alter('sh_log', algorithm => 'fixed_window', period => '1 h', on_change => 'as_is');
SELECT remaining FROM distsys.rate_limit_take('sh_log', 'k');
SELECT distsys.rate_limit_alter('sh_log', algorithm => 'sliding_window_log', on_change => 'as_is');
SELECT remaining FROM distsys.rate_limit_take('sh_log', 'k');
SELECT distsys.rate_limit_block('sh_log', 'other', '1 min'), distsys.rate_limit_unblock('sh_log', 'other');
RESET distsys.clock_offset;
-- all times of a long log
SELECT distsys.rate_limit_create('sh_long_log', quota => 1000, period => '1 h', algorithm => 'sliding_window_log', storage => 'shared');
SELECT count(*) FILTER (WHERE allowed) AS allowed, min(remaining) FROM generate_series(1, 1001) g, distsys.rate_limit_take('sh_long_log', CASE WHEN g > 0 THEN 'k' END);

-- views
SELECT count(*) FROM generate_series(1, 100) g, distsys.rate_limit_take('sh_soon', CASE WHEN g > 0 THEN 'hot' END);
SELECT storage, algorithm, capacity FROM distsys.rate_limits WHERE policy = 'sh_soon' AND key = 'hot';
SELECT storage, takes BETWEEN 64 AND 132 AS takes FROM distsys.rate_limit_hot_keys WHERE policy = 'sh_soon' AND key = 'hot';

-- errors
SELECT call, pg_temp.fails('distsys.rate_limit_' || call) FROM unnest(ARRAY[
    $$take('sh', NULL)$$, $$take('sh', '')$$, $$take('sh', 'k', -1)$$, $$take('sh', repeat('k', 256))$$, $$take_or_raise('sh', 'k', 5)$$,
    $$wait('sh_durable', 'k')$$, $$wait('sh_fixed_window', 'k')$$, $$wait('sh_soon', 'k', 1, NULL)$$, $$wait('sh_soon', 'k', 1, '1 h')$$, $$wait('sh_soon', 'k', -1)$$,
    $$wait('none', 'k')$$, $$charge('sh', 'big', 9223372036854775807)$$]) call;

SELECT count(distsys.rate_limit_drop(policy)) FROM distsys.rate_limit_policy WHERE policy LIKE 'sh%';
