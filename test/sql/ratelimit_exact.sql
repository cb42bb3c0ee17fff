-- The promises of the token bucket, tested over admit logs: never more than burst + quota / period * t in any window, never
-- less under saturation than that minus one, refusals write nothing, a clock that steps, a policy that changes.
\set VERBOSITY sqlstate
SET client_min_messages = warning;

CREATE TEMP TABLE admits (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz, cost bigint);

-- takes until refused, over and over, while time passes in uneven steps; logs what was admitted
CREATE PROCEDURE pg_temp.saturate(policy text, steps int, max_step_ms int, max_cost int) LANGUAGE plpgsql AS $$
DECLARE
    clock bigint := extract(epoch FROM current_setting('distsys.clock_offset')::interval) * 1000;
    r distsys.rate_limit_result;
    cost bigint;
BEGIN
    FOR i IN 1 .. steps LOOP
        clock := clock + (random() * max_step_ms)::int;
        PERFORM set_config('distsys.clock_offset', clock::text, false);
        LOOP
            cost := 1 + (random() * (max_cost - 1))::int;
            SELECT * INTO r FROM distsys.rate_limit_take(saturate.policy, 'hot', cost);
            EXIT WHEN NOT r.allowed;
            INSERT INTO admits (at, cost) VALUES (r.decided_at, cost);
        END LOOP;
    END LOOP;
END
$$;

-- how far the fullest window is above the bound, in tokens: 0 or less is right. One pass over the log.
CREATE FUNCTION pg_temp.above_bound(q numeric, period_us numeric, burst numeric) RETURNS boolean LANGUAGE sql AS $$
    WITH a AS (SELECT id, extract(epoch FROM at) * 1000000 AS t_us, cost, sum(cost) OVER (ORDER BY at, id) AS cum FROM admits),
         x AS (SELECT id, t_us, cum * period_us - q * t_us AS hi, (cum - cost) * period_us - q * t_us AS lo FROM a),
         s AS (SELECT hi, min(lo) OVER (ORDER BY t_us, id ROWS UNBOUNDED PRECEDING) AS mn FROM x)
    SELECT bool_or(hi - mn > burst * period_us) FROM s
$$;
-- under saturation by single tokens: admitted in the whole log against burst + rate * time - 1, up to the last admission
CREATE FUNCTION pg_temp.below_bound(q numeric, period_us numeric, burst numeric) RETURNS boolean LANGUAGE sql AS $$
    SELECT sum(cost) * period_us < (burst - 1) * period_us + q * extract(epoch FROM max(at) - min(at)) * 1000000 FROM admits
$$;

SELECT setseed(0.42) IS NOT NULL AS seeded;
SELECT distsys.rate_limit_create('seven', quota => 7, period => '1 s');
CALL pg_temp.saturate('seven', 2000, 400, 1);
SELECT count(*) > 2000 AS many, pg_temp.above_bound(7, 1000000, 7) AS above, pg_temp.below_bound(7, 1000000, 7) AS below FROM admits;
-- the check finds one token too many
INSERT INTO admits (at, cost) SELECT at, 8 FROM admits ORDER BY id OFFSET 1000 LIMIT 1;
SELECT pg_temp.above_bound(7, 1000000, 7) AS above;

-- costs of 1 to 9, a burst that is not the quota
TRUNCATE admits;
SELECT distsys.rate_limit_create('costs', quota => 100, period => '7 s', burst => 13);
CALL pg_temp.saturate('costs', 1500, 700, 9);
SELECT count(*) > 500 AS many, pg_temp.above_bound(100, 7000000, 13) AS above FROM admits;

-- a rate whose interval is no whole number of microseconds: rounding it would admit 43 % too much
TRUNCATE admits;
SELECT distsys.rate_limit_create('fast', quota => 700000, period => '1 s', burst => 1000000);
SELECT allowed FROM distsys.rate_limit_take('fast', 'k', 1000000);
SELECT credit, updated_at FROM distsys.rate_limit_bucket WHERE policy = 'fast' \gset fast_
SELECT decided_at, remaining FROM distsys.rate_limit_peek('fast', 'k') \gset fast_
SELECT :fast_remaining = least(1000000, trunc((:fast_credit + extract(epoch FROM :'fast_decided_at'::timestamptz - :'fast_updated_at'::timestamptz) * 1000000 * 700000) / 1000000)) AS exact;

-- 100,000 refused calls: no WAL, no tuple, no transaction id
SELECT distsys.rate_limit_create('closed', quota => 1, period => '300 days');
SELECT allowed FROM distsys.rate_limit_take('closed', 'k');
CREATE FUNCTION pg_temp.writes() RETURNS bigint LANGUAGE sql AS $$
    SELECT pg_stat_get_xact_tuples_inserted(c) + pg_stat_get_xact_tuples_updated(c) + pg_stat_get_xact_tuples_deleted(c)
    FROM (SELECT 'distsys.rate_limit_bucket'::regclass::oid AS c) r
$$;
CREATE FUNCTION pg_temp.wal_of_refusals(calls int, OUT refused bigint, OUT same_wal boolean, OUT writes bigint, OUT xid xid8) LANGUAGE plpgsql AS $$
DECLARE
    before pg_lsn;
    writes_before bigint := pg_temp.writes();
BEGIN
    -- another process may write WAL meanwhile: three tries
    FOR try IN 1 .. 3 LOOP
        before := pg_current_wal_insert_lsn();
        SELECT count(*) INTO refused FROM generate_series(1, calls) g, LATERAL distsys.rate_limit_take('closed', left('k' || g, 1)) t WHERE NOT t.allowed;
        same_wal := pg_current_wal_insert_lsn() = before;
        EXIT WHEN same_wal;
    END LOOP;
    writes := pg_temp.writes() - writes_before;
    xid := pg_current_xact_id_if_assigned();
END
$$;
SELECT * FROM pg_temp.wal_of_refusals(100000);
SELECT count(*) AS rows, sum(credit) >= 0 AS credit FROM distsys.rate_limit_bucket WHERE policy = 'closed';

-- updates of a bucket are HOT
SELECT distsys.rate_limit_create('warm', quota => 1000000, period => '1 s');
SELECT count(*) FROM generate_series(1, 200) g, LATERAL distsys.rate_limit_take('warm', left('k' || g, 1)) t WHERE t.allowed;
DO $$
DECLARE
    hot bigint := pg_stat_get_xact_tuples_hot_updated('distsys.rate_limit_bucket'::regclass);
    updated bigint := pg_stat_get_xact_tuples_updated('distsys.rate_limit_bucket'::regclass);
BEGIN
    FOR i IN 1 .. 20 LOOP
        PERFORM distsys.rate_limit_take('warm', 'k');
    END LOOP;
    RAISE WARNING USING ERRCODE = CASE
        WHEN pg_stat_get_xact_tuples_updated('distsys.rate_limit_bucket'::regclass) - updated = 20
         AND pg_stat_get_xact_tuples_hot_updated('distsys.rate_limit_bucket'::regclass) - hot >= 18 THEN '01HOT' ELSE '01BAD' END;
END
$$;

-- the clock is set back one hour: nothing is earned, and nobody is locked out for longer than a refill
RESET distsys.clock_offset;
SELECT distsys.rate_limit_create('clock', quota => 5, period => '1 min');
SET distsys.clock_step = '1 h';
SELECT count(*) FILTER (WHERE allowed) AS allowed FROM generate_series(1, 9) g, LATERAL distsys.rate_limit_take('clock', left('k' || g, 1)) t;
SET distsys.clock_step = 0;
SELECT allowed, remaining, retry_after BETWEEN '9 s' AND '12 s' AS retry FROM distsys.rate_limit_peek('clock', 'k');
-- the first refusal writes the new start, the others nothing
SELECT updated_at AS at FROM distsys.rate_limit_bucket WHERE policy = 'clock' \gset step0_
SELECT allowed, remaining, retry_after BETWEEN '9 s' AND '12 s' AS retry FROM distsys.rate_limit_take('clock', 'k');
SELECT updated_at AS at FROM distsys.rate_limit_bucket WHERE policy = 'clock' \gset step1_
SELECT allowed, remaining, retry_after BETWEEN '9 s' AND '12 s' AS retry FROM distsys.rate_limit_take('clock', 'k');
SELECT updated_at AS at FROM distsys.rate_limit_bucket WHERE policy = 'clock' \gset step2_
SELECT :'step1_at'::timestamptz < :'step0_at'::timestamptz AS written, :'step1_at' = :'step2_at' AS once;
SET distsys.clock_offset = '12 s';
SELECT allowed, remaining FROM distsys.rate_limit_take('clock', 'k');
SELECT allowed, remaining FROM distsys.rate_limit_take('clock', 'k');
-- forward again: one burst, no more
SET distsys.clock_step = '1 h';
SELECT count(*) FILTER (WHERE allowed) AS allowed FROM generate_series(1, 9) g, LATERAL distsys.rate_limit_take('clock', left('k' || g, 1)) t;
-- jitter of less than a second is waited out: the limiter's clock stands, and retry_after says for how long
RESET distsys.clock_offset;
SET distsys.clock_step = '10 h';
SELECT allowed, decided_at FROM distsys.rate_limit_take('clock', 'jitter', 5) \gset jitter0_
SET distsys.clock_step = '35999100 ms';
SELECT allowed, decided_at = :'jitter0_decided_at' AS stands, retry_after > '12 s' AS retry FROM distsys.rate_limit_take('clock', 'jitter');
RESET distsys.clock_step;
-- in shadow too
SELECT distsys.rate_limit_create('clock shadow', quota => 1, period => '1 min', mode => 'shadow');
SET distsys.clock_step = '1 h';
SELECT reason FROM distsys.rate_limit_take('clock shadow', 'k');
RESET distsys.clock_step;
SELECT reason FROM distsys.rate_limit_take('clock shadow', 'k');
SET distsys.clock_offset = '61 s';
SELECT reason FROM distsys.rate_limit_take('clock shadow', 'k');
RESET distsys.clock_offset;

-- a policy that changes: what becomes of a bucket with 2 of 10 tokens
SELECT distsys.rate_limit_create(p, quota => 10, period => '300 days') FROM unnest('{up proportionally,up as_is,up additive,up reset,down proportionally,down as_is,down additive,down reset}'::text[]) p;
SELECT count(*) FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_take(p.policy, 'k', 8) t WHERE p.policy ~ '^(up|down) ' AND t.allowed;
SELECT count(*) FROM distsys.rate_limit_policy p,
    LATERAL distsys.rate_limit_alter(p.policy, quota => CASE WHEN p.policy ~ '^up' THEN 20 ELSE 5 END, on_change => split_part(p.policy, ' ', 2)) a
WHERE p.policy ~ '^(up|down) ';
SELECT p.policy, t.quota, t.remaining FROM distsys.rate_limit_policy p, LATERAL distsys.rate_limit_peek(p.policy, 'k') t WHERE p.policy ~ '^(up|down) ' ORDER BY 1;
-- a full bucket stays full, whether its row is still there or not
SELECT distsys.rate_limit_create('stays', quota => 10, period => '1 min');
SELECT allowed FROM distsys.rate_limit_take('stays', 'k', 1);
SET distsys.clock_offset = '1 h';
SELECT distsys.rate_limit_alter('stays', quota => 20, on_change => 'as_is');
SELECT remaining FROM distsys.rate_limit_peek('stays', 'k');
RESET distsys.clock_offset;
-- the take carries it over for good, and a key that nobody has used is full
SELECT allowed, remaining FROM distsys.rate_limit_take('up additive', 'k', 12);
SELECT allowed, remaining FROM distsys.rate_limit_take('up additive', 'k', 1);
SELECT allowed, remaining FROM distsys.rate_limit_take('up additive', 'new', 20);
-- another period: the time before the change counts by the old one. 2, and 20 h at 10 per 200 h make 3; 3 h at 10 per 10 h make 6
SELECT distsys.rate_limit_create('period', quota => 10, period => '200 h');
SELECT allowed FROM distsys.rate_limit_take('period', 'k', 8);
SET distsys.clock_offset = '20 h';
SELECT distsys.rate_limit_alter('period', period => '10 h');
SELECT remaining FROM distsys.rate_limit_peek('period', 'k');
SET distsys.clock_offset = '23 h';
SELECT remaining FROM distsys.rate_limit_peek('period', 'k');
RESET distsys.clock_offset;

-- under load: changed back and forth, never above the larger bound
TRUNCATE admits;
SELECT distsys.rate_limit_create('moving', quota => 10, period => '1 s', burst => 20);
DO $$
DECLARE
    r distsys.rate_limit_result;
    clock bigint := 0;
    ways text[] := '{proportionally,as_is}';
BEGIN
    FOR i IN 1 .. 600 LOOP
        clock := clock + (random() * 300)::int;
        PERFORM set_config('distsys.clock_offset', clock::text, false);
        IF i % 7 = 0 THEN
            PERFORM distsys.rate_limit_alter('moving', quota => 5 + 5 * (i % 2), burst => 10 + 10 * (i % 2), on_change => ways[1 + i % 2]);
        END IF;
        LOOP
            SELECT * INTO r FROM distsys.rate_limit_take('moving', 'hot');
            EXIT WHEN NOT r.allowed;
            INSERT INTO admits (at, cost) VALUES (r.decided_at, 1);
        END LOOP;
    END LOOP;
END
$$;
RESET distsys.clock_offset;
SELECT count(*) > 300 AS many, pg_temp.above_bound(10, 1000000, 20) AS above FROM admits;

-- what the sweep removes is a full bucket: nothing is won or lost
SELECT distsys.rate_limit_create('swept', quota => 10, period => '10 h');
SELECT count(*) FROM unnest('{a,b,c}'::text[]) k, LATERAL distsys.rate_limit_take('swept', k, CASE k WHEN 'a' THEN 1 ELSE 9 END) t WHERE t.allowed;
SET distsys.clock_offset = '2 h';
SELECT error FROM distsys.maintain() WHERE job = 'rate_limit_sweep';
SELECT key FROM distsys.rate_limit_bucket WHERE policy = 'swept' ORDER BY key;
SELECT k, t.remaining FROM unnest('{a,b,c}'::text[]) k, LATERAL distsys.rate_limit_peek('swept', k) t ORDER BY k;
RESET distsys.clock_offset;

SELECT distsys.rate_limit_drop(policy) AS dropped FROM (SELECT policy FROM distsys.rate_limit_policy ORDER BY policy) p GROUP BY 1;
DELETE FROM distsys.rate_limit_bucket;
