-- What docs/rate-limit.md says of limits in use: windows and their boundaries, tiers as HTTP, PostgREST, costs of 0.
\set VERBOSITY sqlstate
SET client_min_messages = warning;

CREATE FUNCTION pg_temp.at(ms double precision) RETURNS void LANGUAGE sql AS $$ SELECT set_config('distsys.clock_offset', round(ms)::bigint::text, false) $$;
-- milliseconds to the next multiple of 10 h of Unix time
SELECT 36000000 - extract(epoch FROM clock_timestamp())::numeric * 1000 % 36000000 AS boundary \gset

SELECT distsys.rate_limit_create('fixed', quota => 5, period => '10 h', algorithm => 'fixed_window'),
       distsys.rate_limit_create('first', quota => 5, period => '10 h', algorithm => 'fixed_window', anchor => 'first_hit'),
       distsys.rate_limit_create('sliding', quota => 5, period => '10 h', algorithm => 'sliding_window'),
       distsys.rate_limit_create('log', quota => 5, period => '10 h', algorithm => 'sliding_window_log'),
       distsys.rate_limit_create('bucket', quota => 5, period => '10 h');

-- windows begin where Unix time is a multiple of the period, or with the first take
SELECT abs(extract(epoch FROM reset_after) * 1000 - :boundary) < 60000 AS grid FROM distsys.rate_limit_take('fixed', 'grid');
SELECT reset_after = '10 h' AS first_hit FROM distsys.rate_limit_take('first', 'grid');

-- one minute before a boundary and one after: twice the quota of a fixed window, the quota of a log, a bucket's burst and what has come in
SELECT pg_temp.at(:boundary - 60000);
SELECT p, distsys.rate_limit_take_up_to(p, 'edge', 99) FROM unnest('{fixed,sliding,log,bucket}'::text[]) p;
SELECT pg_temp.at(:boundary + 60000);
SELECT p, distsys.rate_limit_take_up_to(p, 'edge', 99) FROM unnest('{fixed,sliding,log,bucket}'::text[]) p;
RESET distsys.clock_offset;
-- a window of the first hit: one take, the rest just before its end, all of the next
SELECT distsys.rate_limit_take_up_to('first', 'edge', 1);
SET distsys.clock_offset = '599 min';
SELECT distsys.rate_limit_take_up_to('first', 'edge', 99);
SET distsys.clock_offset = '601 min';
SELECT distsys.rate_limit_take_up_to('first', 'edge', 99);
RESET distsys.clock_offset;
-- the estimate: all at the end of one window, and all but what is still in sight at the end of the next
SELECT distsys.rate_limit_create('estimate', quota => 100, period => '10 h', algorithm => 'sliding_window');
SELECT pg_temp.at(:boundary - 30000);
SELECT distsys.rate_limit_take_up_to('estimate', 'k', 100);
SELECT pg_temp.at(:boundary + 36000000 - 360000);
SELECT distsys.rate_limit_take_up_to('estimate', 'k', 100) AS less_than_a_period_later;
RESET distsys.clock_offset;

-- leaky bucket: one by one, as nginx with burst=20
SELECT distsys.rate_limit_create('nginx', quota => 10, period => '10 h', burst => 21, algorithm => 'leaky_bucket');
SELECT count(*) FILTER (WHERE allowed) AS allowed, max(next_after) BETWEEN '19 h 59 min' AND '20 h' AS last_turn
FROM generate_series(1, 30) i, LATERAL distsys.rate_limit_take('nginx', 'k' || left(i::text, 0)) r WHERE r.allowed;
-- gcra: redis-cell's max_burst is one less than burst
SELECT distsys.rate_limit_create('cell', quota => 30, period => '10 h', burst => 16, algorithm => 'gcra');
SELECT count(*) FILTER (WHERE allowed) FROM generate_series(1, 20) i, LATERAL distsys.rate_limit_take('cell', 'k' || left(i::text, 0)) r;

-- a cost of 0 looks: what is left does not matter, a block does; a disabled limit never refuses
SELECT allowed FROM distsys.rate_limit_take('bucket', 'zero', 5);
SELECT policy, allowed, within, reason FROM distsys.rate_limit_take_all('{bucket,fixed}', '{zero,zero}', '{0,1}');
SELECT distsys.rate_limit_block('bucket', 'zero', '1 h');
SELECT policy, allowed, within, reason FROM distsys.rate_limit_take_all('{bucket,fixed}', '{zero,zero}', '{0,1}');
SELECT distsys.rate_limit_alter('bucket', mode => 'disabled');
SELECT policy, allowed, within, reason FROM distsys.rate_limit_take_all('{bucket,fixed}', '{zero,zero}', '{1,1}');
SELECT distsys.rate_limit_alter('bucket', mode => 'enforce');

-- a tier as an HTTP answer
CREATE FUNCTION pg_temp.api_limit(subject text, cost bigint DEFAULT 1, OUT status int, OUT headers jsonb) LANGUAGE sql AS $$
    SELECT CASE WHEN bool_and(allowed) THEN 200
                WHEN bool_or(NOT within AND reason IN ('limited', 'blocked', 'cost_exceeds_limit')) THEN 429 ELSE 503 END,
           jsonb_strip_nulls(jsonb_build_object(
               'RateLimit', string_agg(format('"%s";r=%s;t=%s', policy, remaining, ceil(extract(epoch FROM next_after))), ', ')
                            FILTER (WHERE reason <> 'unlimited'),
               'Retry-After', CASE WHEN NOT bool_or(reason = 'cost_exceeds_limit') THEN max(retry_after_s)::text END))
    FROM distsys.rate_limit_take_for(subject, cost)
$$;
INSERT INTO distsys.rate_limit_tier (tier, parent) VALUES ('default', NULL), ('free', 'default');
INSERT INTO distsys.rate_limit_tier_policy (tier, policy, unlimited) VALUES ('default', 'first', false), ('default', 'bucket', true);
SELECT status, headers FROM pg_temp.api_limit('acme', 5);
SELECT status, headers ->> 'Retry-After' BETWEEN '35990' AND '36000' AS retry, headers ->> 'RateLimit' ~ '^"first";r=0;t=3\d{4}$' AS limits FROM pg_temp.api_limit('acme');
SELECT status, headers ? 'Retry-After' AS retry FROM pg_temp.api_limit('acme', 6);
SELECT distsys.rate_limit_block('first', 'acme', '20 h');
SELECT status, headers ->> 'Retry-After' BETWEEN '71990' AND '72000' AS retry FROM pg_temp.api_limit('acme');

-- PostgREST: the setting holds for the request function alone
CREATE FUNCTION pg_temp.check_request() RETURNS void LANGUAGE plpgsql SET distsys.http_sqlstate = 'on' AS $$
BEGIN
    PERFORM distsys.rate_limit_take_or_raise('bucket', coalesce(current_setting('request.headers', true)::json ->> 'x-forwarded-for', 'unknown'));
END
$$;
SET request.headers = '{"x-forwarded-for": "zero"}';
SELECT pg_temp.check_request();
SHOW distsys.http_sqlstate;
SET request.headers = '{}';
SELECT pg_temp.check_request();
SELECT remaining FROM distsys.rate_limit_peek('bucket', 'unknown');

-- a refund counts now: what was taken in another window is not there to be given back
SELECT distsys.rate_limit_take_up_to('fixed', 'late', 3);
SELECT pg_temp.at(:boundary + 60000);
SELECT distsys.rate_limit_refund('fixed', 'late', 3);
RESET distsys.clock_offset;

DELETE FROM distsys.rate_limit_tier;
SELECT count(distsys.rate_limit_drop(policy)) FROM (SELECT policy FROM distsys.rate_limit_policy ORDER BY policy) p;
DELETE FROM distsys.rate_limit_bucket;
