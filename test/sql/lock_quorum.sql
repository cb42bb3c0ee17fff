-- How long a lock of a majority is good.
\set VERBOSITY sqlstate

CREATE FUNCTION pg_temp.state(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'SELECT ' || call;
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

-- a majority, and time left: the ttl less what has passed, one percent and 2 ms
SELECT nodes, granted, v IS NOT NULL AS good, v BETWEEN '9 s' AND '9.898 s' AS right_time
FROM (VALUES (1, 0), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 2), (4, 3), (5, 2), (5, 3), (1000, 500), (1000, 501)) n (nodes, granted),
     LATERAL distsys.quorum_validity(clock_timestamp(), '10 s', nodes, granted) v
ORDER BY 1, 2;
SELECT distsys.quorum_validity(clock_timestamp() - interval '4 s', '10 s', 3, 2) BETWEEN '5 s' AND '5.898 s' AS elapsed,
       distsys.quorum_validity(clock_timestamp() - interval '9.9 s', '10 s', 3, 3) AS too_late,
       distsys.quorum_validity(clock_timestamp() - interval '1 year', '10 s', 3, 3) AS much_too_late,
       distsys.quorum_validity(clock_timestamp(), '10 s', 3, 2, drift => 0) BETWEEN '9.1 s' AND '9.998 s' AS no_drift,
       distsys.quorum_validity(clock_timestamp(), '10 s', 3, 2, drift => 0.5) BETWEEN '4 s' AND '4.998 s' AS half,
       distsys.quorum_validity(clock_timestamp(), '100 ms', 3, 2, drift => 0.99) AS all_drift;
-- time passes by the clock of the server
SELECT clock_timestamp() AS started \gset
SET distsys.clock_offset = '6 s';
SELECT distsys.quorum_validity(:'started', '10 s', 3, 2) BETWEEN '3.0 s' AND '3.898 s' AS elapsed;
SET distsys.clock_offset = '9.9 s';
SELECT distsys.quorum_validity(:'started', '10 s', 3, 2) AS over;
RESET distsys.clock_offset;

-- bad input
SELECT label, pg_temp.state(format('distsys.quorum_validity(%s)', args))
FROM (VALUES (1, 'null started', $$NULL, '10 s', 3, 2$$), (2, 'null ttl', 'clock_timestamp(), NULL, 3, 2'), (3, 'null nodes', $$clock_timestamp(), '10 s', NULL, 2$$),
             (4, 'null granted', $$clock_timestamp(), '10 s', 3, NULL$$), (5, 'null drift', $$clock_timestamp(), '10 s', 3, 2, NULL$$),
             (6, 'infinite', $$'infinity', '10 s', 3, 2$$), (7, 'minus infinite', $$'-infinity', '10 s', 3, 2$$), (8, 'future', $$clock_timestamp() + interval '1 s', '10 s', 3, 2$$),
             (9, 'no nodes', $$clock_timestamp(), '10 s', 0, 0$$), (10, 'negative nodes', $$clock_timestamp(), '10 s', -1, 0$$), (11, 'too many nodes', $$clock_timestamp(), '10 s', 1001, 600$$),
             (12, 'negative granted', $$clock_timestamp(), '10 s', 3, -1$$), (13, 'granted > nodes', $$clock_timestamp(), '10 s', 3, 4$$),
             (14, 'negative drift', $$clock_timestamp(), '10 s', 3, 2, -0.01$$), (15, 'drift 1', $$clock_timestamp(), '10 s', 3, 2, 1$$), (16, 'NaN', $$clock_timestamp(), '10 s', 3, 2, 'NaN'$$),
             (17, 'huge drift', $$clock_timestamp(), '10 s', 3, 2, 1e100$$), (18, 'zero ttl', $$clock_timestamp(), '0', 3, 2$$), (19, 'negative ttl', $$clock_timestamp(), '-1 s', 3, 2$$),
             (20, '99 ms', $$clock_timestamp(), '99 ms', 3, 2$$), (21, '100 ms', $$clock_timestamp(), '100 ms', 3, 2$$), (22, '15 min', $$clock_timestamp(), '15 min', 3, 2$$),
             (23, '15 min 1 ms', $$clock_timestamp(), '15 min 1 ms', 3, 2$$), (24, 'month', $$clock_timestamp(), '1 mon', 3, 2$$)) v (i, label, args)
ORDER BY i;

-- it reads nothing: in a READ ONLY transaction, for the profile app
BEGIN READ ONLY;
SELECT distsys.quorum_validity(clock_timestamp(), '10 s', 3, 2) IS NOT NULL AS good;
ROLLBACK;
SELECT profile FROM distsys.access_object WHERE name = 'quorum_validity';
