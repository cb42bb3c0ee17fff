-- The log of what was admitted, and how far it goes beyond a rate.
CREATE TABLE admits (id bigint GENERATED ALWAYS AS IDENTITY, run text, key text, at timestamptz, cost bigint);
-- how many tokens the fullest window of any key holds beyond q / period * its length
CREATE FUNCTION fullest(run text, q numeric, period_us numeric) RETURNS numeric LANGUAGE sql AS $$
    WITH a AS (SELECT key, id, extract(epoch FROM at) * 1000000 AS t_us, cost, sum(cost) OVER (PARTITION BY key ORDER BY at, id) AS cum
               FROM admits WHERE admits.run = fullest.run),
         x AS (SELECT key, id, t_us, cum * period_us - q * t_us AS hi, (cum - cost) * period_us - q * t_us AS lo FROM a),
         s AS (SELECT hi, min(lo) OVER (PARTITION BY key ORDER BY t_us, id ROWS UNBOUNDED PRECEDING) AS mn FROM x)
    SELECT max(hi - mn) / period_us FROM s
$$;
