-- Publishing: what goes in comes out, in commit order, with the transaction or not at all.
SET client_min_messages = warning;
SELECT distsys.outbox_topic_create('publish'), distsys.outbox_topic_create('other');
CREATE VIEW pg_temp.published AS SELECT type, key, payload, body, headers FROM distsys.outbox_read('publish');
CREATE TEMP TABLE mark (position bigint);
INSERT INTO mark VALUES (0);
-- events since the last call, in their order
CREATE FUNCTION pg_temp.new_events() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    types text;
    last bigint;
BEGIN
    SELECT string_agg(type, ' ' ORDER BY position), max(position) INTO types, last FROM distsys.outbox_read('publish', (SELECT position FROM mark));
    UPDATE mark SET position = coalesce(last, position);
    RETURN types;
END $$;

-- contents
SELECT distsys.outbox_publish('publish', 'json', '{"a": [1, null, "x"]}', 'k', '{"h": 1}') IS NOT NULL;
SELECT distsys.outbox_publish('publish', 'null', 'null', id => '00000000-0000-0000-0000-000000000001');
SELECT distsys.outbox_publish_bytes('publish', 'bytes', '\x00ff'::bytea, key => 'key') IS NOT NULL;
SELECT distsys.outbox_publish_bytes('publish', 'no bytes', '') IS NOT NULL;
SELECT array_length(distsys.outbox_publish_all('publish', '[{"type": "a", "payload": 1}, {"type": "b", "payload": {"x": {"y": []}}, "key": "k", "headers": {"h": {}}}]'), 1);
SELECT distsys.outbox_publish_all('publish', '[]');
SELECT distsys.outbox_publish_all('publish', '[{"type": "own id", "payload": "s", "id": "00000000-0000-0000-0000-000000000002"}]');
SELECT * FROM pg_temp.published;
SELECT pg_temp.new_events();
SELECT topic, id, occurred_at BETWEEN now() - interval '1 min' AND now() AS recent, position < 2::numeric ^ 53 AS exact FROM distsys.outbox_read('publish') WHERE type IN ('null', 'own id');
SELECT count(*) AS other_topic FROM distsys.outbox_read('other');

-- ids are UUIDs of version 7: variant, version, the time in milliseconds, no two alike
SELECT count(DISTINCT id), bool_and(substr(id::text, 15, 1) = '7' AND substr(id::text, 20, 1) IN ('8', '9', 'a', 'b')) AS version_7,
       bool_and(abs(('x' || lpad(substr(replace(id::text, '-', ''), 1, 12), 16, '0'))::bit(64)::bigint - extract(epoch FROM clock_timestamp()) * 1000) < 60000) AS now
FROM (SELECT distsys.outbox_publish('other', 'e', '1') AS id FROM generate_series(1, 100)) ids;
-- the same id twice is the caller's business
SELECT distsys.outbox_publish('other', 'e', '1', id => '00000000-0000-0000-0000-000000000001') = distsys.outbox_publish('other', 'e', '1', id => '00000000-0000-0000-0000-000000000001') AS twice;

-- nothing before the commit, for the publisher neither
BEGIN;
SELECT distsys.outbox_publish('publish', 'committed', '1') IS NOT NULL;
SELECT pg_temp.new_events();
COMMIT;
SELECT pg_temp.new_events();
BEGIN;
SELECT distsys.outbox_publish('publish', 'rolled back', '1') IS NOT NULL;
ROLLBACK;
SELECT pg_temp.new_events();

-- savepoints
BEGIN;
SELECT distsys.outbox_publish('publish', '1', '1') IS NOT NULL;
SAVEPOINT a;
SELECT distsys.outbox_publish('publish', 'never', '1') IS NOT NULL;
SAVEPOINT b;
SELECT distsys.outbox_publish('publish', 'never', '1') IS NOT NULL;
RELEASE b;
SELECT distsys.outbox_publish('publish', 'never', '1') IS NOT NULL;
ROLLBACK TO a;
SELECT distsys.outbox_publish('publish', '2', '1') IS NOT NULL;
SAVEPOINT c;
SAVEPOINT d;
SELECT distsys.outbox_publish('publish', '3', '1') IS NOT NULL;
RELEASE d;
SELECT distsys.outbox_publish('publish', '4', '1') IS NOT NULL;
SAVEPOINT e;
SELECT distsys.outbox_publish('publish', 'never', '1') IS NOT NULL;
ROLLBACK TO e;
ROLLBACK TO e;
SELECT distsys.outbox_publish('publish', '5', '1') IS NOT NULL;
RELEASE c;
SELECT distsys.outbox_publish('publish', '6', '1') IS NOT NULL;
COMMIT;
SELECT pg_temp.new_events();
-- a random tree of subtransactions against a table that lives through the same
CREATE TABLE pg_temp.expected (n int);
CREATE FUNCTION pg_temp.tree(depth int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    fail boolean;
BEGIN
    FOR i IN 1 .. 3 LOOP
        IF random() < 0.7 THEN
            INSERT INTO expected SELECT coalesce(max(n), 0) + 1 FROM expected;
            PERFORM distsys.outbox_publish('other', (SELECT 'n' || max(n) FROM expected), '1');
        END IF;
        fail := random() < 0.4;
        BEGIN
            IF depth > 0 THEN
                PERFORM pg_temp.tree(depth - 1);
            END IF;
            IF fail THEN
                RAISE EXCEPTION 'undo';
            END IF;
        EXCEPTION WHEN raise_exception THEN
        END;
    END LOOP;
END $$;
SELECT max(position) AS before FROM distsys.outbox_read('other', max_events => 1000) \gset
SELECT pg_temp.tree(4);
SELECT count(*) > 0 AND array_agg(type ORDER BY position) = (SELECT array_agg('n' || n ORDER BY n) FROM expected) AS the_same FROM distsys.outbox_read('other', :before, 1000);
SELECT max(position) - min(position) + 1 = count(*) AS contiguous FROM distsys.outbox_read('other', :before, 1000);

-- exceptions
DO $$
BEGIN
    PERFORM distsys.outbox_publish('publish', 'kept', '1');
    BEGIN
        PERFORM distsys.outbox_publish('publish', 'never', '1');
        PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
        PERFORM distsys.outbox_publish('publish', 'handler', '1');
    END;
END $$;
SELECT pg_temp.new_events();

-- one transaction is contiguous over topics, in the order of the calls
SELECT max(position) AS before FROM distsys.outbox_read('publish') \gset
BEGIN;
SELECT distsys.outbox_publish('other', 'x', '1') IS NOT NULL;
SELECT distsys.outbox_publish('publish', 'y', '1') IS NOT NULL;
SELECT distsys.outbox_publish('other', 'z', '1') IS NOT NULL;
COMMIT;
SELECT pg_temp.new_events();
SELECT type, position - min(position) OVER () AS n
FROM (SELECT * FROM distsys.outbox_read('other', :before) UNION ALL SELECT * FROM distsys.outbox_read('publish', :before)) e ORDER BY position;

-- more than fits into memory
SET work_mem = '64kB';
BEGIN;
SELECT count(distsys.outbox_publish('publish', 'n' || n, to_jsonb(repeat(md5(n::text), 20)))) FROM generate_series(1, 500) n;
SAVEPOINT s;
SELECT count(distsys.outbox_publish('publish', 'never', to_jsonb(repeat(md5(n::text), 20)))) FROM generate_series(1, 500) n;
ROLLBACK TO s;
SELECT count(distsys.outbox_publish('publish', 'n' || n, to_jsonb(repeat(md5(n::text), 20)))) FROM generate_series(501, 600) n;
COMMIT;
SELECT count(*), bool_and(type = 'n' || n AND payload = to_jsonb(repeat(md5(n::text), 20))) AS right
FROM (SELECT type, payload, row_number() OVER (ORDER BY position) AS n FROM distsys.outbox_read('publish', (SELECT position FROM mark), 1000)) e;
UPDATE mark SET position = (SELECT max(position) FROM distsys.outbox_read('publish', max_events => 1000));
-- and nothing is left of what was rolled back
BEGIN;
SAVEPOINT s;
SELECT count(distsys.outbox_publish('publish', 'never', to_jsonb(repeat(md5(n::text), 20)))) FROM generate_series(1, 500) n;
ROLLBACK TO s;
COMMIT;
SELECT pg_temp.new_events();
-- when the disk is full and the error is caught, the transaction does not commit without its events
SET temp_file_limit = 0;
BEGIN;
SELECT distsys.outbox_publish('publish', 'never', '1') IS NOT NULL;
DO $$
BEGIN
    PERFORM distsys.outbox_publish('publish', 'never', to_jsonb(repeat(md5(n::text), 20))) FROM generate_series(1, 500) n;
EXCEPTION WHEN configuration_limit_exceeded THEN
END $$;
RESET temp_file_limit;
\set VERBOSITY sqlstate
COMMIT;
\set VERBOSITY default
RESET work_mem;
SELECT pg_temp.new_events();

-- deferred triggers, cursors WITH HOLD and functions that run at COMMIT publish in time
CREATE TABLE pg_temp.orders (id int);
CREATE FUNCTION pg_temp.on_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM distsys.outbox_publish('publish', 'deferred', to_jsonb(NEW.id));
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER publish AFTER INSERT ON pg_temp.orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.on_order();
BEGIN;
INSERT INTO pg_temp.orders VALUES (1), (2);
SELECT distsys.outbox_publish('publish', 'first', '1') IS NOT NULL;
DECLARE c CURSOR WITH HOLD FOR SELECT distsys.outbox_publish('publish', 'cursor', '1');
COMMIT;
SELECT pg_temp.new_events();
CLOSE c;

-- compressed and toasted values of a table
CREATE TABLE pg_temp.big AS SELECT jsonb_build_object('a', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 3000) n)) AS payload, repeat('k', 200) AS key;
SELECT distsys.outbox_publish('publish', 'big', payload, key) IS NOT NULL FROM pg_temp.big;
SELECT e.payload = b.payload AND e.key = b.key AS the_same FROM distsys.outbox_read('publish', (SELECT position FROM mark)) e, pg_temp.big b;
SELECT pg_temp.new_events();
-- also when the table is gone at COMMIT
BEGIN;
SELECT distsys.outbox_publish('publish', 'of a dropped table', payload, key) IS NOT NULL FROM pg_temp.big;
DROP TABLE pg_temp.big;
COMMIT;
SELECT pg_temp.new_events();

-- isolation levels
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT distsys.outbox_publish('publish', 'serializable', '1') IS NOT NULL;
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT distsys.outbox_publish('publish', 'repeatable', '1') IS NOT NULL;
COMMIT;
SELECT pg_temp.new_events();

-- PREPARE: refused when there are events, not when they were rolled back
\set VERBOSITY sqlstate
BEGIN;
SELECT distsys.outbox_publish('publish', 'prepared', '1') IS NOT NULL;
PREPARE TRANSACTION 'outbox';
SELECT count(*) FROM pg_prepared_xacts;
\set VERBOSITY default
BEGIN;
SAVEPOINT s;
SELECT distsys.outbox_publish('publish', 'prepared', '1') IS NOT NULL;
ROLLBACK TO s;
SELECT pg_temp.new_events();
ROLLBACK;
-- chained transactions begin with nothing
BEGIN;
SELECT distsys.outbox_publish('publish', 'chain 1', '1') IS NOT NULL;
COMMIT AND CHAIN;
SELECT distsys.outbox_publish('publish', 'chain 2', '1') IS NOT NULL;
ROLLBACK AND CHAIN;
SELECT distsys.outbox_publish('publish', 'chain 3', '1') IS NOT NULL;
COMMIT;
SELECT pg_temp.new_events();
DO $$ BEGIN FOR i IN 1 .. 3 LOOP PERFORM distsys.outbox_publish('publish', 'do ' || i, '1'); COMMIT; END LOOP; END $$;
SELECT pg_temp.new_events();

-- the application's own sequences are left alone
CREATE TABLE pg_temp.numbered (id serial);
INSERT INTO pg_temp.numbered DEFAULT VALUES;
SELECT distsys.outbox_publish('publish', 'lastval', '1') IS NOT NULL;
SELECT lastval();

-- reading: from, at most, READ ONLY, the cut
SELECT count(*) FROM distsys.outbox_read('publish', max_events => 3);
SELECT position AS third FROM distsys.outbox_read('publish', max_events => 3) OFFSET 2 \gset
SELECT position > :third AS after, type FROM distsys.outbox_read('publish', :third, 1);
SELECT count(*) FROM distsys.outbox_read('publish', 9007199254740991);
BEGIN READ ONLY;
SELECT count(*) FROM distsys.outbox_read('publish', max_events => 3);
COMMIT;
-- a topic that is dropped and made again shows nothing of the old one
SELECT distsys.outbox_topic_drop('other'), distsys.outbox_topic_create('other');
SELECT count(*) FROM distsys.outbox_read('other');
SELECT distsys.outbox_group_create('other', 'g', start_from => '0');
SELECT count(*) FROM distsys.outbox_fetch('other', 'g', 'm');
SELECT distsys.outbox_group_drop('other', 'g');
SELECT distsys.outbox_publish('other', 'new', '1') IS NOT NULL;
SELECT type FROM distsys.outbox_read('other');
\set VERBOSITY sqlstate
SELECT distsys.outbox_read('other', 1);
-- a topic that is dropped in the transaction of an event
BEGIN;
SELECT distsys.outbox_topic_drop('other');
SELECT distsys.outbox_publish('other', 'e', '1');
ROLLBACK;
-- an index that somebody has added to our table: an error, not a crash
CREATE INDEX added ON distsys.outbox_event_log ((payload ->> 'x'));
SELECT distsys.outbox_publish('other', 'e', '1');
DROP INDEX distsys.added;
REINDEX TABLE CONCURRENTLY distsys.outbox_event_log;
VACUUM FULL distsys.outbox_event_log;
SELECT distsys.outbox_publish('other', 'after', '1') IS NOT NULL;
SELECT type FROM distsys.outbox_read('other');

-- retention removes what the drop of a topic gave up; a topic whose row is not there (yet: a restore) keeps its events
SELECT count(distsys.outbox_topic_create('retained ' || i)) FROM generate_series(1, 6) i;
SELECT count(distsys.outbox_publish('retained ' || i, 'e', '1')) FROM generate_series(1, 6) i;
DELETE FROM distsys.outbox_topic WHERE topic = 'retained 1';
SELECT distsys.outbox_topic_drop('retained 2');
-- topics in any number: a lock is kept only where something was removed
SET distsys.max_keys_per_transaction = 3;
SELECT error FROM distsys.maintain() WHERE job = 'outbox_retention';
RESET distsys.max_keys_per_transaction;
CREATE FUNCTION pg_temp.retain() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WHILE (SELECT rows_removed > 0 FROM distsys.maintain() WHERE job = 'outbox_retention') LOOP
    END LOOP;
END $$;
SELECT pg_temp.retain();
SELECT aggregatetype FROM distsys.outbox_event_log WHERE aggregatetype LIKE 'retained%' ORDER BY 1;
SELECT distsys.outbox_topic_create('retained 1');
SELECT type FROM distsys.outbox_read('retained 1');
SELECT count(distsys.outbox_topic_drop('retained ' || i, if_exists => true)) FROM generate_series(1, 6) i;
SELECT pg_temp.retain();
SELECT count(*) FROM distsys.outbox_event_log WHERE aggregatetype LIKE 'retained%';

-- views
SELECT topic, head > oldest AS head, bytes > 0 AS bytes FROM distsys.outbox_topics WHERE topic IN ('publish', 'other') ORDER BY 1;
SELECT distsys.outbox_topic_drop('publish'), distsys.outbox_topic_drop('other');
SELECT * FROM distsys.outbox_read('publish');
DELETE FROM distsys.outbox_event_log WHERE aggregatetype IN ('publish', 'other');
