-- What the clients work on.
CREATE EXTENSION distsys;

-- A list is appended to by reading its last entry and writing the next. No constraint helps.
-- Lists that a fence guards are partitions of their own, see history.py.
CREATE TABLE entry (list text NOT NULL, number int NOT NULL, id text NOT NULL, previous text, token bigint NOT NULL) PARTITION BY LIST (list);
CREATE TABLE entry_of_others PARTITION OF entry DEFAULT;
CREATE INDEX ON entry (list, number);

-- Half of the clients say that their commits need not be durable.
DROP ROLE IF EXISTS client_sync, client_async;
CREATE ROLE client_sync LOGIN;
CREATE ROLE client_async LOGIN;
ALTER ROLE client_async SET synchronous_commit = off;
GRANT SELECT, INSERT ON entry TO client_sync, client_async;
SELECT distsys.access_grant(role, profile)
FROM unnest(ARRAY['client_sync', 'client_async']) role, unnest(ARRAY['app', 'operator', 'config']) profile;

-- Calls that are broken on purpose go here, see mutants.py.
CREATE SCHEMA mutant;
GRANT USAGE ON SCHEMA mutant TO client_sync, client_async;
