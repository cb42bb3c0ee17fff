-- Tables whose rows can be written only under a lease.
SET client_min_messages = warning;
SET distsys.notice_in_transaction = off;
\set VERBOSITY sqlstate

CREATE FUNCTION pg_temp.state(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE command;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000';
EXCEPTION WHEN OTHERS THEN
    RETURN CASE SQLSTATE WHEN 'ZZ000' THEN 'ok' ELSE SQLSTATE END;
END $$;

CREATE SCHEMA "Fenced Schema";
CREATE TABLE "Fenced Schema"."Ledger" (id int PRIMARY KEY, amount int);
INSERT INTO "Fenced Schema"."Ledger" VALUES (1, 100);
CREATE TABLE other (id int);
SELECT token AS t FROM distsys.lease_acquire('ledger''s \ owner', 'me', '10 min') \gset
SELECT token AS t2 FROM distsys.lease_acquire('another', 'me', '10 min') \gset

-- 1. without the assert nothing is written, by whatever command
SELECT distsys.fence_attach('"Fenced Schema"."Ledger"', 'ledger''s \ owner');
SELECT label, pg_temp.state(command)
FROM (VALUES (1, 'insert', 'INSERT INTO "Fenced Schema"."Ledger" VALUES (2, 0)'),
             (2, 'upsert', 'INSERT INTO "Fenced Schema"."Ledger" VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET amount = 1'),
             (3, 'update', 'UPDATE "Fenced Schema"."Ledger" SET amount = 0'),
             (4, 'delete', 'DELETE FROM "Fenced Schema"."Ledger"'),
             (5, 'merge', 'MERGE INTO "Fenced Schema"."Ledger" l USING (VALUES (1)) v (id) ON l.id = v.id WHEN MATCHED THEN DELETE'),
             (6, 'truncate', 'TRUNCATE "Fenced Schema"."Ledger"'),
             (7, 'truncate cascade', 'TRUNCATE other, "Fenced Schema"."Ledger" CASCADE'),
             (8, 'no row', 'UPDATE "Fenced Schema"."Ledger" SET amount = 0 WHERE false'),
             (9, 'read', 'SELECT * FROM "Fenced Schema"."Ledger"'),
             (10, 'lock', 'SELECT * FROM "Fenced Schema"."Ledger" FOR UPDATE')) c (i, label, command)
ORDER BY i;
COPY "Fenced Schema"."Ledger" FROM STDIN;
3	3
\.
BEGIN;
SELECT distsys.lease_assert('another', :t2);
UPDATE "Fenced Schema"."Ledger" SET amount = 0;
ROLLBACK;
\set VERBOSITY default
UPDATE "Fenced Schema"."Ledger" SET amount = 0;
\set VERBOSITY sqlstate

-- 2. with it, in any of its forms
BEGIN;
SELECT distsys.lease_assert('ledger''s \ owner', :t);
INSERT INTO "Fenced Schema"."Ledger" VALUES (2, 50), (3, 50);
UPDATE "Fenced Schema"."Ledger" SET amount = amount + 1 RETURNING *;
DELETE FROM "Fenced Schema"."Ledger" WHERE id = 3;
COPY "Fenced Schema"."Ledger" FROM STDIN;
4	4
\.
TRUNCATE other;
COMMIT;
UPDATE "Fenced Schema"."Ledger" SET amount = 0;
-- the guard as a subquery of the statement is evaluated before the first row is written
UPDATE "Fenced Schema"."Ledger" SET amount = 7 WHERE id = 4 AND (SELECT distsys.lease_assert('ledger''s \ owner', :t));
SELECT * FROM "Fenced Schema"."Ledger" ORDER BY id;

-- 3. the assert counts as long as its (sub)transaction does; one that failed does not; a renewal is none
BEGIN;
SAVEPOINT s;
SELECT distsys.lease_assert('ledger''s \ owner', :t);
ROLLBACK TO s;
SELECT pg_temp.state('DELETE FROM "Fenced Schema"."Ledger"') AS after_rollback;
SAVEPOINT s;
SELECT distsys.lease_assert('ledger''s \ owner', :t);
RELEASE s;
SELECT pg_temp.state('DELETE FROM "Fenced Schema"."Ledger"') AS after_release;
ROLLBACK;
BEGIN;
SELECT pg_temp.state($$SELECT distsys.lease_assert('ledger''s \ owner', 1)$$) AS wrong_token, pg_temp.state('DELETE FROM "Fenced Schema"."Ledger"') AS after_failure;
ROLLBACK;
BEGIN;
SELECT acquired FROM distsys.lease_renew('ledger''s \ owner', :t);
SELECT pg_temp.state('DELETE FROM "Fenced Schema"."Ledger"') AS after_renewal;
ROLLBACK;
-- it outlives its ttl: the pin keeps others out
BEGIN;
SELECT distsys.lease_assert('ledger''s \ owner', :t);
SET LOCAL distsys.clock_offset = '1 h';
SELECT live FROM distsys.leases WHERE owner = 'me' AND name LIKE 'ledger%';
UPDATE "Fenced Schema"."Ledger" SET amount = 8 WHERE id = 4;
ROLLBACK;

-- 4. through a parent: partitions and inheritance; foreign keys
CREATE TABLE parts (id int, v int) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE part_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
INSERT INTO parts VALUES (1, 1), (11, 11);
CREATE TABLE parent (id int);
CREATE TABLE child () INHERITS (parent);
INSERT INTO child VALUES (1);
CREATE TABLE referenced (id int PRIMARY KEY);
CREATE TABLE referencing (id int REFERENCES referenced ON DELETE CASCADE);
INSERT INTO referenced VALUES (1), (2);
INSERT INTO referencing VALUES (1);
SELECT distsys.fence_attach('part_1', 'another'), distsys.fence_attach('child', 'another'), distsys.fence_attach('referencing', 'another');
SELECT label, pg_temp.state(command)
FROM (VALUES (1, 'insert routed', 'INSERT INTO parts VALUES (2, 2)'), (2, 'insert elsewhere', 'INSERT INTO parts VALUES (12, 2)'),
             (3, 'update', 'UPDATE parts SET v = 0'), (4, 'moved away', 'UPDATE parts SET id = 15 WHERE id = 1'),
             (5, 'moved in', 'UPDATE parts SET id = 5 WHERE id = 11'), (6, 'truncate', 'TRUNCATE parts'),
             (7, 'child', 'UPDATE parent SET id = 2'), (8, 'parent only', 'INSERT INTO parent VALUES (3)'), (9, 'truncate', 'TRUNCATE parent'),
             (10, 'truncate only', 'TRUNCATE ONLY parent'),
             (11, 'cascade', 'DELETE FROM referenced WHERE id = 1'), (12, 'no cascade', 'DELETE FROM referenced WHERE id = 2'),
             (13, 'truncate', 'TRUNCATE referenced CASCADE')) c (i, label, command)
ORDER BY i;
BEGIN;
SELECT distsys.lease_assert('another', :t2);
UPDATE parts SET id = 15 WHERE id = 1;
DELETE FROM referenced WHERE id = 1;
UPDATE parent SET id = 2;
TRUNCATE parts, parent, referenced CASCADE;
ROLLBACK;

-- 5. what apply of logical replication does is not asked
SET session_replication_role = replica;
UPDATE child SET id = 4;
RESET session_replication_role;

-- 6. bad input
CREATE VIEW fence_view AS SELECT * FROM other;
CREATE MATERIALIZED VIEW fence_matview AS SELECT * FROM other;
CREATE SEQUENCE fence_seq;
CREATE TYPE fence_type AS (i int);
CREATE TEMP TABLE fence_temp (i int);
CREATE FOREIGN DATA WRAPPER regress_fence_wrapper;
CREATE SERVER regress_fence_server FOREIGN DATA WRAPPER regress_fence_wrapper;
CREATE FOREIGN TABLE fence_foreign (i int) SERVER regress_fence_server;
SELECT label, pg_temp.state(format('SELECT distsys.fence_attach(%s)', args))
FROM (VALUES (1, 'null table', $$NULL, 'x'$$), (2, 'null name', $$'other', NULL$$), (3, 'empty name', $$'other', ''$$), (4, 'newline', $$'other', E'a\nb'$$),
             (5, '256 bytes', $$'other', repeat('x', 256)$$), (6, '255 bytes', $$'other', repeat('x', 255)$$), (7, 'no such table', $$'nowhere', 'x'$$),
             (8, 'oid 0', $$0, 'x'$$), (9, 'no such oid', $$1, 'x'$$), (10, 'partitioned', $$'parts', 'x'$$), (11, 'view', $$'fence_view', 'x'$$),
             (12, 'materialized view', $$'fence_matview', 'x'$$), (13, 'sequence', $$'fence_seq', 'x'$$), (14, 'type', $$'fence_type', 'x'$$),
             (15, 'index', $$'referenced_pkey', 'x'$$), (16, 'foreign table', $$'fence_foreign', 'x'$$), (17, 'catalog', $$'pg_class', 'x'$$),
             (18, 'ours', $$'distsys.lease_grant', 'x'$$), (19, 'temporary', $$'fence_temp', 'x'$$), (20, 'twice', $$'child', 'another'$$),
             (21, 'twice, another name', $$'child', 'x'$$)) c (i, label, args)
ORDER BY i;
SELECT label, pg_temp.state(format('SELECT distsys.fence_detach(%s)', args))
FROM (VALUES (1, 'null', 'NULL'), (2, 'no such table', $$'nowhere'$$), (3, 'oid 0', '0'), (4, 'no fence', $$'other'$$), (5, 'partitioned', $$'parts'$$),
             (6, 'view', $$'fence_view'$$), (7, 'there', $$'child'$$)) c (i, label, args)
ORDER BY i;
BEGIN READ ONLY;
SELECT distsys.fence_attach('other', 'x');
ROLLBACK;
BEGIN READ ONLY;
SELECT distsys.fence_detach('child');
ROLLBACK;
SELECT distsys._fence_guard();
CREATE TRIGGER by_hand BEFORE INSERT ON other EXECUTE FUNCTION distsys._fence_guard();
INSERT INTO other VALUES (1);
DROP TRIGGER by_hand ON other;
CREATE TRIGGER by_hand AFTER INSERT ON other FOR EACH ROW EXECUTE FUNCTION distsys._fence_guard('another');
INSERT INTO other VALUES (1);
INSERT INTO other SELECT 2 WHERE (SELECT distsys.lease_assert('another', :t2));
DROP TRIGGER by_hand ON other;

-- 7. only the owner; a role that writes needs no right on the guard
CREATE ROLE regress_fence_owner;
CREATE ROLE regress_fence_writer;
SELECT distsys.access_grant('regress_fence_owner', 'config') > 0, distsys.access_grant('regress_fence_writer', 'app') > 0;
CREATE TABLE owned (i int);
ALTER TABLE owned OWNER TO regress_fence_owner;
GRANT ALL ON owned TO regress_fence_writer;
SET ROLE regress_fence_writer;
SELECT distsys.fence_attach('owned', 'another');
RESET ROLE;
SELECT distsys.access_grant('regress_fence_writer', 'config') > 0;
SET ROLE regress_fence_writer;
SELECT distsys.fence_attach('owned', 'another');
SET ROLE regress_fence_owner;
SELECT distsys.fence_attach('other', 'another');
SELECT distsys.fence_attach('owned', 'another');
INSERT INTO owned VALUES (1);
SET ROLE regress_fence_writer;
SELECT distsys.fence_detach('owned');
INSERT INTO owned VALUES (1);
INSERT INTO owned SELECT 1 WHERE (SELECT distsys.lease_assert('another', :t2));
RESET ROLE;

-- 8. rollback takes it back, detach takes it away, DROP EXTENSION refuses
BEGIN;
SELECT distsys.fence_detach('owned');
INSERT INTO owned VALUES (2);
ROLLBACK;
INSERT INTO owned VALUES (3);
BEGIN;
SELECT distsys.fence_detach('child');
SELECT distsys.fence_attach('child', 'third');
UPDATE parent SET id = 9;
ROLLBACK;
\set VERBOSITY terse
BEGIN;
DROP EXTENSION distsys;
ROLLBACK;
\set VERBOSITY sqlstate
SELECT c.relname, t.tgname, t.tgenabled FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgname LIKE 'distsys_fence%' ORDER BY 1, 2;
DROP TRIGGER distsys_fence_truncate ON child;
SELECT distsys.fence_detach('child'), distsys.fence_detach('part_1'), distsys.fence_detach('referencing'), distsys.fence_detach('owned'),
       distsys.fence_detach('"Fenced Schema"."Ledger"');
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'distsys_fence%';
SELECT distsys.fence_detach('child');
UPDATE parent SET id = 9;

-- a command of the same session that uses the table
CREATE FUNCTION pg_temp.attach_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM distsys.fence_attach('other', 'x'); RETURN NULL; END $$;
CREATE TRIGGER here AFTER INSERT ON other EXECUTE FUNCTION pg_temp.attach_here();
INSERT INTO other VALUES (5);
DROP TRIGGER here ON other;
SELECT distsys.fence_detach('other');

SELECT distsys.lease_release('ledger''s \ owner', :t), distsys.lease_release('another', :t2);
DROP TABLE parts, parent, child, referencing, referenced, owned, other CASCADE;
DROP FOREIGN DATA WRAPPER regress_fence_wrapper CASCADE;
DROP SEQUENCE fence_seq;
DROP TYPE fence_type;
DROP SCHEMA "Fenced Schema" CASCADE;
SELECT distsys.access_revoke('regress_fence_owner', 'config') > 0, distsys.access_revoke('regress_fence_writer', 'config') > 0,
       distsys.access_revoke('regress_fence_writer', 'app') > 0;
DROP ROLE regress_fence_owner, regress_fence_writer;
