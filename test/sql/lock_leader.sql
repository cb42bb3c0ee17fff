-- leaders: campaigns, terms, successors
\set VERBOSITY terse
CREATE FUNCTION pg_temp.state(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE 'SELECT ' || call; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;

SELECT count(*) AS leaders FROM distsys.leader_current('shard 1');
SELECT elected, reason, candidate, value, term AS t1, step_down_requested FROM distsys.leader_campaign('shard 1', 'node a', '30 s', value => '{"port": 5432}') \gset
SELECT :'elected' AS elected, :'reason' AS reason, :'candidate' AS candidate, :'value' AS value, :t1 > 0 AS term, :'step_down_requested' AS step_down;
SELECT elected, reason, candidate, value, term IS NULL AS no_term, ttl_remaining > '20 s' AS ttl FROM distsys.leader_campaign('shard 1', 'node b', '30 s');
-- the same candidate does not re-enter, the same request does
SELECT elected, reason FROM distsys.leader_campaign('shard 1', 'node a', '30 s');
SELECT elected, term AS r1 FROM distsys.leader_campaign('shard 2', 'node a', '30 s', request_id => '00000000-0000-0000-0000-000000000001') \gset
SELECT elected, term = :r1 AS same FROM distsys.leader_campaign('shard 2', 'node a', '30 s', request_id => '00000000-0000-0000-0000-000000000001');
SELECT elected, reason, candidate, value FROM distsys.leader_current('shard 1');
SELECT election, candidate, live, step_down_requested FROM distsys.leaders WHERE election LIKE 'shard%' ORDER BY election;
SELECT distsys.leader_proclaim('shard 1', :t1, '{"port": 5433}');
SELECT elected, value, step_down_requested FROM distsys.leader_renew('shard 1', :t1);
SELECT distsys.leader_assert('shard 1', :t1);
-- an election and a lease of the same name have nothing to do with each other
SELECT acquired FROM distsys.lease_acquire('shard 1', 'me', '30 s');
-- asked to step down
SELECT distsys.leader_request_step_down('shard 1', 'deploy'), distsys.leader_request_step_down('no election', 'deploy') AS nobody;
SELECT elected, step_down_requested FROM distsys.leader_renew('shard 1', :t1);
SELECT election, step_down_requested, step_down_reason FROM distsys.leaders WHERE election = 'shard 1';
-- resigns: with a successor nobody else is elected until the term would have ended
SELECT distsys.leader_resign('shard 1', :t1, 'node c'), distsys.leader_resign('shard 1', :t1) AS again;
SELECT count(*) AS leaders FROM distsys.leader_current('shard 1');
SELECT elected, reason FROM distsys.leader_campaign('shard 1', 'node b', '30 s');
SELECT elected, reason, term > :t1 AS higher, step_down_requested, value FROM distsys.leader_campaign('shard 1', 'node c', '30 s');
SELECT distsys.leader_resign('shard 1', term, 'node d') FROM distsys.leader_current('shard 1');
SET distsys.clock_offset = '31 s';
SELECT elected FROM distsys.leader_campaign('shard 1', 'node b', '30 s');
RESET distsys.clock_offset;
-- never leads
SELECT elected, reason, candidate FROM distsys.leader_campaign('shard 1', 'observer', '30 s', priority => -1);
SELECT elected, reason, candidate FROM distsys.leader_campaign('shard 9', 'observer', '30 s', priority => -1);
-- over
SELECT term AS t3 FROM distsys.leader_campaign('shard 3', 'node a', '1 s') \gset
SET distsys.clock_offset = '2 s';
SELECT pg_temp.state(format('distsys.leader_renew(''shard 3'', %s)', :t3)) AS renew, pg_temp.state(format('distsys.leader_assert(''shard 3'', %s)', :t3)) AS assert,
       pg_temp.state(format('distsys.leader_proclaim(''shard 3'', %s, ''1'')', :t3)) AS proclaim;
SELECT elected, term > :t3 AS higher FROM distsys.leader_campaign('shard 3', 'node b', '1 s');
RESET distsys.clock_offset;
SELECT event, owner, domain FROM distsys.lease_history WHERE name = 'shard 3';
\set VERBOSITY default
SELECT distsys.leader_renew('shard 3', :t3);
\set VERBOSITY terse
-- bad input
SELECT f AS call, pg_temp.state(f) AS state FROM unnest(ARRAY[
  $$distsys.leader_campaign(NULL, 'c', '1 s')$$, $$distsys.leader_campaign('e', NULL, '1 s')$$, $$distsys.leader_campaign('e', 'c', NULL)$$,
  $$distsys.leader_campaign('', 'c', '1 s')$$, $$distsys.leader_campaign('e', 'c', '1 ms')$$, $$distsys.leader_campaign('e', 'c', '1 h')$$,
  $$distsys.leader_campaign('e', 'c', '1 s', NULL)$$, $$distsys.leader_campaign('e', 'c', '1 s', '-1 s')$$, $$distsys.leader_campaign('e', 'c', '1 s', '1 h')$$,
  $$distsys.leader_campaign('e', 'c', '1 s', priority => NULL)$$, $$distsys.leader_campaign(repeat('x', 256), 'c', '1 s')$$, $$distsys.leader_campaign(E'a\nb', 'c', '1 s')$$,
  $$distsys.leader_campaign('e', 'c', '1 s', value => to_jsonb(repeat('x', 9000)))$$,
  $$distsys.leader_renew('e', 1)$$, $$distsys.leader_renew('e', 0)$$, $$distsys.leader_renew('e', NULL)$$, $$distsys.leader_renew(NULL, 1)$$,
  $$distsys.leader_proclaim('e', 1, '1')$$, $$distsys.leader_proclaim('e', -1, '1')$$, $$distsys.leader_resign('e', 1)$$, $$distsys.leader_resign('e', NULL)$$,
  $$distsys.leader_resign('e', 1, '')$$, $$distsys.leader_assert('e', 1)$$, $$distsys.leader_assert('e', 0)$$, $$distsys.leader_current(NULL)$$,
  $$distsys.leader_request_step_down('e', NULL)$$, $$distsys.leader_request_step_down(NULL, 'x')$$, $$distsys.leader_request_step_down('e', repeat('x', 1025))$$]) f;
BEGIN READ ONLY;
SELECT pg_temp.state($$distsys.leader_campaign('e', 'c', '1 s')$$) AS campaign, pg_temp.state($$distsys.leader_renew('e', 1)$$) AS renew,
       pg_temp.state($$distsys.leader_current('e')$$) AS current;
ROLLBACK;
SELECT count(*) AS key_locks FROM distsys.locks WHERE pid = pg_backend_pid();
-- housekeeping
SET distsys.clock_offset = '1 h';
SELECT count(error) AS errors FROM distsys.maintain();
SELECT count(*) AS elections FROM distsys.leaders;
RESET distsys.clock_offset;

-- the view locks knows the names
BEGIN;
SET LOCAL distsys.notice_in_transaction = off;
SELECT elected FROM distsys.leader_campaign('named', 'me', '1 s');
SELECT name, count(*) > 0 AS held FROM distsys.locks WHERE pid = pg_backend_pid() AND kind = 'leader' GROUP BY name;
ROLLBACK;
