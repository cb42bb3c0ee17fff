-- Who may call what: PUBLIC nothing, roles by profile.
\set VERBOSITY sqlstate
SET client_min_messages = warning;
CREATE ROLE regress_access_app;
CREATE ROLE "regress_access Odd""Name";

-- PUBLIC has nothing at all
SELECT has_schema_privilege('regress_access_app', 'distsys', 'USAGE') AS schema_usage;
SELECT p.oid::regprocedure AS executable_by_public FROM pg_proc p
WHERE p.pronamespace = 'distsys'::regnamespace AND has_function_privilege('regress_access_app', p.oid, 'EXECUTE') ORDER BY 1;
SELECT c.oid::regclass AS readable_by_public FROM pg_class c
WHERE c.relnamespace = 'distsys'::regnamespace AND c.relkind IN ('r', 'v', 'S')
  AND has_table_privilege('regress_access_app', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') ORDER BY 1;
SELECT t.oid::regtype AS usable_by_public FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typnamespace = 'distsys'::regnamespace AND c.relkind = 'c' AND has_type_privilege('regress_access_app', t.oid, 'USAGE') ORDER BY 1;
SET ROLE regress_access_app;
SELECT * FROM distsys.lease_get('a');
SELECT * FROM distsys.access_grant('regress_access_app', 'operator');
RESET ROLE;

-- every object that a profile names is there, and every view has its profile
SELECT o.* FROM distsys.access_object o
WHERE NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'distsys'::regnamespace AND p.proname = o.name AND o.kind = 'routine')
  AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = 'distsys'::regnamespace AND c.relname = o.name AND o.kind <> 'routine');
SELECT c.relname AS view_without_profile FROM pg_class c
WHERE c.relnamespace = 'distsys'::regnamespace AND c.relkind = 'v'
  AND NOT EXISTS (SELECT FROM distsys.access_object o WHERE o.name = c.relname AND o.kind IN ('view', 'table')) ORDER BY 1;
-- and every function that is not internal; triggers are called by nobody
SELECT DISTINCT p.proname AS routine_without_profile FROM pg_proc p
WHERE p.pronamespace = 'distsys'::regnamespace AND p.proname NOT LIKE '\_%' AND p.prorettype <> 'trigger'::regtype
  AND NOT EXISTS (SELECT FROM distsys.access_object o WHERE o.name = p.proname AND o.kind = 'routine') ORDER BY 1;
-- names are unique, so that a profile can name them
SELECT proname AS overloaded FROM pg_proc WHERE pronamespace = 'distsys'::regnamespace GROUP BY 1 HAVING count(*) > 1;

-- a profile gives what it says and no more
SELECT distsys.access_grant('regress_access_app', 'app') = (SELECT count(*) FROM distsys.access_object WHERE profile = 'app') AS granted;
SELECT distsys.access_grant('regress_access_app', 'app') = (SELECT count(*) FROM distsys.access_object WHERE profile = 'app') AS again;
SELECT grantee, profile FROM distsys.access;
SET ROLE regress_access_app;
SELECT acquired FROM distsys.lease_acquire('access_test', 'me', '10 s');
SELECT distsys.lease_release('access_test', token) FROM distsys.lease_get('access_test');
SELECT * FROM distsys.maintain();
SELECT * FROM distsys.stats;
SELECT distsys.access_grant('regress_access_app', 'operator');
INSERT INTO distsys.access VALUES ('regress_access_app', 'operator');
SELECT * FROM distsys.token_state;
RESET ROLE;

-- revoke takes back what no other profile gives
SELECT distsys.access_grant('regress_access_app', 'operator') > 0 AS granted;
SET ROLE regress_access_app;
SELECT count(error) FROM distsys.maintain();
-- an operator can give profiles, also to himself
SELECT distsys.access_grant('regress_access_app', 'monitor') > 0 AS granted;
SELECT distsys.access_revoke('regress_access_app', 'monitor') > 0 AS revoked;
RESET ROLE;
SELECT distsys.access_revoke('regress_access_app', 'app') > 0 AS revoked;
SET ROLE regress_access_app;
SELECT count(error) FROM distsys.maintain();
SELECT library IS NOT NULL AS version FROM distsys.version();
SELECT acquired FROM distsys.lease_acquire('access_test', 'me', '10 s');
RESET ROLE;
SELECT distsys.access_revoke('regress_access_app', 'operator') > 0 AS revoked;
SELECT distsys.access_revoke('regress_access_app', 'operator') AS again;
SELECT has_schema_privilege('regress_access_app', 'distsys', 'USAGE') AS schema_usage;
SELECT p.oid::regprocedure AS left_over FROM pg_proc p
WHERE p.pronamespace = 'distsys'::regnamespace AND has_function_privilege('regress_access_app', p.oid, 'EXECUTE') ORDER BY 1;
SELECT count(*) FROM distsys.access;

-- every profile can be given; pg_monitor has one from the start
SELECT profile, distsys.access_grant('regress_access Odd"Name', profile) > 0 AS granted
FROM unnest(ARRAY['app', 'consumer', 'config', 'operator', 'monitor']) profile;
SELECT grantee, profile FROM distsys.access ORDER BY profile;
SELECT has_schema_privilege('pg_monitor', 'distsys', 'USAGE') AS schema_usage, has_table_privilege('pg_monitor', 'distsys.stats', 'SELECT') AS stats,
       has_function_privilege('pg_monitor', 'distsys._stats()', 'EXECUTE') AS helper, has_function_privilege('pg_monitor', 'distsys.maintain()', 'EXECUTE') AS maintain;

-- apply gives again what an update would have brought
REVOKE EXECUTE ON FUNCTION distsys.maintain() FROM "regress_access Odd""Name";
SELECT distsys.access_apply() = (SELECT count(*) FROM distsys.access_object) AS applied;
SELECT has_function_privilege('regress_access Odd"Name', 'distsys.maintain()', 'EXECUTE') AS maintain;

-- rollback takes the grant and the memory of it
BEGIN;
SELECT distsys.access_grant('regress_access_app', 'app') > 0 AS granted;
ROLLBACK;
SELECT has_function_privilege('regress_access_app', 'distsys.version()', 'EXECUTE') AS version;
SELECT count(*) FROM distsys.access WHERE grantee = 'regress_access_app'::regrole;

-- a role that was dropped is forgotten
DROP OWNED BY "regress_access Odd""Name";
DROP ROLE "regress_access Odd""Name";
SELECT distsys.access_apply() AS applied;
SELECT count(*) FROM distsys.access;

-- bad input
SELECT distsys.access_grant(NULL, 'app');
SELECT distsys.access_grant('regress_access_app', NULL);
SELECT distsys.access_grant('regress_access_nobody', 'app');
SELECT distsys.access_grant('', 'app');
SELECT distsys.access_grant('public', 'app');
SELECT distsys.access_grant('regress_access_app', '');
SELECT distsys.access_grant('regress_access_app', 'APP');
SELECT distsys.access_grant('regress_access_app', 'superuser');
SELECT distsys.access_grant('regress_access_app; DROP ROLE regress_access_app', 'app');
SELECT distsys.access_revoke(NULL, 'app');
SELECT distsys.access_revoke('regress_access_app', NULL);
SELECT distsys.access_revoke('regress_access_nobody', 'app');
SELECT distsys.access_revoke('regress_access_app', 'x');
BEGIN READ ONLY;
SELECT distsys.access_grant('regress_access_app', 'app');
ROLLBACK;
BEGIN READ ONLY;
SELECT distsys.access_revoke('regress_access_app', 'app');
ROLLBACK;
BEGIN READ ONLY;
SELECT distsys.access_apply();
ROLLBACK;

-- search_path of the caller changes nothing
CREATE SCHEMA regress_access_evil;
CREATE FUNCTION regress_access_evil.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS $$ SELECT 'ALTER ROLE regress_access_app SUPERUSER' $$;
SET search_path = regress_access_evil, pg_catalog;
SELECT distsys.access_grant('regress_access_app', 'app') > 0 AS granted;
SELECT distsys.access_revoke('regress_access_app', 'app') > 0 AS revoked;
RESET search_path;
SELECT rolsuper FROM pg_roles WHERE rolname = 'regress_access_app';
DROP SCHEMA regress_access_evil CASCADE;

DROP ROLE regress_access_app;
