-- Every algorithm: what it admits, when it says to come back, clocks that are set, calendars.
\set VERBOSITY sqlstate
SET client_min_messages = warning;

SELECT count(distsys.rate_limit_create(p, quota => 5, period => '10 h', algorithm => a, anchor => anchor)) AS created
FROM (VALUES ('token_bucket', 'token_bucket', 'epoch'), ('gcra', 'gcra', 'epoch'), ('leaky_bucket', 'leaky_bucket', 'epoch'),
             ('sliding_window_log', 'sliding_window_log', 'epoch'), ('sliding_window', 'sliding_window', 'epoch'),
             ('fixed_window', 'fixed_window', 'epoch'), ('first_hit', 'fixed_window', 'first_hit')) v(p, a, anchor);
SELECT distsys.rate_limit_create('calendar', quota => 5, period => '1 day', algorithm => 'calendar', time_zone => 'Pacific/Auckland');

CREATE FUNCTION pg_temp.at(ms bigint) RETURNS void LANGUAGE sql AS $$ SELECT set_config('distsys.clock_offset', ms::text, false) $$;
CREATE FUNCTION pg_temp.ms(i interval) RETURNS bigint LANGUAGE sql AS $$ SELECT ceil(extract(epoch FROM i) * 1000)::bigint $$;

-- a full one has its quota, one more is refused; a look and a refusal write nothing; a cost above the quota can never be
SELECT p.policy, new.remaining AS new, one.remaining AS one, rest.allowed AS rest, more.allowed, more.reason, more.remaining,
       more.retry_after > '0' AS retry, more.next_after > '0' AS next, more.reset_after >= more.retry_after AS reset, never.reason AS never
FROM distsys.rate_limit_policy p,
     LATERAL distsys.rate_limit_peek(p.policy, 'k') new,
     LATERAL distsys.rate_limit_take(p.policy, 'k' || left(new.key, 0)) one,
     LATERAL distsys.rate_limit_take(p.policy, 'k' || left(one.key, 0), 4) rest,
     LATERAL distsys.rate_limit_take(p.policy, 'k' || left(rest.key, 0)) more,
     LATERAL distsys.rate_limit_take(p.policy, 'k' || left(more.key, 0), 6) never
ORDER BY p.policy;

-- retry_after is enough, five seconds less is not; what comes bit by bit is exactly that much then
CREATE FUNCTION pg_temp.honest(policy text, cost bigint, OUT early boolean, OUT due boolean, OUT more boolean) LANGUAGE plpgsql AS $$
DECLARE
    retry bigint := pg_temp.ms(r.retry_after) FROM distsys.rate_limit_peek(policy, 'k', cost) r;
BEGIN
    PERFORM pg_temp.at(retry - 5000);
    early := allowed FROM distsys.rate_limit_peek(policy, 'k', cost);
    PERFORM pg_temp.at(retry);
    due := allowed FROM distsys.rate_limit_peek(policy, 'k', cost);
    more := allowed FROM distsys.rate_limit_peek(policy, 'k', cost + 1);
    PERFORM pg_temp.at(0);
END
$$;
SELECT p.policy, cost, h.early, h.due, CASE WHEN p.algorithm IN ('token_bucket', 'gcra', 'leaky_bucket', 'sliding_window') THEN h.more END AS more FROM distsys.rate_limit_policy p, generate_series(1, 4, 3) cost, pg_temp.honest(p.policy, cost) h ORDER BY p.policy, cost;
-- reset_after brings it back to full, five seconds less does not
CREATE FUNCTION pg_temp.full_at(policy text, OUT early bigint, OUT due bigint) LANGUAGE plpgsql AS $$
DECLARE
    reset bigint := pg_temp.ms(r.reset_after) FROM distsys.rate_limit_peek(policy, 'k') r;
BEGIN
    PERFORM pg_temp.at(reset - 5000);
    early := remaining FROM distsys.rate_limit_peek(policy, 'k');
    PERFORM pg_temp.at(reset);
    due := remaining FROM distsys.rate_limit_peek(policy, 'k');
    PERFORM pg_temp.at(0);
END
$$;
SELECT p.policy, f.early < 5 AS early, f.due FROM distsys.rate_limit_policy p, pg_temp.full_at(p.policy) f ORDER BY p.policy;

-- what they report: a cell of GCRA conforms at once while one is left; a leaky bucket says when it is its turn
SELECT r.remaining, r.next_after = '0' AS now FROM generate_series(1, 5) i, LATERAL distsys.rate_limit_take('gcra', 'report' || left(i::text, 0)) r;
SELECT r.remaining, justify_hours(date_trunc('minute', r.next_after + '1 s')) AS turn
FROM generate_series(1, 6) i, LATERAL distsys.rate_limit_take('leaky_bucket', 'report' || left(i::text, 0)) r WHERE r.allowed;
SELECT allowed, r.next_after BETWEEN '1 h 59 min' AND '2 h' AS next FROM distsys.rate_limit_take('leaky_bucket', 'report') r;

-- set back one hour: nothing is earned, and nobody is shut out for longer than a window; forward again: one burst at most
SELECT policy, (distsys.rate_limit_take(policy, 'clock', 5)).allowed FROM distsys.rate_limit_policy ORDER BY policy;
SET distsys.clock_step = '-1 h';
SELECT p.policy, r.allowed, r.retry_after <= '24 h' AS not_long FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_take(p.policy, 'clock') r ORDER BY p.policy;
RESET distsys.clock_step;
SET distsys.clock_step = '50 h';
SELECT policy, (distsys.rate_limit_take(policy, 'clock', 5)).allowed, (distsys.rate_limit_take(policy, 'clock')).allowed AS more FROM distsys.rate_limit_policy ORDER BY policy;
RESET distsys.clock_step;
SELECT policy, (distsys.rate_limit_take(policy, 'clock')).allowed FROM distsys.rate_limit_policy ORDER BY policy;

-- rollback and savepoint: exactly as before
SELECT count(*) FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_take(p.policy, 'tx', 2) r WHERE r.allowed;
CREATE TEMP TABLE before AS SELECT b.* FROM distsys.rate_limit_bucket b WHERE key = 'tx';
BEGIN;
SELECT count(*) FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_take(p.policy, 'tx', 2) r WHERE r.allowed;
SAVEPOINT s;
SELECT count(*) FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_take(p.policy, 'tx') r WHERE r.allowed;
ROLLBACK TO s;
SELECT count(*) FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_peek(p.policy, 'tx') r WHERE r.remaining = 1;
ROLLBACK;
SELECT count(*) FROM before JOIN distsys.rate_limit_bucket b ON b::text = before::text;

-- a refused call writes nothing
SELECT count(*) FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_take(p.policy, 'tx', 4) r WHERE NOT r.allowed;
SELECT count(*) FROM before JOIN distsys.rate_limit_bucket b ON b::text = before::text;
DROP TABLE before;

-- the log keeps the newest quota of times
SELECT cardinality(times), credit FROM distsys.rate_limit_bucket WHERE policy = 'sliding_window_log' AND key = 'k';

-- full ones go with the sweep, used ones stay
SET distsys.clock_offset = '3 h';
SELECT error FROM distsys.maintain() WHERE job = 'rate_limit_sweep';
SELECT count(DISTINCT policy) FROM distsys.rate_limit_bucket WHERE key = 'k' AND policy NOT IN ('sliding_window', 'fixed_window', 'calendar');
SET distsys.clock_offset = '48 h';
SELECT error FROM distsys.maintain() WHERE job = 'rate_limit_sweep';
SELECT count(*) FROM distsys.rate_limit_bucket WHERE policy <> 'calendar' AND key IN ('k', 'tx', 'report');
RESET distsys.clock_offset;

-- calendars: windows of every unit, over the changes of the clock
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT unit, at, w.* FROM (VALUES
    ('minute', 'UTC', timestamptz '2026-02-28 23:59:59.999999+00'), ('minute', 'UTC', '2026-03-01 00:00:00+00'),
    ('hour', 'UTC', '2026-02-28 23:59:59.999999+00'), ('hour', 'Asia/Kolkata', '2026-02-28 23:59:59+00'),
    ('day', 'UTC', '2026-02-28 23:59:59.999999+00'), ('day', 'Europe/Berlin', '2026-02-28 23:30:00+00'),
    ('week', 'UTC', '2026-03-01 12:00:00+00'), ('week', 'UTC', '2026-03-02 00:00:00+00'), ('week', 'Pacific/Auckland', '2026-03-01 12:00:00+00'),
    ('month', 'UTC', '2028-02-29 12:00:00+00'), ('month', 'UTC', '2026-12-31 23:59:59.999999+00'), ('month', 'America/New_York', '2026-03-01 04:59:59+00'),
    ('year', 'UTC', '2026-12-31 23:59:59.999999+00'), ('year', 'Pacific/Auckland', '2026-12-31 11:00:00+00')) v(unit, zone, at),
    LATERAL distsys._calendar_window(unit, zone, at) w;
-- 23 and 25 hours
SELECT at, w.begins, w.ends, w.ends - w.begins AS length FROM (VALUES
    ('Europe/Berlin', timestamptz '2026-03-29 00:30:00+00'), ('Europe/Berlin', '2026-03-29 01:00:00+00'),
    ('Europe/Berlin', '2026-10-25 00:30:00+00'), ('Europe/Berlin', '2026-10-25 22:59:59+00'), ('Europe/Berlin', '2026-10-25 23:00:00+00')) v(zone, at),
    LATERAL distsys._calendar_window('day', zone, at) w;
-- an hour that comes twice is two hours
SELECT at, w.* FROM (VALUES (timestamptz '2026-10-25 00:30:00+00'), ('2026-10-25 01:30:00+00')) v(at), LATERAL distsys._calendar_window('hour', 'Europe/Berlin', at) w;
-- a midnight that does not exist, one that comes twice
SELECT at, w.*, w.ends - w.begins AS length FROM (VALUES
    ('America/Asuncion', timestamptz '2020-10-04 03:59:59+00'), ('America/Asuncion', '2020-10-04 04:00:00+00'),
    ('Atlantic/Azores', '2020-10-24 23:59:59+00'), ('Atlantic/Azores', '2020-10-25 00:30:00+00'), ('Atlantic/Azores', '2020-10-25 01:00:00+00')) v(zone, at),
    LATERAL distsys._calendar_window('day', zone, at) w;
-- every moment is in its window, and the windows follow each other
SELECT unit, zone, bool_and(at >= w.begins AND at < w.ends) AS within, bool_and(next.begins = w.ends) AS follows
FROM unnest('{minute,hour,day,week,month,year}'::text[]) unit,
     unnest('{UTC,Europe/Berlin,America/Asuncion,Atlantic/Azores,Australia/Lord_Howe,Asia/Kathmandu,America/Havana}'::text[]) zone,
     generate_series(timestamptz '2020-01-01', '2021-01-02', '7 h 23 min') at,
     LATERAL distsys._calendar_window(unit, zone, at) w, LATERAL distsys._calendar_window(unit, zone, w.ends) next
GROUP BY unit, zone HAVING NOT bool_and(at >= w.begins AND at < w.ends AND next.begins = w.ends);
SELECT * FROM distsys._calendar_window('day', 'Mars/Olympus', now());
SELECT * FROM distsys._calendar_window('fortnight', 'UTC', now());
SELECT * FROM distsys._calendar_window('day', 'UTC', 'infinity');
SELECT * FROM distsys._calendar_window('day', 'UTC', NULL);
-- the quota counts to local midnight, and the header says how long this window is
SELECT r.retry_after = (w.ends - r.decided_at) AS to_midnight
FROM distsys.rate_limit_take('calendar', 'k', 5) t, LATERAL distsys.rate_limit_take('calendar', left(t.key, 1), 5) r,
     LATERAL distsys._calendar_window('day', 'Pacific/Auckland', r.decided_at) w WHERE r.retry_after IS NOT NULL;
SELECT (regexp_match(distsys.rate_limit_headers('{calendar}', '{k}') ->> 'RateLimit-Policy', 'w=(\d+)'))[1]::int = extract(epoch FROM w.ends - w.begins) AS w
FROM distsys._calendar_window('day', 'Pacific/Auckland', clock_timestamp()) w;

SELECT count(distsys.rate_limit_drop(policy)) FROM (SELECT policy FROM distsys.rate_limit_policy ORDER BY policy) p;
DELETE FROM distsys.rate_limit_bucket;
