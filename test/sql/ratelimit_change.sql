-- A policy that changes: what becomes of keys in use, in four ways, over a change of the algorithm as well.
\set VERBOSITY sqlstate
SET client_min_messages = warning;

-- 4 of 10 are left; the quota becomes 20, then 5
CREATE FUNCTION pg_temp.left_over(way text, algorithm text, quota bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    result bigint;
BEGIN
    PERFORM distsys.rate_limit_create('moving', quota => 10, period => '10 h', algorithm => algorithm);
    PERFORM distsys.rate_limit_take('moving', 'k', 6);
    PERFORM distsys.rate_limit_alter('moving', quota => quota, on_change => way);
    result := remaining FROM distsys.rate_limit_peek('moving', 'k');
    -- a full one stays full
    IF (SELECT remaining FROM distsys.rate_limit_peek('moving', 'full')) <> quota THEN
        RAISE EXCEPTION 'not full';
    END IF;
    -- and what is taken then is counted by the new rule
    IF result > 0 AND (SELECT NOT allowed OR remaining <> result - 1 FROM distsys.rate_limit_take('moving', 'k')) THEN
        RAISE EXCEPTION 'not taken';
    END IF;
    PERFORM distsys.rate_limit_drop('moving');
    DELETE FROM distsys.rate_limit_bucket;
    RETURN result;
END
$$;
SELECT a, way, pg_temp.left_over(way, a, 20) AS "20", pg_temp.left_over(way, a, 5) AS "5"
FROM unnest('{token_bucket,sliding_window_log,sliding_window,fixed_window}'::text[]) a, unnest('{reset,proportionally,as_is,additive}'::text[]) way ORDER BY a, way;

-- from every algorithm to every other
CREATE FUNCTION pg_temp.turn(a text, b text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text := '';
    way text;
BEGIN
    FOREACH way IN ARRAY '{reset,proportionally,as_is,additive}'::text[] LOOP
        PERFORM distsys.rate_limit_create('moving', quota => 10, period => '10 h', algorithm => a);
        PERFORM distsys.rate_limit_take('moving', 'k', 6);
        PERFORM distsys.rate_limit_alter('moving', algorithm => b, quota => 20, period => CASE b WHEN 'calendar' THEN interval '1 year' END, on_change => way);
        result := result || (SELECT remaining FROM distsys.rate_limit_peek('moving', 'k')) || ' ';
        PERFORM distsys.rate_limit_take('moving', 'k');
        result := result || (SELECT remaining FROM distsys.rate_limit_peek('moving', 'k')) || ', ';
        PERFORM distsys.rate_limit_drop('moving');
        DELETE FROM distsys.rate_limit_bucket;
    END LOOP;
    RETURN result;
END
$$;
SELECT pg_temp.turn(a, b), count(*), CASE WHEN count(*) < 6 THEN array_agg(a || ' to ' || b ORDER BY a, b) END AS which
FROM unnest('{token_bucket,gcra,leaky_bucket,sliding_window_log,sliding_window,fixed_window}'::text[]) a,
     unnest('{token_bucket,gcra,leaky_bucket,sliding_window_log,sliding_window,fixed_window,calendar}'::text[]) b
WHERE a <> b GROUP BY 1;

-- debt is carried over, and forgiven by nothing but a reset
CREATE FUNCTION pg_temp.debt(a text, way text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    result bigint;
BEGIN
    PERFORM distsys.rate_limit_create('moving', quota => 10, period => '10 h', algorithm => a);
    PERFORM distsys.rate_limit_charge('moving', 'k', 15);
    PERFORM distsys.rate_limit_alter('moving', quota => 20, on_change => way);
    result := distsys.rate_limit_refund('moving', 'k', 1000000);
    PERFORM distsys.rate_limit_drop('moving');
    DELETE FROM distsys.rate_limit_bucket;
    RETURN result;
END
$$;
-- used up: 20 and what was owed, but for the moment that it took
SELECT a, way, pg_temp.debt(a, way) AS used FROM unnest('{token_bucket,fixed_window,sliding_window}'::text[]) a, unnest('{reset,proportionally,as_is,additive}'::text[]) way ORDER BY a, way;

-- a block outlives the change
SELECT distsys.rate_limit_create('moving', quota => 10, period => '10 h');
SELECT distsys.rate_limit_block('moving', 'k', '1 h', 'why');
SELECT distsys.rate_limit_alter('moving', quota => 20, algorithm => 'fixed_window');
SELECT allowed, reason FROM distsys.rate_limit_take('moving', 'k');
SELECT distsys.rate_limit_unblock('moving', 'k');
SELECT allowed, remaining FROM distsys.rate_limit_take('moving', 'k');

-- a window that is under way keeps its begin when only the quota changes
SELECT distsys.rate_limit_alter('moving', anchor => 'first_hit', on_change => 'reset');
SELECT allowed, reset_after FROM distsys.rate_limit_take('moving', 'window');
SET distsys.clock_offset = '4 h';
SELECT distsys.rate_limit_alter('moving', quota => 30);
SELECT allowed, remaining, reset_after BETWEEN '5 h 59 min' AND '6 h' AS reset FROM distsys.rate_limit_take('moving', 'window');
RESET distsys.clock_offset;

-- back and forth gains nothing
SELECT distsys.rate_limit_alter('moving', quota => 10, algorithm => 'token_bucket', on_change => 'reset');
SELECT allowed FROM distsys.rate_limit_take('moving', 'turn', 7);
DO $$
BEGIN
    FOR i IN 1 .. 10 LOOP
        PERFORM distsys.rate_limit_alter('moving', algorithm => (ARRAY['fixed_window', 'sliding_window', 'sliding_window_log', 'leaky_bucket', 'gcra'])[i % 5 + 1], quota => 7 + i);
        IF (SELECT allowed FROM distsys.rate_limit_take('moving', 'turn')) THEN
            PERFORM distsys.rate_limit_refund('moving', 'turn', 1);
        END IF;
    END LOOP;
    PERFORM distsys.rate_limit_alter('moving', algorithm => 'token_bucket', quota => 10);
END
$$;
SELECT remaining <= 3 AS no_more FROM distsys.rate_limit_peek('moving', 'turn');

SELECT distsys.rate_limit_drop('moving');
DELETE FROM distsys.rate_limit_bucket;
