-- What an administrator does to our tables, and what renewing costs them.
\set VERBOSITY sqlstate
SELECT token AS t FROM distsys.lease_acquire('rows', 'me', '10 min') \gset
SELECT distsys.fence_pass('rows', 1);

-- indexes that cannot be kept up to date: an error, not a crash
CREATE INDEX lock_rows_expression ON distsys.lease_grant (lower(owner));
SELECT distsys.lease_renew('rows', :t);
SELECT * FROM distsys.lease_get('rows');
DROP INDEX distsys.lock_rows_expression;
CREATE INDEX lock_rows_partial ON distsys.lease_grant (owner) WHERE NOT released;
SELECT distsys.lease_renew('rows', :t);
DROP INDEX distsys.lock_rows_partial;
CREATE INDEX lock_rows_partial ON distsys.fence (token) WHERE token > 1;
SELECT distsys.fence_pass('rows', 2);
DROP INDEX distsys.lock_rows_partial;
-- a plain one costs speed only, and is right
CREATE INDEX lock_rows_plain ON distsys.lease_grant (expires_at);
SELECT acquired FROM distsys.lease_renew('rows', :t);
SET enable_seqscan = off;
SELECT g.token = :t AS found FROM distsys.lease_grant g, distsys.lease_get('rows') l WHERE g.expires_at = l.expires_at;
RESET enable_seqscan;
DROP INDEX distsys.lock_rows_plain;

-- rebuilt under our feet
REINDEX TABLE CONCURRENTLY distsys.lease_grant;
SELECT acquired FROM distsys.lease_renew('rows', :t);
VACUUM FULL distsys.lease_grant;
SELECT acquired FROM distsys.lease_renew('rows', :t);
CLUSTER distsys.lease_grant USING lease_grant_pkey;
SELECT distsys.lease_assert('rows', :t), distsys.lease_release('rows', :t);
SELECT token AS t FROM distsys.lease_acquire('rows', 'me', '10 min') \gset
\set conninfo 'dbname=' :DBNAME ' options=''-c ignore_system_indexes=on'''
\c :conninfo
SHOW ignore_system_indexes;
SELECT acquired FROM distsys.lease_renew('rows', :t);
SELECT distsys.fence_pass('rows', 2), distsys.fence_current('rows');
\set conninfo 'dbname=' :DBNAME
\c :conninfo

-- changed by hand: the answer is what the row says
UPDATE distsys.lease_grant SET token = token + 1 WHERE name = 'rows';
SELECT distsys.lease_renew('rows', :t);
UPDATE distsys.lease_grant SET token = :t WHERE name = 'rows';
SELECT acquired FROM distsys.lease_renew('rows', :t);
DELETE FROM distsys.lease_grant WHERE name = 'rows';
SELECT distsys.lease_assert('rows', :t);
SELECT token > :t AS higher FROM distsys.lease_acquire('rows', 'me', '10 min');
SELECT token AS t FROM distsys.lease_get('rows') \gset

-- renewing is a HOT update: the index does not grow, nor does the table
SELECT pg_stat_force_next_flush();
SELECT n_tup_upd AS upd, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relid = 'distsys.lease_grant'::regclass \gset
SELECT pg_relation_size('distsys.lease_grant_pkey') AS index_size \gset
DO $$
DECLARE
    t bigint := (SELECT token FROM distsys.lease_get('rows'));
BEGIN
    FOR i IN 1 .. 500 LOOP
        PERFORM distsys.lease_renew('rows', t);
        COMMIT;
    END LOOP;
END $$;
SELECT pg_stat_force_next_flush();
SELECT n_tup_upd - :upd AS updates, n_tup_hot_upd - :hot >= 495 AS hot, pg_relation_size('distsys.lease_grant_pkey') = :index_size AS index_flat,
       pg_relation_size('distsys.lease_grant') <= 4 * 8192 AS table_flat
FROM pg_stat_user_tables WHERE relid = 'distsys.lease_grant'::regclass;
SELECT distsys.lease_release('rows', :t);

-- the application's lastval() is its own
CREATE TABLE lock_serial (id serial);
INSERT INTO lock_serial DEFAULT VALUES;
SELECT acquired FROM distsys.lease_acquire('lastval', 'me', '10 s');
SELECT lastval(), distsys.lease_release('lastval', token) FROM distsys.lease_get('lastval');
DROP TABLE lock_serial;
