-- ---------------------------------------------------------------------------
-- idempotency: keys with replay
-- ---------------------------------------------------------------------------

CREATE TABLE distsys.idempotency_policy (
    policy              text COLLATE "C" NOT NULL PRIMARY KEY CHECK (octet_length(policy) BETWEEN 1 AND 63),
    retention           interval NOT NULL CHECK (retention BETWEEN '1 s' AND '3650 days' AND extract(month FROM retention) = 0 AND extract(year FROM retention) = 0),
    ttl                 interval NOT NULL CHECK (ttl BETWEEN '100 ms' AND '1 day' AND extract(month FROM ttl) = 0),
    require_fingerprint boolean NOT NULL,
    max_response_bytes  int NOT NULL CHECK (max_response_bytes >= 0),
    max_attempts        int CHECK (max_attempts >= 1)
);
COMMENT ON TABLE distsys.idempotency_policy IS 'Policies of idempotency keys; ordinary SQL, effective at commit. The policy "default" exists without a row: retention 24 hours, ttl 60 s, fingerprint required, answers up to 1 MiB, any number of attempts.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON distsys.idempotency_policy
    FOR EACH STATEMENT EXECUTE FUNCTION distsys._config_changed();
ALTER TABLE distsys.idempotency_policy ENABLE ALWAYS TRIGGER config_changed;
SELECT pg_catalog.pg_extension_config_dump('distsys.idempotency_policy', '');

CREATE TABLE distsys.idempotency_record (
    scope            text COLLATE "C" NOT NULL,
    key              text COLLATE "C" NOT NULL,
    policy           text NOT NULL,
    role             regrole NOT NULL,
    state            smallint NOT NULL,
    token            bigint NOT NULL,
    attempt          int NOT NULL,
    fingerprint      bytea,
    request_id       uuid,
    recovery_point   text,
    checkpoint       jsonb,
    response_code    int,
    response_headers jsonb,
    response_body    text,
    response_bytes   bytea,
    error            text,
    created_at       timestamptz NOT NULL,
    completed_at     timestamptz,
    retain_until     timestamptz NOT NULL,
    retention_us     bigint NOT NULL,
    ttl_us           bigint NOT NULL,
    expires_at       timestamptz NOT NULL,
    expires_boot     bigint NOT NULL,
    clock_id         bigint NOT NULL,
    PRIMARY KEY (scope, key)
) WITH (fillfactor = 60, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE distsys.idempotency_record IS 'Internal: one row per idempotency key. state: 1 claimed, 2 completed, 3 given up. Read it with distsys.idempotency_get().';
SELECT pg_catalog.pg_extension_config_dump('distsys.idempotency_record', '');

CREATE TYPE distsys.idempotency_result AS (
    status           text,
    token            bigint,
    attempt          int,
    recovery_point   text,
    checkpoint       jsonb,
    response_code    int,
    response_headers jsonb,
    response_body    text,
    response_bytes   bytea,
    error            text,
    retry_after      interval,
    retry_after_s    int,
    created_at       timestamptz,
    completed_at     timestamptz,
    expires_at       timestamptz,
    ttl_remaining    interval
);
COMMENT ON TYPE distsys.idempotency_result IS 'status: started (first holder: run, then complete) | resumed (an earlier holder failed or expired: go on from recovery_point) | replay (finished: return the stored answer) | in_progress (a live holder: 409 and retry_after) | mismatch (same key, other request: 422) | exhausted (max_attempts of the policy used up: 500, dead-letter it). expires_at and ttl_remaining: of the claim while it is held, of the stored answer once it is finished. token: below 2^53, for the holder only.';

-- Policies -------------------------------------------------------------------

CREATE FUNCTION distsys.idempotency_policy_create(policy text, retention interval DEFAULT '24 hours', ttl interval DEFAULT '60 s',
    require_fingerprint boolean DEFAULT true, max_response_bytes int DEFAULT 1048576, max_attempts int DEFAULT NULL,
    if_not_exists boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_idempotency_policy_create';
COMMENT ON FUNCTION distsys.idempotency_policy_create(text, interval, interval, boolean, int, int, boolean) IS 'Creates a policy (name 1..63 bytes): how long answers are kept (retention, from 1 s), how long a claim lives without renewal (ttl, 100 ms .. 1 day), whether begin needs a fingerprint, the size limit of stored answers (bytes), and how many attempts a key may have (NULL: any number; beyond it begin answers exhausted). true: created. 42710 when it exists.';

CREATE FUNCTION distsys.idempotency_policy_alter(policy text, retention interval DEFAULT NULL, ttl interval DEFAULT NULL,
    require_fingerprint boolean DEFAULT NULL, max_response_bytes int DEFAULT NULL, max_attempts int DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_idempotency_policy_alter';
COMMENT ON FUNCTION distsys.idempotency_policy_alter(text, interval, interval, boolean, int, int) IS 'Changes what is not NULL. Keys begun before keep their retention. 42704 when the policy has no row (create "default" before altering it).';

CREATE FUNCTION distsys.idempotency_policy_drop(policy text, if_exists boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_idempotency_policy_drop';
COMMENT ON FUNCTION distsys.idempotency_policy_drop(text, boolean) IS 'Drops a policy; its keys stay until their retention ends. true: dropped. 42704 when there is none.';

-- The life of a key ----------------------------------------------------------

CREATE FUNCTION distsys.idempotency_begin(scope text, key text, fingerprint bytea, request_id uuid DEFAULT NULL, policy text DEFAULT 'default',
    ttl interval DEFAULT NULL, wait interval DEFAULT '0') RETURNS distsys.idempotency_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_idempotency_begin';
COMMENT ON FUNCTION distsys.idempotency_begin(text, text, bytea, uuid, text, interval, interval) IS 'Claims a key, or says what became of it. scope (tenant, endpoint) and key: 1..255 bytes. fingerprint: 32 bytes, see fingerprint_json(). request_id: one per logical attempt, never a host name: the same one gets the same claim again after a lost answer. ttl: NULL = the policy''s. wait: ''0'' never blocks. Either begin, work and complete in one transaction (an abort frees the key), or begin, COMMIT, external call, complete, COMMIT (the claim is on disk before the call). 22004 without a fingerprint that the policy requires, 22023 not 32 bytes, 42704 unknown policy, 42501 a key of another role.';

CREATE FUNCTION distsys.idempotency_begin_or_raise(scope text, key text, fingerprint bytea, request_id uuid DEFAULT NULL, policy text DEFAULT 'default',
    ttl interval DEFAULT NULL, wait interval DEFAULT '0') RETURNS distsys.idempotency_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_idempotency_begin_or_raise';
COMMENT ON FUNCTION distsys.idempotency_begin_or_raise(text, text, bytea, uuid, text, interval, interval) IS 'idempotency_begin() with refusals as errors: SD101 in progress, SD102 mismatch.';

CREATE FUNCTION distsys.idempotency_checkpoint(scope text, key text, token bigint, recovery_point text, data jsonb DEFAULT NULL, ttl interval DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_idempotency_checkpoint';
COMMENT ON FUNCTION distsys.idempotency_checkpoint(text, text, bigint, text, jsonb, interval) IS 'Notes how far the holder is (recovery_point: 1..63 bytes; data replaces the earlier one) and prolongs the claim. SD103 when the claim is lost, 42704 unknown key.';

CREATE FUNCTION distsys.idempotency_complete(scope text, key text, token bigint, response_code int, response_body text DEFAULT NULL, response_headers jsonb DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_idempotency_complete';
COMMENT ON FUNCTION distsys.idempotency_complete(text, text, bigint, int, text, jsonb) IS 'Stores the answer; later begins replay it, text as text. response_code: 0..999. Completing again with the same bytes is true, with others SD103; so is completing after somebody else has resumed the key. A claim that expired but was not taken over may complete. 54000 over the policy''s size: complete without a body.';

CREATE FUNCTION distsys.idempotency_complete_bytes(scope text, key text, token bigint, response_code int, response_bytes bytea, response_headers jsonb DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_idempotency_complete_bytes';
COMMENT ON FUNCTION distsys.idempotency_complete_bytes(text, text, bigint, int, bytea, jsonb) IS 'idempotency_complete() for a binary body, replayed in response_bytes.';

CREATE FUNCTION distsys.idempotency_fail(scope text, key text, token bigint, retryable boolean DEFAULT true, error text DEFAULT NULL,
    response_code int DEFAULT NULL, response_body text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_idempotency_fail';
COMMENT ON FUNCTION distsys.idempotency_fail(text, text, bigint, boolean, text, int, text) IS 'Gives the key up. retryable: no answer is stored, the next begin is resumed and gets error and checkpoint. Not retryable: code, body and error are stored and replayed.';

CREATE FUNCTION distsys.idempotency_renew(scope text, key text, token bigint, ttl interval DEFAULT NULL) RETURNS SETOF distsys.idempotency_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'distsys_idempotency_renew';
COMMENT ON FUNCTION distsys.idempotency_renew(text, text, bigint, interval) IS 'Prolongs a claim: it expires ttl from now (NULL: the ttl it has). One row. SD103 when the claim is lost.';

CREATE FUNCTION distsys.idempotency_get(scope text, key text) RETURNS SETOF distsys.idempotency_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'distsys_idempotency_get';
COMMENT ON FUNCTION distsys.idempotency_get(text, text) IS 'What a begin would be answered now, without claiming: replay, in_progress or resumed; no row for a key that is not known. Works on a standby. 42501 for roles without the rights of the key''s role.';

CREATE FUNCTION distsys.idempotency_forget(scope text, key text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_idempotency_forget';
COMMENT ON FUNCTION distsys.idempotency_forget(text, text) IS 'Forgets a key, answer and all: the next begin starts anew. false: it was not known. For operators.';

CREATE FUNCTION distsys.idempotency_abandoned(older_than interval, max_rows int DEFAULT 100,
    OUT scope text, OUT key text, OUT recovery_point text, OUT checkpoint jsonb, OUT attempt int, OUT expired_at timestamptz) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'distsys_idempotency_abandoned';
COMMENT ON FUNCTION distsys.idempotency_abandoned(interval, int) IS 'Claims that expired at least older_than ago and were never finished, in key order: the feed of a completer, which begins them again (resumed). Reads the whole table: for a worker, not for a request. Only keys whose role the caller has the rights of.';

-- Fingerprints and keys ------------------------------------------------------

CREATE FUNCTION distsys.fingerprint_json(body jsonb) RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'distsys_fingerprint_json';
COMMENT ON FUNCTION distsys.fingerprint_json(jsonb) IS 'SHA-256 of a JSON document; order of keys, white space and trailing zeros (1.0 = 1) do not matter, of duplicate keys the last counts.';

CREATE FUNCTION distsys.fingerprint_parts(VARIADIC parts text[]) RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'distsys_fingerprint_parts';
COMMENT ON FUNCTION distsys.fingerprint_parts(text[]) IS 'SHA-256 of parts, each with its length before it (8 bytes, big-endian). No part may be NULL.';

CREATE FUNCTION distsys.fingerprint_request(method text, path text, body text) RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'distsys_fingerprint_request';
COMMENT ON FUNCTION distsys.fingerprint_request(text, text, text) IS 'SHA-256 of a request, byte for byte; body may be NULL (no body), which differs from an empty one.';

CREATE FUNCTION distsys.idempotency_key(namespace text, VARIADIC parts text[]) RETURNS uuid
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'distsys_idempotency_key';
COMMENT ON FUNCTION distsys.idempotency_key(text, text[]) IS 'A deterministic key: UUID version 8 (RFC 9562) over SHA-256 of namespace and parts, each with its length before it.';

CREATE FUNCTION distsys.idempotency_key_parse(header text) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'distsys_idempotency_key_parse';
COMMENT ON FUNCTION distsys.idempotency_key_parse(text) IS 'The key in an Idempotency-Key header: an RFC 8941 string ("abc", with \" and \\) or a bare token; both give the same key. 22023 for anything else, 22001 over 255 bytes.';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('app', 'routine', 'idempotency_begin'), ('app', 'routine', 'idempotency_begin_or_raise'), ('app', 'routine', 'idempotency_checkpoint'),
    ('app', 'routine', 'idempotency_complete'), ('app', 'routine', 'idempotency_complete_bytes'), ('app', 'routine', 'idempotency_fail'),
    ('app', 'routine', 'idempotency_renew'), ('app', 'routine', 'idempotency_get'), ('app', 'routine', 'fingerprint_json'),
    ('app', 'routine', 'fingerprint_parts'), ('app', 'routine', 'fingerprint_request'), ('app', 'routine', 'idempotency_key'),
    ('app', 'routine', 'idempotency_key_parse'),
    ('consumer', 'routine', 'idempotency_abandoned'),
    ('config', 'routine', 'idempotency_policy_create'), ('config', 'routine', 'idempotency_policy_alter'),
    ('config', 'routine', 'idempotency_policy_drop'), ('config', 'table', 'idempotency_policy'),
    ('operator', 'routine', 'idempotency_forget'), ('operator', 'routine', 'idempotency_abandoned'),
    ('monitor', 'routine', 'idempotency_get');

