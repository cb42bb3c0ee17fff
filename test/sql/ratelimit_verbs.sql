-- What else can be done with a limit: take what is there, charge, refund, reserve, block; every bad argument with its SQLSTATE.
\set VERBOSITY sqlstate
SET client_min_messages = warning;

\getenv helpers PG_ABS_SRCDIR
\set helper :helpers '/helper/fails.sql'
\i :helper

SELECT count(distsys.rate_limit_create(p, quota => 10, period => '10 h', algorithm => a, anchor => anchor)) AS created
FROM (VALUES ('token_bucket', 'token_bucket', 'epoch'), ('gcra', 'gcra', 'epoch'), ('leaky_bucket', 'leaky_bucket', 'epoch'),
             ('sliding_window_log', 'sliding_window_log', 'epoch'), ('sliding_window', 'sliding_window', 'epoch'),
             ('fixed_window', 'fixed_window', 'epoch'), ('first_hit', 'fixed_window', 'first_hit')) v(p, a, anchor);
SELECT distsys.rate_limit_create('calendar', quota => 10, period => '1 year', algorithm => 'calendar');

-- take_up_to: what is there
SELECT policy, distsys.rate_limit_take_up_to(policy, 'k', 7) AS seven, distsys.rate_limit_take_up_to(policy, 'k', 7) AS rest,
       distsys.rate_limit_take_up_to(policy, 'k', 7) AS none, distsys.rate_limit_take_up_to(policy, 'k', 0) AS look,
       distsys.rate_limit_take_up_to(policy, 'other', 9223372036854775807) AS much
FROM distsys.rate_limit_policy ORDER BY policy;

-- refund: back, never above full
SELECT policy, distsys.rate_limit_refund(policy, 'k', 4) AS four, (distsys.rate_limit_peek(policy, 'k')).remaining,
       distsys.rate_limit_refund(policy, 'k', 100) AS rest, distsys.rate_limit_refund(policy, 'k', 1) AS none,
       distsys.rate_limit_refund(policy, 'k', 9223372036854775807) AS much, distsys.rate_limit_refund(policy, 'new', 3) AS new,
       (distsys.rate_limit_peek(policy, 'k')).remaining AS full
FROM distsys.rate_limit_policy ORDER BY policy;

-- a full one keeps no row, and a refund makes none
SELECT count(*) FROM distsys.rate_limit_bucket WHERE key = 'new';

-- charge: into debt; the debt of a window ends with it, that of a bucket is worked off
SELECT p.policy, r.allowed, r.reason, r.within, r.remaining, r.retry_after, t.allowed AS take, t.reason, t.retry_after > '0' AS retry
FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_charge(p.policy, 'debt', 35) r, LATERAL distsys.rate_limit_take(p.policy, left(r.key, 4)) t ORDER BY p.policy;
SELECT policy, distsys.rate_limit_refund(policy, 'debt', 26) AS back, (distsys.rate_limit_peek(policy, 'debt')).remaining FROM distsys.rate_limit_policy ORDER BY policy;
SELECT count(*) FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_charge(p.policy, 'debt', 26) r WHERE r.remaining = 0;
SET distsys.clock_offset = '21 h';
SELECT p.policy, r.remaining FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_peek(p.policy, 'debt') r WHERE p.policy <> 'calendar' ORDER BY p.policy;
SET distsys.clock_offset = '26 h';
SELECT p.policy, r.remaining FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_peek(p.policy, 'debt') r WHERE p.policy <> 'calendar' ORDER BY p.policy;
RESET distsys.clock_offset;
-- a charge that cannot be counted is refused whole
SELECT policy, pg_temp.fails(format('distsys.rate_limit_charge(%L, %L, 9223372036854775807)', policy, 'debt')) FROM distsys.rate_limit_policy ORDER BY policy;

-- reservations: in order, none later than asked for
SELECT granted, reason, reservation, delay, act_at BETWEEN clock_timestamp() - interval '1 min' AND clock_timestamp() AS now
FROM distsys.rate_limit_reserve('token_bucket', 'r', 10, '0');
SELECT granted, reason, reservation, delay, act_at FROM distsys.rate_limit_reserve('token_bucket', 'r', 1, '59 min');
SELECT granted, reason, reservation % 2 AS even, reservation < 2^53 AS small, delay BETWEEN '59 min' AND '1 h' AS hour, act_at - clock_timestamp() BETWEEN '59 min' AND '1 h' AS at, reservation AS first
FROM distsys.rate_limit_reserve('token_bucket', 'r', 1, '1 h') \gset a_
SELECT :'a_granted' AS granted, :'a_reason' AS reason, :'a_even' AS even, :'a_small' AS small, :'a_hour' AS hour, :'a_at' AS at;
SELECT granted, reservation > :a_first AS later, delay BETWEEN '3 h 59 min' AND '4 h' AS after, reservation AS second FROM distsys.rate_limit_reserve('token_bucket', 'r', 3, '10 h') \gset b_
SELECT :'b_granted' AS granted, :'b_later' AS later, :'b_after' AS after;
SELECT granted, reason FROM distsys.rate_limit_reserve('token_bucket', 'r', 11, '100 h');
-- nothing is always to be had
SELECT granted, delay FROM distsys.rate_limit_reserve('token_bucket', 'r', 0, '0');
SELECT allowed, reason, remaining, retry_after FROM distsys.rate_limit_take('token_bucket', 'r', 0);
SELECT allowed, remaining, retry_after BETWEEN '4 h 59 min' AND '5 h' AS retry FROM distsys.rate_limit_take('token_bucket', 'r');
SELECT count(*) FROM distsys.rate_limit_reservation;
-- the last one can be cancelled, and then the one before it; others were timed by it
SELECT distsys.rate_limit_cancel(:a_first) AS not_last, distsys.rate_limit_cancel(:b_second) AS last, distsys.rate_limit_cancel(:b_second) AS again;
SELECT retry_after BETWEEN '1 h 59 min' AND '2 h' AS retry FROM distsys.rate_limit_peek('token_bucket', 'r');
SELECT count(*) FROM distsys.rate_limit_reservation;
SELECT distsys.rate_limit_cancel(4503599627370494) AS unknown;
-- with the transaction
BEGIN;
SELECT reservation AS third FROM distsys.rate_limit_reserve('token_bucket', 'r', 3, '10 h') \gset
SAVEPOINT s;
SELECT distsys.rate_limit_cancel(:third);
ROLLBACK TO s;
SELECT distsys.rate_limit_cancel(:third);
ROLLBACK;
SELECT distsys.rate_limit_cancel(:third) AS rolled_back;
SELECT retry_after BETWEEN '1 h 59 min' AND '2 h' AS retry FROM distsys.rate_limit_peek('token_bucket', 'r');
-- nothing once its time has come; the sweep forgets it
SELECT reservation AS fourth FROM distsys.rate_limit_reserve('token_bucket', 'r', 1, '10 h') \gset
SET distsys.clock_offset = '3 h';
SELECT distsys.rate_limit_cancel(:fourth) AS acted;
SELECT reservation IS NOT NULL AS fifth FROM distsys.rate_limit_reserve('token_bucket', 'r', 10, '20 h');
SET distsys.clock_offset = '48 h';
SELECT rows_removed, error FROM distsys.maintain() WHERE job = 'rate_limit_reservation_sweep';
RESET distsys.clock_offset;
-- a leaky bucket gives places in its queue
SELECT granted, justify_hours(date_trunc('minute', delay + '1 s')) AS turn FROM generate_series(1, 4) i, LATERAL distsys.rate_limit_reserve('leaky_bucket', 'queue' || left(i::text, 0), 3, '10 h') r;
SELECT granted, reason FROM distsys.rate_limit_reserve('leaky_bucket', 'queue2', 1, '0');
SELECT granted, reason FROM distsys.rate_limit_reserve('leaky_bucket', 'queue2', 1, '0');
-- windows cannot promise
SELECT policy, pg_temp.fails(format('distsys.rate_limit_reserve(%L, %L, 1, %L)', policy, 'w', '1 h')) FROM distsys.rate_limit_policy
WHERE algorithm NOT IN ('token_bucket', 'gcra', 'leaky_bucket') ORDER BY policy;

-- blocks
SELECT distsys.rate_limit_block('token_bucket', 'bad', '2 h', 'scraping');
SELECT allowed, reason, remaining, retry_after BETWEEN '1 h 59 min' AND '2 h' AS retry, within FROM distsys.rate_limit_take('token_bucket', 'bad');
SELECT allowed, reason FROM distsys.rate_limit_peek('token_bucket', 'bad', 0);
SELECT distsys.rate_limit_take_up_to('token_bucket', 'bad', 3) AS up_to;
SELECT granted, reason FROM distsys.rate_limit_reserve('token_bucket', 'bad', 1, '10 h');
SELECT allowed, reason FROM distsys.rate_limit_take('token_bucket', 'bad', 11);
SELECT status, headers ->> 'Retry-After' AS retry, violated FROM distsys.rate_limit_http('{token_bucket}', '{bad}');
-- what was used is charged, what was not is given back
SELECT allowed, reason, remaining FROM distsys.rate_limit_charge('token_bucket', 'bad', 4);
SELECT distsys.rate_limit_refund('token_bucket', 'bad', 1);
SELECT policy, key, remaining, blocked_until - clock_timestamp() BETWEEN '1 h 59 min' AND '2 h' AS until, blocked_reason FROM distsys.rate_limits WHERE key = 'bad';
-- a block replaces the one before; time and unblock lift it
SELECT distsys.rate_limit_block('token_bucket', 'bad', '1 h');
SELECT blocked_reason IS NULL AS no_reason FROM distsys.rate_limits WHERE key = 'bad';
SET distsys.clock_offset = '1 h';
SELECT allowed, remaining FROM distsys.rate_limit_peek('token_bucket', 'bad');
RESET distsys.clock_offset;
SELECT distsys.rate_limit_unblock('token_bucket', 'bad') AS lifted, distsys.rate_limit_unblock('token_bucket', 'bad') AS none, distsys.rate_limit_unblock('token_bucket', 'new') AS new;
SELECT allowed, remaining FROM distsys.rate_limit_take('token_bucket', 'bad');
SELECT blocked_until, blocked_reason FROM distsys.rate_limits WHERE key = 'bad';
-- every algorithm; a blocked key that is full is not swept
SELECT count(distsys.rate_limit_block(policy, 'new', '30 h', 'all')) FROM distsys.rate_limit_policy;
SET distsys.clock_offset = '29 h';
SELECT error FROM distsys.maintain() WHERE job = 'rate_limit_sweep';
SELECT count(*) FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_take(p.policy, 'new') r WHERE r.reason = 'blocked';
SET distsys.clock_offset = '30 h';
SELECT count(*) FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_peek(p.policy, 'new') r WHERE r.allowed AND r.remaining = 10;
RESET distsys.clock_offset;
-- reset lifts it as well
SELECT distsys.rate_limit_reset('gcra', 'new');
SELECT allowed FROM distsys.rate_limit_take('gcra', 'new');

-- block_for: who was limited is blocked for a while; that refusal is the only one that writes
SELECT distsys.rate_limit_create('strict', quota => 2, period => '1 h', block_for => '5 h');
SELECT allowed, reason, retry_after BETWEEN '4 h 59 min' AND '5 h' AS retry FROM generate_series(1, 4) i, LATERAL distsys.rate_limit_take('strict', 'k' || left(i::text, 0)) r;
SELECT b.ctid AS before FROM distsys.rate_limit_bucket b WHERE policy = 'strict' \gset
SELECT allowed, reason FROM distsys.rate_limit_take('strict', 'k');
SELECT ctid = :'before' AS unchanged, blocked_reason FROM distsys.rate_limit_bucket WHERE policy = 'strict';
SET distsys.clock_offset = '4 h';
SELECT allowed, reason, remaining FROM distsys.rate_limit_take('strict', 'k');
SET distsys.clock_offset = '5 h';
SELECT allowed, reason, remaining FROM distsys.rate_limit_take('strict', 'k');
RESET distsys.clock_offset;
-- a cost that can never be does not block; in a call over several limits the one that refuses does
SELECT allowed, reason FROM distsys.rate_limit_take('strict', 'cost', 3);
SELECT allowed, reason FROM distsys.rate_limit_take('strict', 'cost', 2);
SELECT policy, allowed, reason FROM distsys.rate_limit_take_all('{token_bucket,strict}', '{both,cost}');
SELECT policy, allowed, reason FROM distsys.rate_limit_take_all('{token_bucket,strict}', '{both,cost}');
SELECT remaining FROM distsys.rate_limit_peek('token_bucket', 'both');
-- shadow: decided as if it were enforced
SELECT distsys.rate_limit_alter('strict', mode => 'shadow');
SELECT allowed, reason, within FROM generate_series(1, 4) i, LATERAL distsys.rate_limit_take('strict', 'shadow' || left(i::text, 0)) r;
SELECT blocked_reason FROM distsys.rate_limits WHERE key = 'shadow';
SELECT distsys.rate_limit_take_up_to('strict', 'shadow', 7), distsys.rate_limit_take_up_to('strict', 'shadow2', 7);
SELECT remaining FROM distsys.rate_limit_peek('strict', 'shadow2', 0);
SELECT granted, reason, reservation, delay FROM distsys.rate_limit_reserve('strict', 'shadow', 1, '0');
-- disabled: nothing is taken, nothing is given back
SELECT distsys.rate_limit_alter('strict', mode => 'disabled');
SELECT distsys.rate_limit_take_up_to('strict', 'off', 7), distsys.rate_limit_refund('strict', 'off', 7);
SELECT allowed, reason, remaining FROM distsys.rate_limit_charge('strict', 'off', 7);
SELECT granted, reason, reservation, delay FROM distsys.rate_limit_reserve('strict', 'off', 1, '0');
SELECT count(*) FROM distsys.rate_limit_bucket WHERE key = 'off';

-- views
SELECT count(*) FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_take(p.policy, 'view', 3) r WHERE r.reason = 'ok';
SELECT policy, key, storage, algorithm, capacity, remaining, reset_after > '0' AS reset, last_used_at <= clock_timestamp() AS used
FROM distsys.rate_limits WHERE key = 'view' ORDER BY policy;
SELECT policy, key, storage, takes, last_used_at <= clock_timestamp() AS used FROM distsys.rate_limit_hot_keys WHERE key = 'view' AND storage = 'durable' ORDER BY policy;

-- READ ONLY: nothing but looks
BEGIN READ ONLY;
SELECT distsys.rate_limit_headers('{token_bucket}', '{read only}') ->> 'RateLimit' AS limit;
SAVEPOINT s;
SELECT distsys.rate_limit_take_up_to('token_bucket', 'k', 1);
ROLLBACK TO s;
SELECT distsys.rate_limit_charge('token_bucket', 'k', 1);
ROLLBACK TO s;
SELECT distsys.rate_limit_refund('token_bucket', 'k', 1);
ROLLBACK TO s;
SELECT distsys.rate_limit_reserve('token_bucket', 'k', 1, '0');
ROLLBACK TO s;
SELECT distsys.rate_limit_cancel(2);
ROLLBACK TO s;
SELECT distsys.rate_limit_block('token_bucket', 'k', '1 h');
ROLLBACK TO s;
SELECT distsys.rate_limit_unblock('token_bucket', 'k');
ROLLBACK TO s;
SELECT * FROM distsys.rate_limit_take_all('{token_bucket}', '{k}');
ROLLBACK;
-- in_transaction 'forbid' is for all of them
SELECT distsys.rate_limit_create('outside', quota => 2, period => '10 h', in_transaction => 'forbid');
BEGIN;
SAVEPOINT s;
SELECT distsys.rate_limit_charge('outside', 'k', 1);
ROLLBACK TO s;
SELECT distsys.rate_limit_refund('outside', 'k', 1);
ROLLBACK TO s;
SELECT distsys.rate_limit_reserve('outside', 'k', 1, '0');
ROLLBACK TO s;
SELECT distsys.rate_limit_take_up_to('outside', 'k', 1);
ROLLBACK;

-- bad arguments
SELECT call, pg_temp.fails('distsys.rate_limit_' || call) FROM (VALUES
    ($$take_up_to(NULL, 'k', 1)$$), ($$take_up_to('nope', 'k', 1)$$), ($$take_up_to('gcra', NULL, 1)$$), ($$take_up_to('gcra', '', 1)$$),
    ($$take_up_to('gcra', 'k', NULL)$$), ($$take_up_to('gcra', 'k', -1)$$),
    ($$charge(NULL, 'k', 1)$$), ($$charge('', 'k', 1)$$), ($$charge('nope', 'k', 1)$$), ($$charge('gcra', repeat('k', 256), 1)$$), ($$charge('gcra', 'k', NULL)$$), ($$charge('gcra', 'k', -1)$$), ($$charge('gcra', 'k', 0)$$),
    ($$refund(NULL, 'k', 1)$$), ($$refund('nope', 'k', 1)$$), ($$refund('gcra', E'a\tb', 1)$$), ($$refund('gcra', 'k', NULL)$$), ($$refund('gcra', 'k', -1)$$), ($$refund('gcra', 'k', 0)$$),
    ($$reserve(NULL, 'k', 1, '0')$$), ($$reserve('nope', 'k', 1, '0')$$), ($$reserve('gcra', NULL, 1, '0')$$), ($$reserve('gcra', 'k', NULL, '0')$$), ($$reserve('gcra', 'k', -1, '0')$$),
    ($$reserve('gcra', 'k', 1, NULL)$$), ($$reserve('gcra', 'k', 1, '-1 s')$$), ($$reserve('gcra', 'k', 1, '1 month')$$), ($$reserve('gcra', 'k', 1, '367 days')$$),
    ($$cancel(NULL)$$), ($$cancel(0)$$), ($$cancel(-1)$$), ($$cancel(9007199254740992)$$), ($$cancel(9007199254740990)$$),
    ($$block(NULL, 'k', '1 s')$$), ($$block('nope', 'k', '1 s')$$), ($$block('gcra', NULL, '1 s')$$), ($$block('gcra', 'k', NULL)$$), ($$block('gcra', 'k', '0')$$),
    ($$block('gcra', 'k', '1 month')$$), ($$block('gcra', 'k', '101 years')$$), ($$block('gcra', 'k', '36526 days')$$), ($$block('gcra', 'k', '1 s', '')$$),
    ($$block('gcra', 'k', '1 s', repeat('r', 256))$$), ($$block('gcra', 'k', '1 s', E'a\nb')$$),
    ($$unblock(NULL, 'k')$$), ($$unblock('nope', 'k')$$), ($$unblock('gcra', '')$$),
    ($$take_all(NULL, '{k}')$$), ($$take_all('{}', '{}')$$), ($$take_all('{gcra}', NULL)$$), ($$take_all('{gcra}', '{k,l}')$$), ($$take_all('{gcra}', '{k}', '{1,2}')$$),
    ($$take_all('{gcra,gcra}', '{k,k}')$$), ($$take_all('{gcra,NULL}', '{k,k}')$$), ($$take_all('{gcra}', '{k}', '{NULL}')$$), ($$take_all('{gcra}', '{k}', '{-1}')$$),
    ($$take_all('{nope}', '{k}')$$), ($$take_all('{{gcra}}', '{k}')$$), ($$take_all('{gcra,fixed_window}', '{k,k}')$$),
    ($$headers(NULL, '{k}')$$), ($$headers('{}', '{}')$$), ($$headers('{nope}', '{k}')$$), ($$headers('{gcra}', '{k,l}')$$), ($$headers('{gcra}', '{k}', NULL)$$),
    ($$headers('{gcra}', '{k}', 'y')$$), ($$headers('{gcra}', '{k}', 'x')$$)) v(call);
PREPARE verb(text, text, bigint) AS SELECT distsys.rate_limit_take_up_to($1, $2, $3);
EXECUTE verb('gcra', 'prepared', 7);
EXECUTE verb('gcra', 'prepared', 7);
DEALLOCATE verb;
SELECT count(*) AS locks_left FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';

SELECT count(distsys.rate_limit_drop(policy)) FROM (SELECT policy FROM distsys.rate_limit_policy ORDER BY policy) p;
DELETE FROM distsys.rate_limit_bucket;
DELETE FROM distsys.rate_limit_reservation;
