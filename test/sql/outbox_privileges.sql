-- Who may what: the profiles, and nothing for PUBLIC.
\set VERBOSITY sqlstate
SET client_min_messages = warning;
CREATE ROLE regress_outbox_app;
CREATE ROLE regress_outbox_consumer;
CREATE ROLE regress_outbox_config;
CREATE ROLE regress_outbox_operator;
CREATE ROLE regress_outbox_monitor;
CREATE ROLE regress_outbox_nobody;
SELECT count(distsys.access_grant('regress_outbox_' || p, p)) FROM unnest(ARRAY['app', 'consumer', 'config', 'operator', 'monitor']) p;
RESET client_min_messages;
CREATE FUNCTION pg_temp.state(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE call;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000';
EXCEPTION WHEN OTHERS THEN
    RETURN CASE SQLSTATE WHEN 'ZZ000' THEN 'ok' ELSE SQLSTATE END;
END $$;
SELECT distsys.outbox_topic_create('privileges'), distsys.outbox_group_create('privileges', 'g');
SELECT distsys.outbox_publish('privileges', 'e', '1') IS NOT NULL;

CREATE FUNCTION pg_temp.state_as(role text, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer text;
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    answer := pg_temp.state(call);
    RESET ROLE;
    RETURN answer;
END $$;
DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO PUBLIC', (SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema())); END $$;
SELECT call, role, pg_temp.state_as('regress_outbox_' || role, call)
FROM (VALUES (1, $$SELECT distsys.outbox_publish('privileges', 'e', '1')$$), (2, $$SELECT distsys.outbox_publish_bytes('privileges', 'e', '1')$$), (3, $$SELECT distsys.outbox_publish_all('privileges', '[]')$$),
             (4, $$SELECT distsys.outbox_read('privileges')$$), (5, $$SELECT distsys.outbox_fetch('privileges', 'g', 'm')$$), (6, $$SELECT distsys.outbox_ack('privileges', 'g', '{}')$$),
             (7, $$SELECT distsys.outbox_nack('privileges', 'g', '{}')$$), (8, $$SELECT distsys.outbox_reject('privileges', 'g', '{}')$$), (9, $$SELECT distsys.outbox_seek('privileges', 'g', 'latest')$$),
             (10, $$SELECT distsys.outbox_redrive('privileges', 'g')$$), (11, $$SELECT distsys.outbox_topic_create('t')$$), (12, $$SELECT distsys.outbox_topic_alter('privileges')$$),
             (13, $$SELECT distsys.outbox_topic_drop('t', true)$$), (14, $$SELECT distsys.outbox_group_create('privileges', 'n')$$), (15, $$SELECT distsys.outbox_group_alter('privileges', 'g')$$),
             (16, $$SELECT distsys.outbox_group_drop('privileges', 'g')$$), (17, $$UPDATE distsys.outbox_topic SET retention = '1 day'$$), (18, $$SELECT FROM distsys.outbox_topics$$),
             (19, $$SELECT FROM distsys.outbox_groups$$), (20, $$SELECT FROM distsys.outbox_dead_letters$$), (21, $$SELECT FROM distsys.outbox_event_log$$), (22, $$SELECT FROM distsys.outbox_cursor$$),
             (23, $$SELECT FROM distsys.outbox_retry$$), (24, $$SELECT FROM distsys.outbox_dead_letter$$), (25, $$SELECT FROM distsys.outbox_settled$$), (26, $$UPDATE distsys.outbox_cursor SET position = 0$$)) c (i, call),
     (VALUES (1, 'app'), (2, 'consumer'), (3, 'config'), (4, 'operator'), (5, 'monitor'), (6, 'nobody')) r (j, role)
ORDER BY i, j \crosstabview

-- a publisher needs no right on the tables, also when the insert comes at COMMIT under another role
BEGIN;
SET LOCAL ROLE regress_outbox_app;
SELECT distsys.outbox_publish('privileges', 'app', '1') IS NOT NULL;
COMMIT;
SELECT type FROM distsys.outbox_read('privileges') ORDER BY position;
-- row security on the table of events does not apply to the functions
ALTER TABLE distsys.outbox_event_log ENABLE ROW LEVEL SECURITY;
SET ROLE regress_outbox_consumer;
SELECT count(*) FROM distsys.outbox_read('privileges');
RESET ROLE;
ALTER TABLE distsys.outbox_event_log DISABLE ROW LEVEL SECURITY;
SELECT distsys.outbox_group_drop('privileges', 'g'), distsys.outbox_topic_drop('privileges');
DELETE FROM distsys.outbox_event_log WHERE aggregatetype = 'privileges';
SELECT count(distsys.access_revoke('regress_outbox_' || p, p)) FROM unnest(ARRAY['app', 'consumer', 'config', 'operator', 'monitor']) p;
DROP ROLE regress_outbox_app, regress_outbox_consumer, regress_outbox_config, regress_outbox_operator, regress_outbox_monitor, regress_outbox_nobody;
