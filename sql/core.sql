-- ---------------------------------------------------------------------------
-- core: what every domain stands on
-- ---------------------------------------------------------------------------

-- Which function, view or table belongs to which profile of access_grant(). Filled below by each domain; belongs to the
-- version, so it is not dumped.
CREATE TABLE distsys.access_object (
    profile text NOT NULL CHECK (profile IN ('app', 'consumer', 'config', 'operator', 'monitor')),
    kind    text NOT NULL CHECK (kind IN ('routine', 'view', 'table')),
    name    text NOT NULL,
    PRIMARY KEY (profile, kind, name)
);
COMMENT ON TABLE distsys.access_object IS 'What each profile of distsys.access_grant() gives: routine = EXECUTE, view = SELECT, table = SELECT, INSERT, UPDATE, DELETE. Part of the version: not dumped, not for editing.';

CREATE FUNCTION distsys._library_version() RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'distsys__library_version';
COMMENT ON FUNCTION distsys._library_version() IS 'Internal: version of the loaded library.';

CREATE FUNCTION distsys.version(OUT library text, OUT extension text) RETURNS record
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT distsys._library_version(), e.extversion FROM pg_catalog.pg_extension e WHERE e.extname = 'distsys' $$;
COMMENT ON FUNCTION distsys.version() IS 'Version of the loaded library and of the SQL objects in this database. They differ between the installation of new files and ALTER EXTENSION distsys UPDATE; the library serves the SQL of the version before.';

-- Counters in shared memory.
CREATE FUNCTION distsys._stats(OUT domain text, OUT object text, OUT metric text, OUT value bigint, OUT since timestamptz) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'distsys__stats';
COMMENT ON FUNCTION distsys._stats() IS 'Internal: rows of the view distsys.stats.';

CREATE VIEW distsys.stats AS
    SELECT s.domain, s.object, s.metric, s.value, s.since FROM distsys._stats() s;
COMMENT ON VIEW distsys.stats IS 'Counters of this database in long form: value counts since `since`, at the latest since the server started. object is a policy, topic or group, NULL for the whole domain. Counted when decided, also when the transaction rolls back. Empty unless the library is in shared_preload_libraries.';

-- The trigger that makes configuration tables ordinary SQL: DML on them empties the C caches of every session.
CREATE FUNCTION distsys._config_changed() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys__config_changed';
COMMENT ON FUNCTION distsys._config_changed() IS 'Internal: statement trigger of configuration tables; sends a relcache invalidation that takes effect at commit.';

-- Fencing tokens and positions: (epoch << 40) + counter. The row is made on first use.
CREATE TABLE distsys.token_state (
    singleton   boolean NOT NULL PRIMARY KEY CHECK (singleton),
    base        bigint NOT NULL,
    timeline    bigint NOT NULL,
    system      bigint NOT NULL,
    database    bigint NOT NULL,
    relation    bigint NOT NULL,
    lease_floor bigint NOT NULL,
    promoted_at timestamptz NOT NULL,
    promoted_boot bigint NOT NULL,
    promoted_clock bigint NOT NULL,
    longest_ttl_us bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE distsys.token_state IS 'Internal: one row, the epoch of fencing tokens (base + timeline) and the identity it was decided for. A database that was restored or copied differs in the identity; its epoch jumps and its leases are expired.';
SELECT pg_catalog.pg_extension_config_dump('distsys.token_state', '');

CREATE SEQUENCE distsys.token_counter;
COMMENT ON SEQUENCE distsys.token_counter IS 'Internal: counter part of fencing tokens. Drawn by the library with a flush, never by nextval().';
SELECT pg_catalog.pg_extension_config_dump('distsys.token_counter', '');

CREATE SEQUENCE distsys.position_counter;
COMMENT ON SEQUENCE distsys.position_counter IS 'Internal: counter part of event positions.';
SELECT pg_catalog.pg_extension_config_dump('distsys.position_counter', '');

CREATE SEQUENCE distsys.receipt_counter;
COMMENT ON SEQUENCE distsys.receipt_counter IS 'Internal: delivery receipts.';
SELECT pg_catalog.pg_extension_config_dump('distsys.receipt_counter', '');

INSERT INTO distsys.access_object (profile, kind, name)
    SELECT p, 'routine', r
    FROM pg_catalog.unnest(ARRAY['app', 'consumer', 'config', 'operator', 'monitor']) p,
         pg_catalog.unnest(ARRAY['version', '_library_version']) r;
INSERT INTO distsys.access_object (profile, kind, name) VALUES ('monitor', 'view', 'stats'), ('monitor', 'routine', '_stats');

