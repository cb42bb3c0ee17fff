-- Several limits at once, as a web framework asks: all or nothing, status, headers, problem details.
\set VERBOSITY sqlstate
SET client_min_messages = warning;

SELECT distsys.rate_limit_create('burst', quota => 100, period => '60 s');
SELECT distsys.rate_limit_create('day', quota => 3, period => '24 h');
SELECT distsys.rate_limit_create('bytes', quota => 1000, period => '1 h', burst => 500, quota_unit => 'content-bytes');
SELECT distsys.rate_limit_create('shadow', quota => 1, period => '24 h', mode => 'shadow');

-- one, two, three: integer seconds, rounded up
SELECT allowed, status, headers, problem, violated FROM distsys.rate_limit_http('{day}', '{u1}');
SELECT allowed, status, headers ->> 'RateLimit-Policy' AS policy, headers ->> 'RateLimit' ~ '^"burst";r=99;t=[01], "day";r=1;t=28800$' AS limits, violated
FROM distsys.rate_limit_http('{burst,day}', '{u1,u1}');
SELECT allowed, headers ->> 'RateLimit-Policy' AS policy FROM distsys.rate_limit_http('{bytes}', '{u1}', '{200}');

-- all or nothing: day is exhausted, the others stay as they are to the bit
SELECT allowed FROM distsys.rate_limit_http('{day}', '{u1}');
SELECT md5(string_agg(b::text, '|' ORDER BY b.policy, b.key)) AS md5 FROM distsys.rate_limit_bucket b WHERE policy <> 'burst' \gset before_
SELECT allowed, status, violated, (headers ->> 'Retry-After')::int BETWEEN 28700 AND 28800 AS retry_after,
       headers ->> 'RateLimit' ~ '^"bytes";r=30\d;t=\d+, "day";r=0;t=28\d\d\d, "burst";r=(99|100);t=\d$' AS limits
FROM distsys.rate_limit_http('{bytes,day,burst}', '{u1,u1,u1}');
SELECT problem FROM distsys.rate_limit_http('{bytes,day,burst}', '{u1,u1,u1}');
SELECT md5(string_agg(b::text, '|' ORDER BY b.policy, b.key)) = :'before_md5' AS untouched FROM distsys.rate_limit_bucket b WHERE policy <> 'burst';
SELECT count(*) AS locks_left FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';
-- Retry-After is never earlier than the t of a limit that refuses
SELECT (headers ->> 'Retry-After')::int >= substring(headers ->> 'RateLimit' FROM 't=(\d+)')::int AS honest
FROM distsys.rate_limit_http('{day}', '{u1}');

-- each named one that refuses, in the order of the request; the keys may differ
SELECT allowed, violated FROM distsys.rate_limit_http('{day,burst,bytes}', '{u1,u1,u1}', '{1,1,500}');
SELECT allowed, violated FROM distsys.rate_limit_http('{day,day}', '{u1,u2}');
SELECT remaining FROM distsys.rate_limit_peek('day', 'u2');
SELECT allowed, violated FROM distsys.rate_limit_http('{day,day}', '{u3,u2}', '{2,1}');
SELECT k, t.remaining FROM unnest('{u2,u3}'::text[]) k, LATERAL distsys.rate_limit_peek('day', k) t ORDER BY k;
-- a cost that can never be had: no Retry-After
SELECT allowed, status, headers ? 'Retry-After' AS retry, violated FROM distsys.rate_limit_http('{burst,day}', '{u9,u9}', '{1,4}');
SELECT remaining FROM distsys.rate_limit_peek('burst', 'u9');
-- cost 0 looks at one and takes from the other
SELECT allowed, headers ->> 'RateLimit' ~ '^"day";r=0;t=\d+, "burst";r=99;t=[01]$' AS limits FROM distsys.rate_limit_http('{day,burst}', '{u1,u8}', '{0,1}');
-- a shadowed limit never refuses the call, and does not let it pass the others
SELECT allowed, violated FROM distsys.rate_limit_http('{shadow,burst}', '{u1,u1}');
SELECT allowed, violated FROM distsys.rate_limit_http('{shadow,burst}', '{u1,u1}');
SELECT allowed, violated FROM distsys.rate_limit_http('{shadow,burst}', '{u1,u1}', '{2,1}');
SELECT allowed, status, violated FROM distsys.rate_limit_http('{shadow,day}', '{u1,u1}');

-- the older styles tell about the tightest limit
SELECT headers - 'X-RateLimit-Reset' AS headers,
       (headers ->> 'X-RateLimit-Reset')::bigint - extract(epoch FROM clock_timestamp()) BETWEEN 86300 AND 86401 AS reset
FROM distsys.rate_limit_http('{burst,day}', '{u4,u4}', '{1,3}', 'x');
SELECT headers - 'X-RateLimit-Reset' - 'Retry-After' AS headers, (headers ->> 'Retry-After')::int BETWEEN 28700 AND 28800 AS retry
FROM distsys.rate_limit_http('{burst,day}', '{u4,u4}', style => 'x');
SELECT headers - 'RateLimit-Reset' - 'Retry-After' AS headers, (headers ->> 'RateLimit-Reset')::int BETWEEN 86300 AND 86400 AS reset,
       (headers ->> 'Retry-After')::int BETWEEN 28700 AND 28800 AS retry
FROM distsys.rate_limit_http('{burst,day}', '{u4,u4}', style => 'draft06');

-- structured fields: quotes and backslashes in names, integers of at most 15 digits; parsed back by the grammar of RFC 9651
SELECT distsys.rate_limit_create('a "b" \c, d;e=1', quota => 9223372036854775807, period => '0.000001 s', quota_unit => 'q"\');
SELECT headers FROM distsys.rate_limit_http(ARRAY['a "b" \c, d;e=1'], '{k}', '{0}') \gset quoted_
SELECT :'quoted_headers'::jsonb ->> 'RateLimit-Policy' AS policy, :'quoted_headers'::jsonb ->> 'RateLimit' AS limits;
CREATE FUNCTION pg_temp.sf_list(field text) RETURNS boolean LANGUAGE sql AS $f$
    SELECT field ~ $re$^"([ !#-\[\]-~]|\\["\\])*"(;[a-z]+=(\d{1,15}|"([ !#-\[\]-~]|\\["\\])*"))*(, "([ !#-\[\]-~]|\\["\\])*"(;[a-z]+=(\d{1,15}|"([ !#-\[\]-~]|\\["\\])*"))*)*$$re$
$f$;
SELECT f.key, pg_temp.sf_list(f.value) FROM jsonb_each_text(:'quoted_headers'::jsonb) f
UNION ALL
SELECT f.key, pg_temp.sf_list(f.value) FROM distsys.rate_limit_http('{burst,bytes}', '{k,k}') h, jsonb_each_text(h.headers) f ORDER BY 1;

-- in the order of the request, whatever the order of the locks; a long list
SELECT count(*) FROM generate_series(1, 40) g, distsys.rate_limit_create('many' || g, quota => g, period => '1 h') c;
SELECT h.allowed, string_agg(m[1], ',' ORDER BY ord) = string_agg('many' || ord, ',' ORDER BY ord) AS in_order
FROM distsys.rate_limit_http((SELECT array_agg('many' || g ORDER BY g) FROM generate_series(1, 40) g), (SELECT array_agg('k'::text) FROM generate_series(1, 40) g)) h,
     regexp_matches(h.headers ->> 'RateLimit', '"(many\d+)"', 'g') WITH ORDINALITY r(m, ord)
GROUP BY h.allowed;
SELECT h.allowed, h.violated FROM distsys.rate_limit_http((SELECT array_agg('many' || g ORDER BY g) FROM generate_series(1, 40) g), (SELECT array_agg('k'::text) FROM generate_series(1, 40) g)) h;
SET distsys.max_keys_per_transaction = 20;
SELECT allowed FROM distsys.rate_limit_http((SELECT array_agg('many' || g) FROM generate_series(1, 40) g), (SELECT array_agg('z'::text) FROM generate_series(1, 40) g));
RESET distsys.max_keys_per_transaction;
SELECT count(*) AS rows FROM distsys.rate_limit_bucket WHERE key = 'z';

-- rolled back together
BEGIN;
SELECT allowed FROM distsys.rate_limit_http('{day,burst}', '{u7,u7}');
ROLLBACK;
SELECT p, t.remaining FROM unnest('{day,burst}'::text[]) p, LATERAL distsys.rate_limit_peek(p, 'u7') t ORDER BY 1;

-- bad arguments
\getenv helpers PG_ABS_SRCDIR
\set helper :helpers '/helper/fails.sql'
\i :helper
SELECT call, pg_temp.fails('distsys.rate_limit_http(' || call || ')') FROM (VALUES
    ($$NULL, '{k}'$$), ($$'{day}', NULL$$), ($$'{}', '{}'$$), ($$'{NULL}', '{k}'$$), ($$'{day}', '{NULL}'$$), ($$'{""}', '{k}'$$), ($$'{day}', '{""}'$$),
    ($$'{day,burst}', '{k}'$$), ($$'{day}', '{k,l}'$$), ($$'{day}', '{k}', '{1,2}'$$), ($$'{day}', '{k}', '{}'$$), ($$'{{day},{burst}}', '{k,k}'$$),
    ($$'{day}', '{k}', '{NULL}'$$), ($$'{day}', '{k}', '{-1}'$$), ($$'{day}', '{k}', '{{1}}'$$), ($$'{day}', '{k}', NULL$$),
    ($$'{nope}', '{k}'$$), ($$'{day,nope}', '{k,k}'$$), ($$'{day,burst,day}', '{k,k,k}'$$), ($$'{day,day}', '{k,k}', '{0,1}'$$),
    ($$ARRAY[repeat('p', 64)], '{k}'$$), ($$'{day}', ARRAY[repeat('k', 256)]$$), ($$ARRAY[E'd\t'], '{k}'$$),
    ($$'{day}', '{k}', style => 'IETF'$$), ($$'{day}', '{k}', style => ''$$), ($$'{day}', '{k}', style => NULL$$)) v(call);
SELECT count(*) AS locks_left FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';

-- who may call what
CREATE ROLE regress_rate_none;
CREATE ROLE regress_rate_app;
CREATE ROLE regress_rate_config;
CREATE ROLE regress_rate_operator;
SELECT distsys.access_grant('regress_rate_app', 'app') > 0 AS app, distsys.access_grant('regress_rate_config', 'config') > 0 AS config,
       distsys.access_grant('regress_rate_operator', 'operator') > 0 AS operator;
SELECT r.rolname, string_agg(p.proname, ', ' ORDER BY p.proname) FROM pg_roles r
LEFT JOIN pg_proc p ON p.pronamespace = 'distsys'::regnamespace AND p.proname ~ '^rate_limit_' AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
WHERE r.rolname ~ '^regress_rate_' GROUP BY r.rolname ORDER BY r.rolname;
SET ROLE regress_rate_app;
SELECT allowed FROM distsys.rate_limit_take('day', 'as app');
SELECT distsys.rate_limit_reset('day', 'as app');
SELECT distsys.rate_limit_create('mine', quota => 1, period => '1 s');
UPDATE distsys.rate_limit_bucket SET credit = 0;
DELETE FROM distsys.rate_limit_policy;
SET ROLE regress_rate_config;
SELECT distsys.rate_limit_alter('day', quota => 4);
UPDATE distsys.rate_limit_policy SET quota = 3 WHERE policy = 'day';
SELECT allowed FROM distsys.rate_limit_take('day', 'as config');
SET ROLE regress_rate_operator;
SELECT distsys.rate_limit_reset('day', 'as app');
SET ROLE regress_rate_none;
SELECT allowed FROM distsys.rate_limit_peek('day', 'k');
RESET ROLE;
SELECT distsys.access_revoke('regress_rate_app', 'app') > 0 AS app, distsys.access_revoke('regress_rate_config', 'config') > 0 AS config,
       distsys.access_revoke('regress_rate_operator', 'operator') > 0 AS operator;
DROP ROLE regress_rate_none, regress_rate_app, regress_rate_config, regress_rate_operator;

-- a limit that is full beyond the end of time
SELECT distsys.rate_limit_create('aeons', quota => 1, period => '1 us', burst => 9223372036854775807);
SELECT allowed FROM distsys.rate_limit_take('aeons', 'k', 9223372036854775807);
SELECT (h ->> 'X-RateLimit-Reset')::bigint > 9223372000000 AS reset FROM distsys.rate_limit_headers('{aeons}', '{k}', 'x') h;

SELECT distsys.rate_limit_drop(policy) AS dropped FROM (SELECT policy FROM distsys.rate_limit_policy ORDER BY policy) p GROUP BY 1;
DELETE FROM distsys.rate_limit_bucket;
