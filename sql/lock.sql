-- ---------------------------------------------------------------------------
-- lock: advisory helpers, leases, fences
-- ---------------------------------------------------------------------------

-- Advisory helpers ----------------------------------------------------------

CREATE FUNCTION distsys.lock_key(name text) RETURNS bigint
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'distsys_lock_key';
COMMENT ON FUNCTION distsys.lock_key(text) IS 'A number for pg_advisory_lock(bigint) from a name: the first 8 bytes of SHA-256, big-endian, so any client can compute it. name: 1..255 bytes. It is not the key of xact_lock(), which has a lock space of its own, unless distsys.advisory_keyspace = shared.';

CREATE FUNCTION distsys.lock_name(namespace text, id bigint) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'distsys_lock_name';
COMMENT ON FUNCTION distsys.lock_name(text, bigint) IS 'The two-key form of a lock name: namespace:id. namespace: 1..234 bytes.';

CREATE FUNCTION distsys.xact_lock(name text, wait interval DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_xact_lock';
COMMENT ON FUNCTION distsys.xact_lock(text, interval) IS 'Locks a name to the end of the (sub)transaction. true: locked; false: wait elapsed. wait: NULL = as long as it takes (lock_timeout applies, 55P03), ''0'' = do not wait. Standby: 25006. It has a lock space of its own and does not exclude against pg_advisory_xact_lock(distsys.lock_key(name)), unless distsys.advisory_keyspace = shared in every session. 40001 in REPEATABLE READ and SERIALIZABLE when the snapshot does not see what the last exclusive holder has written (without preload: when the lock had to be waited for); lock before BEGIN or use READ COMMITTED, a retry alone may not help; see distsys.stale_snapshot.';

CREATE FUNCTION distsys.xact_lock_shared(name text, wait interval DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_xact_lock_shared';
COMMENT ON FUNCTION distsys.xact_lock_shared(text, interval) IS 'xact_lock() for readers: any number of shared holders, none beside an exclusive one. Errors and 40001 as there.';

CREATE FUNCTION distsys.xact_lock_all(names text[], wait interval DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_xact_lock_all';
COMMENT ON FUNCTION distsys.xact_lock_all(text[], interval) IS 'xact_lock() of several names, all or none: false means that wait elapsed and nothing more is locked than before. wait is for all together. In whatever order they are given (duplicates too), two such calls do not deadlock. Empty array 22023, NULL in it 22004, more than one dimension 2202E.';

CREATE FUNCTION distsys.session_lock(name text, wait interval DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_session_lock';
COMMENT ON FUNCTION distsys.session_lock(text, interval) IS 'Locks a name until session_unlock() or until the server connection ends; survives ROLLBACK. Returns a fencing token, NULL when wait elapsed (NULL = as long as it takes). Not re-entrant: 55000 when this connection holds it already. Needs a direct connection or session pooling. Standby or READ ONLY: 25006.';

CREATE FUNCTION distsys.session_unlock(name text, token bigint) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_session_unlock';
COMMENT ON FUNCTION distsys.session_unlock(text, bigint) IS 'Frees a session lock: true. 55000 when this server connection does not hold it with this token, as happens behind a transaction pooler.';

CREATE PROCEDURE distsys.session_lock_wait(name text, wait interval DEFAULT NULL, INOUT token bigint DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'distsys_session_lock_wait';
COMMENT ON PROCEDURE distsys.session_lock_wait(text, interval, bigint) IS 'session_lock() that waits without a snapshot: CREATE INDEX CONCURRENTLY in the holder does not deadlock with it. Commits the transaction it is called in; 2D000 inside BEGIN, a function or a pipeline. token: NULL when wait elapsed.';

CREATE FUNCTION distsys._lock_id(space int, name text, number bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'distsys__lock_id';
COMMENT ON FUNCTION distsys._lock_id(int, text, bigint) IS 'Internal: lock_id of the view locks for a name, or a name and a number, in a key lock space.';

CREATE FUNCTION distsys._lock_names(OUT pid int, OUT space int, OUT lock_id bigint, OUT name text) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL SAFE ROWS 100 AS 'MODULE_PATHNAME', 'distsys__lock_names';
COMMENT ON FUNCTION distsys._lock_names() IS 'Internal: the names of advisory locks that sessions have asked for last. Empty when not preloaded.';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('app', 'routine', 'lock_key'), ('app', 'routine', 'lock_name'), ('app', 'routine', 'xact_lock'), ('app', 'routine', 'xact_lock_shared'),
    ('app', 'routine', 'xact_lock_all'), ('app', 'routine', 'session_lock'), ('app', 'routine', 'session_unlock'),
    ('app', 'routine', 'session_lock_wait'), ('monitor', 'routine', '_lock_id'), ('monitor', 'routine', '_lock_names');

-- Leases --------------------------------------------------------------------

CREATE TABLE distsys.lease_grant (
    name           text COLLATE "C" NOT NULL,
    slot           bigint NOT NULL,
    owner          text NOT NULL,
    role           regrole NOT NULL,
    mode           text NOT NULL,
    token          bigint NOT NULL,
    ttl_us         bigint NOT NULL,
    acquired_at    timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    expires_boot   bigint NOT NULL,
    clock_id       bigint NOT NULL,
    grant_xid      bigint NOT NULL,
    released       boolean NOT NULL,
    broken         boolean NOT NULL,
    min_hold_until timestamptz,
    min_hold_boot  bigint,
    request_id     uuid,
    data           jsonb,
    session_id     uuid,
    PRIMARY KEY (name, slot)
) WITH (fillfactor = 50, vacuum_index_cleanup = on, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
-- vacuum_index_cleanup: left to itself, VACUUM leaves dead line pointers of few pages for later, and with one in the last page it gives no page back.
COMMENT ON TABLE distsys.lease_grant IS 'Internal: grants of leases; slot 0 is the exclusive one, shared ones have slots from 1 on. Read the view distsys.leases. VACUUM may give its pages back, which keeps others out for a few milliseconds: after many names it is small again.';
SELECT pg_catalog.pg_extension_config_dump('distsys.lease_grant', '');

CREATE TABLE distsys.lease_session (
    id           uuid NOT NULL PRIMARY KEY,
    owner        text NOT NULL,
    role         regrole NOT NULL,
    ttl_us       bigint NOT NULL,
    expires_at   timestamptz NOT NULL,
    expires_boot bigint NOT NULL,
    clock_id     bigint NOT NULL
) WITH (fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE distsys.lease_session IS 'Internal: sessions of leases. Not dumped: leases come back expired.';

CREATE TABLE distsys.lease_session_member (
    session_id uuid NOT NULL,
    name       text COLLATE "C" NOT NULL,
    token      bigint NOT NULL,
    PRIMARY KEY (session_id, name, token)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE distsys.lease_session_member IS 'Internal: the leases that were acquired under a session and not released.';

CREATE TABLE distsys.lease_event (
    place  int NOT NULL PRIMARY KEY,
    number bigint NOT NULL,
    at     timestamptz NOT NULL,
    domain text NOT NULL,
    name   text NOT NULL,
    event  text NOT NULL,
    owner  text NOT NULL,
    role   regrole NOT NULL,
    token  bigint NOT NULL,
    reason text
) WITH (fillfactor = 70, vacuum_truncate = off);
COMMENT ON TABLE distsys.lease_event IS 'Internal: the last 1,000 events of leases and leaders, a ring. Not dumped. Read the view distsys.lease_history.';

CREATE SEQUENCE distsys.lease_event_counter;
COMMENT ON SEQUENCE distsys.lease_event_counter IS 'Internal: numbers of lease events.';

CREATE TYPE distsys.lease AS (
    acquired      boolean,
    reason        text,
    name          text,
    owner         text,
    mode          text,
    token         bigint,
    acquired_at   timestamptz,
    expires_at    timestamptz,
    ttl_remaining interval,
    retry_after   interval,
    data          jsonb
);
COMMENT ON TYPE distsys.lease IS 'A lease, or why it was refused. reason: ok | held | pinned (expired, but a transaction that asserted it is open) | min_hold (released before its least time) | failover_delay (the server was promoted a moment ago) | timeout (wait elapsed). Refused: token NULL; owner, times and data of the present holder, NULL when its grant is not committed yet or others wait before you; retry_after: when it may be free, NULL when not known. token: fencing token, below 2^53. Count ttl_remaining from before the call, on your own monotonic clock.';

CREATE FUNCTION distsys.lease_acquire(name text, owner text, ttl interval, wait interval DEFAULT '0', mode text DEFAULT 'exclusive',
    request_id uuid DEFAULT NULL, data jsonb DEFAULT NULL, min_hold interval DEFAULT '0', session_id uuid DEFAULT NULL) RETURNS distsys.lease
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_lease_acquire';
COMMENT ON FUNCTION distsys.lease_acquire(text, text, interval, interval, text, uuid, jsonb, interval, uuid) IS 'Acquires a lease for ttl (100 ms .. distsys.lease_max_ttl) from the moment of the grant. name, owner: 1..255 bytes; owner is a label, the token proves ownership; the same owner never re-enters. wait: ''0'' = do not wait, at most distsys.max_function_wait; first come first served when the library is preloaded. mode: exclusive | shared; shared grants hold together, each with its own token, and do not starve an exclusive request that waits. A live lease is never taken over; an expired one is "pinned" while a transaction that asserted it is open. Durable when COMMIT returns. A bare number is seconds: write ''30 s''. request_id: one per logical attempt, never a host name; the same one answers with the same live grant, for a retry after a lost answer. data: jsonb of at most 8 kB for everybody to read. min_hold (0 .. ttl): nobody else gets it before, even when it is released. session_id: renewed with lease_session_renew(); the ttl is at least that of the session, the lease belongs to the role that opened it; SD002 when the session is over, 54000 when it has two leases for every five of distsys.max_keys_per_transaction. 25006 READ ONLY or standby; PREPARE TRANSACTION after it 0A000.';

CREATE FUNCTION distsys.lease_acquire_all(names text[], owner text, ttl interval, wait interval DEFAULT '0', mode text DEFAULT 'exclusive',
    request_id uuid DEFAULT NULL, session_id uuid DEFAULT NULL) RETURNS SETOF distsys.lease
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'distsys_lease_acquire_all';
COMMENT ON FUNCTION distsys.lease_acquire_all(text[], text, interval, interval, text, uuid, uuid) IS 'Acquires all leases or none, in one commit: one row per name, sorted, without duplicates, each with its own token. Refused: acquired is false in every row; those in the way say why, the others say free. It waits for one after the other and holds nothing while it waits, so calls in any order do not deadlock. Else as lease_acquire(). 22023 empty array, 2202E more than one dimension, 22004 NULL element, 54000 more names than distsys.max_keys_per_transaction allows.';

CREATE PROCEDURE distsys.lease_lock(name text, owner text, ttl interval, wait interval DEFAULT NULL, INOUT token bigint DEFAULT NULL,
    INOUT expires_at timestamptz DEFAULT NULL, INOUT ttl_remaining interval DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'distsys_lease_lock';
COMMENT ON PROCEDURE distsys.lease_lock(text, text, interval, interval, bigint, timestamptz, interval) IS 'Acquires an exclusive lease in short transactions of its own: the grant is durable on return, and between attempts there is no snapshot and no lock, so that CREATE INDEX CONCURRENTLY in the holder does not deadlock with it. wait: NULL = as long as it takes. token NULL: wait elapsed. Commits the transaction it is called in; 2D000 inside BEGIN, a function or a pipeline. SD004 when it would wait without an end for a lease that this session got under the same owner.';

CREATE FUNCTION distsys.lease_renew(name text, token bigint, ttl interval DEFAULT NULL) RETURNS distsys.lease
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_lease_renew';
COMMENT ON FUNCTION distsys.lease_renew(text, bigint, interval) IS 'Prolongs a lease: it expires ttl from now (NULL: the ttl it was acquired or last renewed with). SD002 when token is not the live grant, 42501 for a role without the rights of the holder''s role. Never waits behind somebody who wants to acquire it.';

CREATE FUNCTION distsys.lease_release(name text, token bigint) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_lease_release';
COMMENT ON FUNCTION distsys.lease_release(text, bigint) IS 'Gives a lease back. false: it was not held with this token any more. Safe to call twice. Alone in its transaction it does not wait for the disk: a crash right after it may bring the grant back until its ttl has passed.';

CREATE FUNCTION distsys.lease_assert(name text, token bigint, min_remaining interval DEFAULT '0') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_lease_assert';
COMMENT ON FUNCTION distsys.lease_assert(text, bigint, interval) IS 'true, or SD002 when token is not the live grant with at least min_remaining left. Pins the lease: nobody can take it over before this (sub)transaction ends, even if it expires meanwhile. Use it as a guard: ... AND (SELECT distsys.lease_assert(name, token)). 40001 when the snapshot is older than the grant; 55000 when this REPEATABLE READ transaction made the grant itself.';

CREATE FUNCTION distsys.lease_get(name text) RETURNS SETOF distsys.lease
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'distsys_lease_get';
COMMENT ON FUNCTION distsys.lease_get(text) IS 'The live grants of a lease, one row each (several when it is shared): acquired true, reason held. Nobody holds it: the last grant, if it is still known, with acquired false, reason free. Works on a standby. token NULL for roles without the rights of the holder''s role.';

CREATE FUNCTION distsys.lease_set_data(name text, token bigint, data jsonb) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_lease_set_data';
COMMENT ON FUNCTION distsys.lease_set_data(text, bigint, jsonb) IS 'Replaces the data of a grant (at most 8 kB, 22001; NULL: none): true, or SD002 when token is not the live grant. Durable when COMMIT returns.';

CREATE FUNCTION distsys.lease_transfer(name text, token bigint, new_owner text, ttl interval DEFAULT NULL) RETURNS distsys.lease
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_lease_transfer';
COMMENT ON FUNCTION distsys.lease_transfer(text, bigint, text, interval) IS 'Hands a live lease on: a new grant with a new token for new_owner, without a moment in which it is free; the old token is dead (SD002). ttl NULL: the same. acquired false, reason pinned: another transaction has asserted it and is open; nothing has changed, the old token still holds. The new grant belongs to the calling role, to no session and to no request_id; data is kept.';

CREATE FUNCTION distsys.lease_break(name text, break_after interval DEFAULT '0', reason text DEFAULT NULL) RETURNS interval
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_lease_break';
COMMENT ON FUNCTION distsys.lease_break(text, interval, text) IS 'Operator: ends every grant of a lease, at the latest break_after from now; until then it cannot be renewed. One that was released before its least time to hold is free at once. Returns when it will be free, NULL when nobody held it. A transaction that asserted it goes on; the next acquire waits for it. reason: at most 1,024 bytes, kept in distsys.lease_history.';

CREATE FUNCTION distsys.lease_session_open(owner text, ttl interval) RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_lease_session_open';
COMMENT ON FUNCTION distsys.lease_session_open(text, interval) IS 'Opens a session of leases: one heartbeat for all leases acquired with its id as session_id. ttl as of leases: the session is over when it is not renewed for that long. A session is a row, not a connection: renew it from anywhere.';

CREATE FUNCTION distsys.lease_session_renew(id uuid) RETURNS SETOF distsys.lease
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'distsys_lease_session_renew';
COMMENT ON FUNCTION distsys.lease_session_renew(uuid) IS 'Prolongs the session and each of its leases by its own ttl, in one commit. One row per lease; acquired false, reason lost: it is not held any more (told once); acquired true, reason held: another transaction is renewing or releasing it, which is not waited for, so it is as it was. SD002 when the session is over, 42501 for a role without the rights of the role that opened it.';

CREATE FUNCTION distsys.lease_session_close(id uuid) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_lease_session_close';
COMMENT ON FUNCTION distsys.lease_session_close(uuid) IS 'Releases the leases of a session and ends it. Returns how many were held; 0 when there is no such session. Safe to call twice.';

CREATE FUNCTION distsys._leases(OUT name text, OUT owner text, OUT role regrole, OUT mode text, OUT live boolean, OUT acquired_at timestamptz,
    OUT expires_at timestamptz, OUT ttl_remaining interval, OUT token bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'distsys__leases';
COMMENT ON FUNCTION distsys._leases() IS 'Internal: rows of the view leases.';

CREATE VIEW distsys.leases AS SELECT * FROM distsys._leases();
COMMENT ON VIEW distsys.leases IS 'Leases, also those that are dead and not removed yet (live = false). token NULL for roles without the rights of the holder''s role.';

CREATE FUNCTION distsys._waiters(space int, OUT name text, OUT owner text, OUT "position" int, OUT waited interval, OUT pid int) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'distsys__waiters';
COMMENT ON FUNCTION distsys._waiters(int) IS 'Internal: who waits in a key lock space.';

CREATE VIEW distsys.lease_waiters AS SELECT w.name, w.owner, w."position", w.waited, w.pid FROM distsys._waiters(18) w;
COMMENT ON VIEW distsys.lease_waiters IS 'Sessions that wait for a lease, in the order in which they will get it. Empty unless the library is in shared_preload_libraries.';

CREATE FUNCTION distsys._lease_history(OUT number bigint, OUT at timestamptz, OUT domain text, OUT name text, OUT event text, OUT owner text,
    OUT token bigint, OUT reason text) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000 AS 'MODULE_PATHNAME', 'distsys__lease_history';
COMMENT ON FUNCTION distsys._lease_history() IS 'Internal: rows of the view lease_history.';

CREATE VIEW distsys.lease_history AS
    SELECT h.at, h.name, h.event, h.owner, h.token, h.reason, h.domain FROM distsys._lease_history() h ORDER BY h.number;
COMMENT ON VIEW distsys.lease_history IS 'The last 1,000 events of leases and leaders beside acquire, renew and release, oldest first. event: expired (another grant took the place of one that was not released), broken (by an operator, with reason), transferred (owner and token of the new grant). domain: lease or leader.';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('app', 'routine', 'lease_acquire'), ('app', 'routine', 'lease_acquire_all'), ('app', 'routine', 'lease_lock'),
    ('app', 'routine', 'lease_renew'), ('app', 'routine', 'lease_release'), ('app', 'routine', 'lease_assert'), ('app', 'routine', 'lease_get'),
    ('app', 'routine', 'lease_set_data'), ('app', 'routine', 'lease_transfer'), ('app', 'routine', 'lease_session_open'),
    ('app', 'routine', 'lease_session_renew'), ('app', 'routine', 'lease_session_close'),
    ('operator', 'routine', 'lease_break'),
    ('monitor', 'routine', 'lease_get'), ('monitor', 'routine', '_leases'), ('monitor', 'routine', '_waiters'), ('monitor', 'routine', '_lease_history'),
    ('monitor', 'view', 'leases'), ('monitor', 'view', 'lease_waiters'), ('monitor', 'view', 'lease_history');

-- Leaders -------------------------------------------------------------------

CREATE TABLE distsys.leader_term (
    LIKE distsys.lease_grant,
    step_down text,
    successor text,
    PRIMARY KEY (name, slot)
) WITH (fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE distsys.leader_term IS 'Internal: terms of leaders, one row per election, with the columns of lease_grant. Read the view distsys.leaders.';
SELECT pg_catalog.pg_extension_config_dump('distsys.leader_term', '');

CREATE TYPE distsys.leader AS (
    elected             boolean,
    reason              text,
    election            text,
    candidate           text,
    term                bigint,
    value               jsonb,
    expires_at          timestamptz,
    ttl_remaining       interval,
    step_down_requested boolean
);
COMMENT ON TYPE distsys.leader IS 'A term of a leader, or why a campaign was lost. reason: ok | held | pinned | failover_delay | timeout as of leases, not_eligible (priority below 0). Lost: term NULL, candidate, value and times of the present leader. term: fencing token, below 2^53. Count ttl_remaining from before the call, on your own monotonic clock.';

CREATE FUNCTION distsys.leader_campaign(election text, candidate text, ttl interval, wait interval DEFAULT '0', value jsonb DEFAULT NULL,
    priority int DEFAULT 0, request_id uuid DEFAULT NULL) RETURNS distsys.leader
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_leader_campaign';
COMMENT ON FUNCTION distsys.leader_campaign(text, text, interval, interval, jsonb, int, uuid) IS 'Becomes the leader of an election for ttl, or tells who is. election, candidate: 1..255 bytes; ttl, wait, request_id as of lease_acquire(). value: jsonb of at most 8 kB for everybody to read, such as an address. priority: of candidates that wait, the highest is elected first (preloaded); below 0: never, reason not_eligible. A live leader is never replaced: see leader_request_step_down().';

CREATE FUNCTION distsys.leader_renew(election text, term bigint) RETURNS distsys.leader
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_leader_renew';
COMMENT ON FUNCTION distsys.leader_renew(text, bigint) IS 'Prolongs a term by its ttl from now. step_down_requested: an operator asks you to resign. SD002 when this term is over, 42501 for a role without the rights of the leader''s role.';

CREATE FUNCTION distsys.leader_proclaim(election text, term bigint, value jsonb) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_leader_proclaim';
COMMENT ON FUNCTION distsys.leader_proclaim(text, bigint, jsonb) IS 'Replaces the value of a term (NULL: none): true, or SD002 when it is over.';

CREATE FUNCTION distsys.leader_resign(election text, term bigint, successor text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_leader_resign';
COMMENT ON FUNCTION distsys.leader_resign(text, bigint, text) IS 'Ends a term. successor: only that candidate can be elected, before all who wait, until the term would have ended. false: it was over already. Safe to call twice.';

CREATE FUNCTION distsys.leader_current(election text) RETURNS SETOF distsys.leader
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'distsys_leader_current';
COMMENT ON FUNCTION distsys.leader_current(text) IS 'The leader of an election; no row when there is none. Works on a standby. term NULL for roles without the rights of the leader''s role.';

CREATE FUNCTION distsys.leader_assert(election text, term bigint) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_leader_assert';
COMMENT ON FUNCTION distsys.leader_assert(text, bigint) IS 'true, or SD002 when this term is over. Pins it: nobody else is elected before this (sub)transaction ends. As lease_assert().';

CREATE FUNCTION distsys.leader_request_step_down(election text, reason text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_leader_request_step_down';
COMMENT ON FUNCTION distsys.leader_request_step_down(text, text) IS 'Operator: asks the leader to resign; its next leader_renew() says so. Nothing is taken from it. reason: at most 1,024 bytes, shown in distsys.leaders. false: there is no leader.';

CREATE FUNCTION distsys._leaders(OUT election text, OUT candidate text, OUT role regrole, OUT live boolean, OUT term bigint, OUT value jsonb,
    OUT acquired_at timestamptz, OUT expires_at timestamptz, OUT ttl_remaining interval, OUT step_down_requested boolean, OUT step_down_reason text)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'distsys__leaders';
COMMENT ON FUNCTION distsys._leaders() IS 'Internal: rows of the view leaders.';

CREATE VIEW distsys.leaders AS SELECT * FROM distsys._leaders();
COMMENT ON VIEW distsys.leaders IS 'Elections and their last leaders (live = false: nobody leads). term NULL for roles without the rights of the leader''s role.';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('app', 'routine', 'leader_campaign'), ('app', 'routine', 'leader_renew'), ('app', 'routine', 'leader_proclaim'), ('app', 'routine', 'leader_resign'),
    ('app', 'routine', 'leader_current'), ('app', 'routine', 'leader_assert'),
    ('operator', 'routine', 'leader_request_step_down'),
    ('monitor', 'routine', 'leader_current'), ('monitor', 'routine', '_leaders'), ('monitor', 'view', 'leaders');

-- Fences --------------------------------------------------------------------

CREATE TABLE distsys.fence (
    resource  text COLLATE "C" NOT NULL PRIMARY KEY,
    token     bigint NOT NULL,
    passed_at timestamptz NOT NULL
) WITH (fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE distsys.fence IS 'Internal: the highest fencing token that each resource has seen. Read it with distsys.fence_current().';
SELECT pg_catalog.pg_extension_config_dump('distsys.fence', '');

CREATE FUNCTION distsys.fence_pass(resource text, token bigint) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_fence_pass';
COMMENT ON FUNCTION distsys.fence_pass(text, bigint) IS 'false when token is lower than the highest that this resource has seen; else records it and is true. The highest token shares the resource to the end of the transaction, a higher one waits for it: guarded writes commit in token order. resource: 1..255 bytes; token: 1 .. 2^53 - 1. 40001 in REPEATABLE READ and SERIALIZABLE when the snapshot does not see what those with a lower token have written (without preload: when they had to be waited for, or the token was recorded since); see distsys.stale_snapshot.';

CREATE FUNCTION distsys.fence_assert(resource text, token bigint) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_fence_assert';
COMMENT ON FUNCTION distsys.fence_assert(text, bigint) IS 'fence_pass() as a precondition: true, or SD001 with the token and the highest seen in DETAIL. 40001 as there.';

CREATE FUNCTION distsys.fence_current(resource text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_fence_current';
COMMENT ON FUNCTION distsys.fence_current(text) IS 'The highest token that the resource has seen, NULL when none. Works on a standby.';

CREATE FUNCTION distsys._fence_guard() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys__fence_guard';
COMMENT ON FUNCTION distsys._fence_guard() IS 'Internal: the triggers of fence_attach().';

CREATE FUNCTION distsys.fence_attach(rel regclass, lease_name text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_fence_attach';
COMMENT ON FUNCTION distsys.fence_attach(regclass, text) IS 'From the commit on, rows of a table can be written (INSERT, UPDATE, DELETE, MERGE, COPY, TRUNCATE) only in a transaction in which lease_assert(lease_name, token) has succeeded and is still in force: SD002 otherwise. Two ordinary triggers, distsys_fence and distsys_fence_truncate: they do not fire for logical replication apply, and the table''s owner can disable or drop them. Owner of the table only: 42501. Partitioned tables (attach to each partition), views, foreign tables, system catalogs, tables of distsys: 42809. Attached already 42710. lease_name: 1..255 bytes.';

CREATE FUNCTION distsys.fence_detach(rel regclass) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_fence_detach';
COMMENT ON FUNCTION distsys.fence_detach(regclass) IS 'Undoes fence_attach(): true. 42704 when the table has no fence, 42501 for others than its owner.';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('config', 'routine', 'fence_attach'), ('config', 'routine', 'fence_detach'), ('config', 'routine', '_fence_guard');

CREATE FUNCTION distsys.token_epoch() RETURNS int
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_token_epoch';
COMMENT ON FUNCTION distsys.token_epoch() IS 'The epoch of new fencing tokens and positions: token = (epoch << 40) + counter. Rises by one with each promotion, by 256 after a restore or a copy of the database.';

CREATE FUNCTION distsys.token_epoch_bump() RETURNS int
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_token_epoch_bump';
COMMENT ON FUNCTION distsys.token_epoch_bump() IS 'Begins a new epoch and returns it. Call it after what the server cannot notice: a storage snapshot rolled back, a standby started by deleting its signal file. Publishers wait until this transaction ends.';

CREATE FUNCTION distsys.token_advance(min_token bigint) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_token_advance';
COMMENT ON FUNCTION distsys.token_advance(bigint) IS 'Makes sure that every later token and position is above min_token (0 .. 2^53 - 1), and returns a token that every later one is above. For a switch to another server by logical replication: call it there with the highest token of the old one.';

-- Semaphores ----------------------------------------------------------------

CREATE TABLE distsys.semaphore (
    name        text COLLATE "C" NOT NULL PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 255 AND name !~ '[\x01-\x1f\x7f]'),
    permits     int NOT NULL CHECK (permits BETWEEN 1 AND 10000),
    queue_limit int CHECK (queue_limit >= 0)
);
COMMENT ON TABLE distsys.semaphore IS 'Semaphores; ordinary SQL, effective at commit. queue_limit: how many sessions may wait for permits, NULL: any number.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON distsys.semaphore
    FOR EACH STATEMENT EXECUTE FUNCTION distsys._config_changed();
ALTER TABLE distsys.semaphore ENABLE ALWAYS TRIGGER config_changed;
SELECT pg_catalog.pg_extension_config_dump('distsys.semaphore', '');

CREATE TABLE distsys.semaphore_permit (
    name         text COLLATE "C" NOT NULL,
    slot         int NOT NULL,
    owner        text NOT NULL,
    role         regrole NOT NULL,
    token        bigint NOT NULL,
    ttl_us       bigint NOT NULL,
    acquired_at  timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    expires_boot bigint NOT NULL,
    clock_id     bigint NOT NULL,
    released     boolean NOT NULL,
    request_id   uuid,
    PRIMARY KEY (name, slot)
) WITH (fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE distsys.semaphore_permit IS 'Internal: one row per slot of a semaphore, made when the slot is first granted: the grant that has or had it. Read the view distsys.semaphore_permits.';
SELECT pg_catalog.pg_extension_config_dump('distsys.semaphore_permit', '');

CREATE TYPE distsys.semaphore_grant AS (
    acquired      boolean,
    reason        text,
    token         bigint,
    slots         int[],
    expires_at    timestamptz,
    ttl_remaining interval,
    retry_after   interval,
    retry_after_s int
);
COMMENT ON TYPE distsys.semaphore_grant IS 'A grant of permits, or why it was refused. reason: ok | no_permit | queue_full | timeout | failover_delay. token: one for the whole grant, a fencing token, below 2^53. slots: the numbers of its permits, from 1. Refused: retry_after is the time until so many permits have expired (or the delay after a failover is over), retry_after_s the same in whole seconds, rounded up; NULL when permits are free already, but reserved for others that wait, being taken, or pinned. Count ttl_remaining from before the call, on your own monotonic clock.';

CREATE FUNCTION distsys.semaphore_create(name text, permits int, queue_limit int DEFAULT NULL, if_not_exists boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_semaphore_create';
COMMENT ON FUNCTION distsys.semaphore_create(text, int, int, boolean) IS 'Creates a semaphore of 1 .. 10,000 permits. name: 1..255 bytes. queue_limit: how many sessions may wait for permits, who would be one too many gets queue_full at once; NULL: any number, 0: nobody waits. true: created; 42710 when there is one, false with if_not_exists. Permits of a dropped one of this name that are still held are counted.';

CREATE FUNCTION distsys.semaphore_resize(name text, permits int) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_semaphore_resize';
COMMENT ON FUNCTION distsys.semaphore_resize(text, int) IS 'Changes the number of permits (1 .. 10,000), effective at commit; never waits for holders. Fewer: who holds one keeps it until released or expired; until fewer are held than there are now, nobody gets one. More: those who wait are called. false: it had that many. 42704 unknown.';

CREATE FUNCTION distsys.semaphore_drop(name text, if_exists boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_semaphore_drop';
COMMENT ON FUNCTION distsys.semaphore_drop(text, boolean) IS 'Drops a semaphore: nothing is granted any more, those who wait get 42704. Permits that are held stay so until released or expired: renew, release and assert go on. true: dropped; 42704 when there is none, false with if_exists.';

CREATE FUNCTION distsys.semaphore_acquire(name text, owner text, ttl interval, permits int DEFAULT 1, wait interval DEFAULT '0',
    request_id uuid DEFAULT NULL) RETURNS distsys.semaphore_grant
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_semaphore_acquire';
COMMENT ON FUNCTION distsys.semaphore_acquire(text, text, interval, int, interval, uuid) IS 'Acquires permits for ttl (100 ms .. distsys.lease_max_ttl), all or none. owner: a label of 1..255 bytes; the token proves ownership. permits: 22023 when the semaphore has fewer. wait: ''0'' = do not wait, at most distsys.max_function_wait; first come first served when preloaded. A live permit is never taken over; an expired one is not granted again while a transaction that asserted it is open. Durable when COMMIT returns. A bare number is seconds: write ''30 s''. request_id: one per logical attempt, never a host name; the same one answers with the same live grant, for a retry after a lost answer. 42704 unknown semaphore.';

CREATE FUNCTION distsys.semaphore_renew(name text, token bigint, ttl interval DEFAULT NULL) RETURNS distsys.semaphore_grant
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_semaphore_renew';
COMMENT ON FUNCTION distsys.semaphore_renew(text, bigint, interval) IS 'Prolongs all permits of a grant: they expire ttl from now (NULL: the ttl of the grant or of the last renewal). SD002 when token is not a live grant, 42501 for a role without the rights of the holder''s role. Never waits behind somebody who wants permits.';

CREATE FUNCTION distsys.semaphore_release(name text, token bigint) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_semaphore_release';
COMMENT ON FUNCTION distsys.semaphore_release(text, bigint) IS 'Gives all permits of a grant back, once. false: they were not held with this token any more. Safe to call twice. 42501 for a role without the rights of the holder''s role.';

CREATE FUNCTION distsys.semaphore_assert(name text, token bigint) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_semaphore_assert';
COMMENT ON FUNCTION distsys.semaphore_assert(text, bigint) IS 'true, or SD002 when token is not a live grant. Its slots are not granted again before this (sub)transaction ends, even if they expire meanwhile. Use it as a guard: ... AND (SELECT distsys.semaphore_assert(name, token)).';

CREATE FUNCTION distsys._semaphores(OUT name text, OUT permits int, OUT in_use int, OUT waiting int) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'distsys__semaphores';
COMMENT ON FUNCTION distsys._semaphores() IS 'Internal: rows of the view semaphores.';

CREATE VIEW distsys.semaphores AS SELECT * FROM distsys._semaphores();
COMMENT ON VIEW distsys.semaphores IS 'Semaphores. in_use: permits that are held now, more than permits while it shrinks. waiting: sessions that wait for some.';

CREATE FUNCTION distsys._semaphore_permits(OUT name text, OUT slot int, OUT owner text, OUT role regrole, OUT live boolean, OUT acquired_at timestamptz,
    OUT expires_at timestamptz, OUT ttl_remaining interval, OUT token bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'distsys__semaphore_permits';
COMMENT ON FUNCTION distsys._semaphore_permits() IS 'Internal: rows of the view semaphore_permits.';

CREATE VIEW distsys.semaphore_permits AS SELECT * FROM distsys._semaphore_permits();
COMMENT ON VIEW distsys.semaphore_permits IS 'Slots of semaphores that were granted at least once: who holds them (live), or held them last. token NULL for roles without the rights of the holder''s role.';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('app', 'routine', 'semaphore_acquire'), ('app', 'routine', 'semaphore_renew'), ('app', 'routine', 'semaphore_release'),
    ('app', 'routine', 'semaphore_assert'),
    ('config', 'routine', 'semaphore_create'), ('config', 'routine', 'semaphore_resize'), ('config', 'routine', 'semaphore_drop'),
    ('config', 'table', 'semaphore'),
    ('monitor', 'routine', '_semaphores'), ('monitor', 'routine', '_semaphore_permits'),
    ('monitor', 'view', 'semaphores'), ('monitor', 'view', 'semaphore_permits');

-- Quorum --------------------------------------------------------------------

CREATE FUNCTION distsys.quorum_validity(started timestamptz, ttl interval, nodes int, granted int, drift numeric DEFAULT 0.01) RETURNS interval
    LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'distsys_quorum_validity';
COMMENT ON FUNCTION distsys.quorum_validity(timestamptz, interval, int, int, numeric) IS 'How much longer a lock is good that granted of nodes independent servers have given with lease_acquire(.., ttl), when the first was asked at started: ttl - elapsed - ttl * drift - 2 ms. NULL: no majority, or nothing left; release what was granted. drift: share of the ttl by which clocks may run apart, 0 to less than 1. ttl: as of a lease. Reads this server''s clock and nothing else; count elapsed on your own: started => clock_timestamp() - make_interval(secs => $elapsed). NULL 22004; started infinite or in the future, granted > nodes, nodes outside 1..1000 22023. It saves work, it does not protect data: tokens of different servers have no common order.';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('app', 'routine', 'quorum_validity');

-- What is locked ------------------------------------------------------------

CREATE VIEW distsys.locks AS
    SELECT CASE h.space WHEN 1 THEN 'xact' WHEN 16 THEN 'xact' WHEN 17 THEN 'session' WHEN 18 THEN 'lease' WHEN 19 THEN 'lease grant' WHEN 20 THEN 'fence'
                        WHEN 21 THEN 'token state' WHEN 22 THEN 'idempotency' WHEN 23 THEN 'rate limit' WHEN 24 THEN 'sequencer'
                        WHEN 25 THEN 'outbox group' WHEN 26 THEN 'outbox settled' WHEN 27 THEN 'configuration' WHEN 28 THEN 'worker' WHEN 29 THEN 'lease intent'
                        WHEN 30 THEN 'leader' WHEN 31 THEN 'leader grant' WHEN 32 THEN 'lease session' WHEN 33 THEN 'lease history'
                        WHEN 34 THEN 'semaphore' WHEN 35 THEN 'permit' WHEN 36 THEN 'permit request' WHEN 37 THEN 'permit queue' END AS kind,
           coalesce(n.name, k.name) AS name, h.lock_id, h.mode, h.granted, h.pid, a.usename, a.application_name, a.client_addr, a.state, a.xact_start,
           h.waitstart AS waiting_since
    FROM (SELECT l.objsubid::int AS space, (l.classid::bigint << 32) | l.objid::bigint AS lock_id, l.mode, l.granted, l.pid, l.waitstart
          FROM pg_catalog.pg_locks l
          WHERE l.locktype = 'advisory' AND (l.objsubid = 1 OR l.objsubid BETWEEN 16 AND 40)
            AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())) h
    LEFT JOIN (SELECT 18 AS space, distsys._lock_id(18, g.name) AS lock_id, g.name FROM (SELECT DISTINCT l.name FROM distsys.lease_grant l) g
               UNION ALL
               SELECT 30, distsys._lock_id(30, t.name), t.name FROM distsys.leader_term t
               UNION ALL
               SELECT q.space, distsys._lock_id(q.space, s.name), s.name FROM distsys.semaphore s, (VALUES (34), (37)) q(space)
               UNION ALL
               SELECT 35, distsys._lock_id(35, p.name, p.slot), p.name FROM distsys.semaphore_permit p
               UNION ALL
               SELECT 20, distsys._lock_id(20, f.resource), f.resource FROM distsys.fence f) n ON n.space = h.space AND n.lock_id = h.lock_id
    LEFT JOIN (SELECT m.space, m.lock_id, min(m.name) AS name FROM distsys._lock_names() m GROUP BY m.space, m.lock_id) k
           ON k.space = h.space AND k.lock_id = h.lock_id
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = h.pid
    -- the numbers of pg_advisory_lock() only where xact_lock() uses them too: distsys.advisory_keyspace = shared
    WHERE h.space > 1 OR k.name IS NOT NULL;
COMMENT ON VIEW distsys.locks IS 'Key locks of this database that are held or waited for. kind lease: RowExclusive = a pin (lease_assert) or a heartbeat, Exclusive = a grant not committed yet. kind permit, a slot of a semaphore: RowExclusive = a pin (semaphore_assert), ShareUpdateExclusive = a renewal or release, Exclusive = a grant not committed yet. name is known for leases, leaders, semaphores and fences, and when preloaded for the last 8 xact and session locks of each session (session locks that it holds first); for others compare lock_id with distsys._lock_id(16, name) for xact or (17, name) for session locks. pid NULL: a prepared transaction.';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('app', 'routine', 'fence_pass'), ('app', 'routine', 'fence_assert'), ('app', 'routine', 'fence_current'),
    ('app', 'routine', 'token_epoch'),
    ('operator', 'routine', 'token_epoch'), ('operator', 'routine', 'token_epoch_bump'), ('operator', 'routine', 'token_advance'),
    ('monitor', 'routine', 'fence_current'), ('monitor', 'routine', 'token_epoch'),
    ('monitor', 'view', 'locks');

