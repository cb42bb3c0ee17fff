-- Limits of a subject: overrides, tiers, parents, the policy; ordinary SQL, effective at commit.
\set VERBOSITY sqlstate
SET client_min_messages = warning;

\getenv helpers PG_ABS_SRCDIR
\set helper :helpers '/helper/fails.sql'
\i :helper
-- what a subject's limits are: with a cost of 0 nothing is taken
CREATE FUNCTION pg_temp.limits(subject text) RETURNS TABLE (policy text, quota bigint, remaining bigint, reason text) LANGUAGE sql AS $$
    SELECT r.policy, r.quota, r.remaining, r.reason FROM distsys.rate_limit_take_for(subject, 0) r
$$;

SELECT distsys.rate_limit_create('burst', quota => 10, period => '10 h'), distsys.rate_limit_create('daily', quota => 100, period => '24 h', algorithm => 'fixed_window'),
       distsys.rate_limit_create('export', quota => 2, period => '10 h', burst => 3);

-- without tiers there is nothing to go by
SELECT pg_temp.fails($$SELECT * FROM distsys.rate_limit_take_for('acme')$$);
INSERT INTO distsys.rate_limit_tier (tier, parent) VALUES ('default', NULL), ('pro', 'default'), ('enterprise', 'pro');
SELECT pg_temp.fails($$SELECT * FROM distsys.rate_limit_take_for('acme')$$);
INSERT INTO distsys.rate_limit_tier_policy (tier, policy, quota, unlimited) VALUES
    ('default', 'burst', NULL, false), ('default', 'daily', 20, false), ('pro', 'daily', 200, false), ('pro', 'export', NULL, false), ('enterprise', 'daily', NULL, true);
-- a subject without a row is in tier 'default'; a child has its own limits and those of its parents that it does not set
SELECT policy, quota, remaining, reason FROM pg_temp.limits('nobody');
INSERT INTO distsys.rate_limit_subject (subject, tier) VALUES ('acme', 'pro'), ('umbrella', 'enterprise');
SELECT policy, quota, remaining, reason FROM pg_temp.limits('acme');
SELECT policy, quota, remaining, reason FROM pg_temp.limits('umbrella');

-- taking: all or nothing, the key is the subject
SELECT policy, key, allowed, within, quota, remaining FROM distsys.rate_limit_take_for('acme', 3);
SELECT policy, allowed, within, reason, remaining FROM distsys.rate_limit_take_for('acme', 3);
SELECT policy, allowed, within, reason, remaining FROM distsys.rate_limit_take_for('acme', 3, '{burst,daily}');
SELECT policy, allowed, reason, remaining FROM distsys.rate_limit_take_for('umbrella', 3, '{daily,burst}');
-- a named policy that the tier does not have is as it is
SELECT policy, allowed, quota, remaining FROM distsys.rate_limit_take_for('nobody', 1, '{export}');
-- the same state as a take by that key, which counts by the policy alone
SELECT quota, remaining FROM distsys.rate_limit_peek('burst', 'acme');

-- overrides: for a while
INSERT INTO distsys.rate_limit_override (subject, policy, quota, burst) VALUES ('acme', 'burst', 50, 60);
SELECT policy, quota, remaining FROM pg_temp.limits('acme') WHERE policy = 'burst';
UPDATE distsys.rate_limit_override SET valid_until = clock_timestamp() + interval '1 h';
SELECT quota FROM pg_temp.limits('acme') WHERE policy = 'burst';
SET distsys.clock_offset = '2 h';
SELECT quota FROM pg_temp.limits('acme') WHERE policy = 'burst';
RESET distsys.clock_offset;
UPDATE distsys.rate_limit_override SET unlimited = true, quota = NULL, burst = NULL;
SELECT policy, allowed, reason, retry_after FROM distsys.rate_limit_take_for('acme', 1000, '{burst}');
-- it changes a limit of the tier, it does not add one
INSERT INTO distsys.rate_limit_override (subject, policy, quota) VALUES ('nobody', 'export', 7);
SELECT policy FROM pg_temp.limits('nobody');
SELECT quota FROM distsys.rate_limit_take_for('nobody', 0, '{export}');
DELETE FROM distsys.rate_limit_override;
SELECT policy, quota FROM pg_temp.limits('acme') WHERE policy = 'burst';

-- tiers for a while
UPDATE distsys.rate_limit_subject SET valid_until = clock_timestamp() + interval '1 h' WHERE subject = 'umbrella';
SELECT policy, reason FROM pg_temp.limits('umbrella') WHERE policy = 'daily';
SET distsys.clock_offset = '2 h';
SELECT policy, quota, reason FROM pg_temp.limits('umbrella') WHERE policy = 'daily';
RESET distsys.clock_offset;

-- a change is seen at once here, undone by a rollback, whole tiers as well
BEGIN;
UPDATE distsys.rate_limit_tier_policy SET quota = 21 WHERE tier = 'default' AND policy = 'daily';
SELECT quota FROM pg_temp.limits('nobody') WHERE policy = 'daily';
SAVEPOINT s;
INSERT INTO distsys.rate_limit_tier_policy (tier, policy) VALUES ('default', 'export');
SELECT count(*) FROM pg_temp.limits('nobody');
ROLLBACK TO s;
SELECT count(*) FROM pg_temp.limits('nobody');
UPDATE distsys.rate_limit_tier SET parent = NULL WHERE tier = 'pro';
SELECT policy FROM pg_temp.limits('acme');
TRUNCATE distsys.rate_limit_tier_policy;
SELECT pg_temp.fails($$SELECT * FROM distsys.rate_limit_take_for('acme')$$);
ROLLBACK;
SELECT policy, quota FROM pg_temp.limits('nobody');
SELECT policy FROM pg_temp.limits('acme');

-- another quota carries the state over, as a change of the policy does
SELECT allowed, remaining FROM distsys.rate_limit_take_for('mover', 5, '{burst}');
INSERT INTO distsys.rate_limit_override (subject, policy, quota) VALUES ('mover', 'burst', 20);
SELECT quota, remaining FROM distsys.rate_limit_take_for('mover', 0, '{burst}');
SELECT remaining FROM distsys.rate_limit_take_for('mover', 1, '{burst}');
DELETE FROM distsys.rate_limit_override;
SELECT quota, remaining FROM distsys.rate_limit_take_for('mover', 0, '{burst}');

-- a policy that is in use stays
SELECT pg_temp.fails($$SELECT distsys.rate_limit_drop('daily')$$);
SELECT pg_temp.fails($$DELETE FROM distsys.rate_limit_policy WHERE policy = 'daily'$$);
INSERT INTO distsys.rate_limit_override (subject, policy, quota) VALUES ('acme', 'export', 7);
DELETE FROM distsys.rate_limit_tier_policy WHERE policy = 'export';
SELECT pg_temp.fails($$SELECT distsys.rate_limit_drop('export')$$);
DELETE FROM distsys.rate_limit_override;
SELECT distsys.rate_limit_drop('export');

-- what the tables refuse
SELECT row, pg_temp.fails(row) FROM (VALUES
    ($$INSERT INTO distsys.rate_limit_tier VALUES (NULL, NULL)$$), ($$INSERT INTO distsys.rate_limit_tier VALUES ('', NULL)$$), ($$INSERT INTO distsys.rate_limit_tier VALUES (repeat('t', 64), NULL)$$),
    ($$INSERT INTO distsys.rate_limit_tier VALUES (E'a\nb', NULL)$$), ($$INSERT INTO distsys.rate_limit_tier VALUES ('x', 'x')$$), ($$INSERT INTO distsys.rate_limit_tier VALUES ('x', 'nope')$$),
    ($$INSERT INTO distsys.rate_limit_tier VALUES ('pro', NULL)$$), ($$UPDATE distsys.rate_limit_tier SET parent = 'enterprise' WHERE tier = 'default'$$),
    ($$UPDATE distsys.rate_limit_tier SET tier = 'base' WHERE tier = 'default'$$), ($$INSERT INTO distsys.rate_limit_tier SELECT 'level' || i, 'level' || (i - 1) FROM generate_series(1, 33) i$$),
    ($$INSERT INTO distsys.rate_limit_tier SELECT 'level' || i, CASE WHEN i > 0 THEN 'level' || (i - 1) END FROM generate_series(0, 33) i$$), ($$DELETE FROM distsys.rate_limit_tier WHERE tier = 'default'$$), ($$DELETE FROM distsys.rate_limit_tier WHERE tier = 'pro'$$),
    ($$INSERT INTO distsys.rate_limit_tier_policy (tier, policy) VALUES ('nope', 'burst')$$), ($$INSERT INTO distsys.rate_limit_tier_policy (tier, policy) VALUES ('pro', 'nope')$$),
    ($$INSERT INTO distsys.rate_limit_tier_policy (tier, policy, quota) VALUES ('pro', 'burst', 0)$$), ($$INSERT INTO distsys.rate_limit_tier_policy (tier, policy, burst) VALUES ('pro', 'burst', -1)$$),
    ($$INSERT INTO distsys.rate_limit_tier_policy (tier, policy, period) VALUES ('pro', 'burst', '0')$$), ($$INSERT INTO distsys.rate_limit_tier_policy (tier, policy, period) VALUES ('pro', 'burst', '1 month')$$),
    ($$INSERT INTO distsys.rate_limit_tier_policy (tier, policy) VALUES ('pro', 'daily')$$),
    ($$INSERT INTO distsys.rate_limit_subject VALUES (NULL, 'pro')$$), ($$INSERT INTO distsys.rate_limit_subject VALUES ('', 'pro')$$), ($$INSERT INTO distsys.rate_limit_subject VALUES (repeat('s', 256), 'pro')$$),
    ($$INSERT INTO distsys.rate_limit_subject VALUES ('x', 'nope')$$), ($$INSERT INTO distsys.rate_limit_subject VALUES ('acme', 'pro')$$),
    ($$INSERT INTO distsys.rate_limit_override (subject, policy) VALUES ('x', 'nope')$$), ($$INSERT INTO distsys.rate_limit_override (subject, policy, quota) VALUES ('x', 'burst', 0)$$)) v(row);
-- what only shows when it is used; a circle that came in past the trigger does as well
SET session_replication_role = replica;
UPDATE distsys.rate_limit_tier SET parent = 'enterprise' WHERE tier = 'default';
RESET session_replication_role;
SELECT pg_temp.fails($$SELECT * FROM distsys.rate_limit_take_for('acme')$$);
UPDATE distsys.rate_limit_tier SET parent = NULL WHERE tier = 'default';
UPDATE distsys.rate_limit_tier_policy SET quota = 9223372036854775807 WHERE tier = 'default';
SELECT pg_temp.fails($$SELECT * FROM distsys.rate_limit_take_for('nobody')$$);
UPDATE distsys.rate_limit_tier_policy SET quota = 20 WHERE tier = 'default';

-- an override that comes and goes carries over proportionally, whatever the last change of the policy said
SELECT distsys.rate_limit_create('carried', quota => 10, period => '300 days'), distsys.rate_limit_alter('carried', quota => 20, on_change => 'reset');
SET distsys.clock_offset = '1 min';
SELECT allowed, remaining FROM distsys.rate_limit_take_for('carl', 15, '{carried}');
INSERT INTO distsys.rate_limit_override (subject, policy, quota) VALUES ('carl', 'carried', 40);
SELECT allowed, quota, remaining FROM distsys.rate_limit_take_for('carl', 2, '{carried}');
DELETE FROM distsys.rate_limit_override WHERE subject = 'carl';
SELECT allowed, quota, remaining FROM distsys.rate_limit_take_for('carl', 2, '{carried}');
SELECT distsys.rate_limit_alter('carried', quota => 30, on_change => 'reset');
SELECT allowed, quota, remaining FROM distsys.rate_limit_take_for('carl', 2, '{carried}');
RESET distsys.clock_offset;
SELECT distsys.rate_limit_drop('carried');

-- bad arguments
SELECT call, pg_temp.fails('SELECT * FROM distsys.rate_limit_take_for(' || call || ')') FROM (VALUES
    ($$NULL$$), ($$''$$), ($$repeat('s', 256)$$), ($$E'a\nb'$$), ($$'acme', NULL$$), ($$'acme', -1$$), ($$'acme', 0$$), ($$'acme', 1, '{}'$$), ($$'acme', 1, '{nope}'$$),
    ($$'acme', 1, '{NULL}'$$), ($$'acme', 1, '{burst,burst}'$$), ($$'acme', 1, '{{burst}}'$$), ($$repeat('s', 255), 1$$)) v(call);
BEGIN READ ONLY;
SELECT * FROM distsys.rate_limit_take_for('acme');
ROLLBACK;
SELECT count(*) AS locks_left FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';

-- who may
CREATE ROLE regress_tier_app;
CREATE ROLE regress_tier_config;
SELECT distsys.access_grant('regress_tier_app', 'app') > 0 AND distsys.access_grant('regress_tier_config', 'config') > 0 AS granted;
SET ROLE regress_tier_app;
SELECT count(*) FROM distsys.rate_limit_take_for('acme');
SELECT pg_temp.fails($$UPDATE distsys.rate_limit_subject SET tier = 'enterprise'$$);
SET ROLE regress_tier_config;
SELECT pg_temp.fails($$SELECT * FROM distsys.rate_limit_take_for('acme')$$);
INSERT INTO distsys.rate_limit_tier (tier) VALUES ('free');
INSERT INTO distsys.rate_limit_tier_policy (tier, policy, quota) VALUES ('free', 'burst', 1);
INSERT INTO distsys.rate_limit_subject (subject, tier) VALUES ('joe', 'free');
INSERT INTO distsys.rate_limit_override (subject, policy, quota) VALUES ('joe', 'burst', 2);
RESET ROLE;
SELECT policy, quota FROM pg_temp.limits('joe');
SELECT distsys.access_revoke('regress_tier_app', 'app') > 0 AND distsys.access_revoke('regress_tier_config', 'config') > 0 AS revoked;
DROP ROLE regress_tier_app, regress_tier_config;

DELETE FROM distsys.rate_limit_override;
DELETE FROM distsys.rate_limit_subject;
DELETE FROM distsys.rate_limit_tier;
SELECT count(*) FROM distsys.rate_limit_tier_policy;
SELECT count(distsys.rate_limit_drop(policy)) FROM (SELECT policy FROM distsys.rate_limit_policy ORDER BY policy) p;
DELETE FROM distsys.rate_limit_bucket;
