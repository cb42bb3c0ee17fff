-- ---------------------------------------------------------------------------
-- ratelimit: token buckets
-- ---------------------------------------------------------------------------

CREATE TABLE distsys.rate_limit_policy (
    policy         text COLLATE "C" NOT NULL PRIMARY KEY CHECK (octet_length(policy) BETWEEN 1 AND 63 AND policy ~ '^[ -~]+$'),
    quota          bigint NOT NULL CHECK (quota >= 1),
    period         interval NOT NULL,
    burst          bigint CHECK (burst >= 1),
    algorithm      text NOT NULL DEFAULT 'token_bucket' CHECK (algorithm IN ('token_bucket', 'gcra', 'sliding_window_log', 'sliding_window', 'fixed_window', 'leaky_bucket', 'calendar')),
    storage        text NOT NULL DEFAULT 'durable' CHECK (storage IN ('durable', 'shared')),
    on_abort       text CHECK (on_abort IN ('refund', 'keep')),
    on_restart     text NOT NULL DEFAULT 'snapshot' CHECK (on_restart IN ('snapshot', 'full', 'empty')),
    on_error       text NOT NULL DEFAULT 'open' CHECK (on_error IN ('open', 'closed')),
    in_transaction text NOT NULL DEFAULT 'allow' CHECK (in_transaction IN ('allow', 'forbid')),
    mode           text NOT NULL DEFAULT 'enforce' CHECK (mode IN ('enforce', 'shadow', 'disabled')),
    calendar_unit  text CHECK (calendar_unit IN ('minute', 'hour', 'day', 'week', 'month', 'year')),
    time_zone      text NOT NULL DEFAULT 'UTC' CHECK (octet_length(time_zone) <= 63 AND pg_catalog.timezone(time_zone, timestamptz '2000-01-01 00:00:00+00') IS NOT NULL),
    anchor         text NOT NULL DEFAULT 'epoch' CHECK (anchor IN ('epoch', 'first_hit')),
    block_for      interval CHECK (block_for > '0' AND block_for <= '366 days' AND extract(month FROM block_for) = 0 AND extract(year FROM block_for) = 0),
    quota_unit     text NOT NULL DEFAULT 'requests' CHECK (octet_length(quota_unit) BETWEEN 1 AND 63 AND quota_unit ~ '^[ -~]+$'),
    on_change      text NOT NULL DEFAULT 'proportionally' CHECK (on_change IN ('reset', 'proportionally', 'as_is', 'additive')),
    changed_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT rate_limit_policy_period CHECK (CASE WHEN algorithm = 'calendar'
        THEN calendar_unit IS NOT NULL AND period = CASE calendar_unit WHEN 'minute' THEN interval '1 min' WHEN 'hour' THEN '1 h' WHEN 'day' THEN '1 day'
                                                    WHEN 'week' THEN '7 days' WHEN 'month' THEN '1 month' ELSE '1 year' END
        ELSE period > '0' AND period <= '366 days' AND extract(month FROM period) = 0 AND extract(year FROM period) = 0 END),
    CONSTRAINT rate_limit_policy_range CHECK (CASE WHEN algorithm IN ('token_bucket', 'gcra', 'leaky_bucket')
        THEN extract(epoch FROM period) * 1000000 / pg_catalog.gcd(extract(epoch FROM period) * 1000000, quota::numeric) * coalesce(burst, quota) < 9223372036854775808
        ELSE quota <= 2305843009213693951 AND (algorithm <> 'sliding_window_log' OR quota <= 1000) END),
    CONSTRAINT rate_limit_policy_belongs CHECK ((algorithm IN ('token_bucket', 'gcra', 'leaky_bucket') OR burst IS NULL OR burst = quota)
        AND (algorithm = 'calendar' OR (calendar_unit IS NULL AND upper(time_zone) = 'UTC'))
        AND (algorithm = 'fixed_window' OR anchor = 'epoch')),
    CONSTRAINT rate_limit_policy_storage CHECK (CASE storage WHEN 'durable' THEN on_abort IS DISTINCT FROM 'keep' ELSE algorithm <> 'sliding_window_log' END)
);
COMMENT ON TABLE distsys.rate_limit_policy IS 'Rate limit policies; ordinary SQL, effective at commit. burst NULL: the quota.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON distsys.rate_limit_policy
    FOR EACH STATEMENT EXECUTE FUNCTION distsys._config_changed();
ALTER TABLE distsys.rate_limit_policy ENABLE ALWAYS TRIGGER config_changed;
SELECT pg_catalog.pg_extension_config_dump('distsys.rate_limit_policy', '');

CREATE TABLE distsys.rate_limit_bucket (
    policy     text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    credit     bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    quota      bigint NOT NULL,
    period_us  bigint NOT NULL,
    burst      bigint NOT NULL,
    kind       smallint NOT NULL,
    window_state bigint NOT NULL,
    times      timestamptz[],
    blocked_until timestamptz,
    blocked_reason text,
    PRIMARY KEY (policy, key)
) WITH (fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE distsys.rate_limit_bucket IS 'Internal: durable buckets. No row is a full limit. kind is the algorithm that counted it (0 token_bucket, 1 gcra, 2 sliding_window_log, 3 sliding_window, 4 fixed_window, 12 fixed_window from the first hit, 5 leaky_bucket, 6 calendar), quota, period_us and burst are those of the last take. Buckets: without common divisors, and credit counts units of token x microsecond: a token costs period_us, each microsecond adds quota. Windows: credit is what was taken, window_state when the window began (sliding_window: what was taken in the one before). times: the log. Read it with distsys.rate_limit_peek() or the view rate_limits.';
SELECT pg_catalog.pg_extension_config_dump('distsys.rate_limit_bucket', '');

CREATE TYPE distsys.rate_limit_result AS (
    allowed       boolean,
    reason        text,
    policy        text,
    key           text,
    quota         bigint,
    remaining     bigint,
    retry_after   interval,
    retry_after_s int,
    reset_after   interval,
    next_after    interval,
    within        boolean,
    decided_at    timestamptz
);
COMMENT ON TYPE distsys.rate_limit_result IS 'allowed: the verdict of the whole call. reason: ok | limited | cost_exceeds_limit | contended | shadow | disabled (later: blocked, unlimited, unavailable). remaining: whole tokens left now. retry_after: sleep exactly that long and the same cost is there; NULL when allowed and when it can never be. reset_after: until full. next_after: until one token more. within: this limit''s own verdict. decided_at: the limiter''s clock, read inside the critical section.';

-- Policies -------------------------------------------------------------------

CREATE FUNCTION distsys.rate_limit_create(policy text, quota bigint, period interval, burst bigint DEFAULT NULL,
    algorithm text DEFAULT 'token_bucket', storage text DEFAULT 'durable', on_abort text DEFAULT NULL, on_restart text DEFAULT 'snapshot',
    on_error text DEFAULT 'open', in_transaction text DEFAULT 'allow', mode text DEFAULT 'enforce', calendar_unit text DEFAULT NULL,
    time_zone text DEFAULT 'UTC', anchor text DEFAULT 'epoch', block_for interval DEFAULT NULL, quota_unit text DEFAULT 'requests',
    if_not_exists boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_create';
COMMENT ON FUNCTION distsys.rate_limit_create(text, bigint, interval, bigint, text, text, text, text, text, text, text, text, text, text, interval, text, boolean) IS 'Creates a policy (ASCII name, 1..63 bytes): quota tokens per period (1 us .. 366 days, no months), at most burst at once (default: quota). Any window of length t admits at most burst + quota * t / period, exactly. in_transaction ''forbid'': 25001 inside a transaction block. mode: enforce | shadow (decide, allow all the same) | disabled. true: created. 42710 exists, 22003 burst x period out of range. ';

CREATE FUNCTION distsys.rate_limit_alter(policy text, quota bigint DEFAULT NULL, period interval DEFAULT NULL, burst bigint DEFAULT NULL,
    algorithm text DEFAULT NULL, storage text DEFAULT NULL, on_abort text DEFAULT NULL, on_restart text DEFAULT NULL,
    on_error text DEFAULT NULL, in_transaction text DEFAULT NULL, mode text DEFAULT NULL, calendar_unit text DEFAULT NULL,
    time_zone text DEFAULT NULL, anchor text DEFAULT NULL, block_for interval DEFAULT NULL, quota_unit text DEFAULT NULL,
    on_change text DEFAULT 'proportionally') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_alter';
COMMENT ON FUNCTION distsys.rate_limit_alter(text, bigint, interval, bigint, text, text, text, text, text, text, text, text, text, text, interval, text, text) IS 'Changes what is not NULL; effective at commit. on_change says what becomes of buckets in use when quota, period or burst change: proportionally (as full as they were) | as_is (the same tokens) | additive (and the growth of the burst) | reset (full). 42704 unknown.';

CREATE FUNCTION distsys.rate_limit_drop(policy text, if_exists boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_drop';
COMMENT ON FUNCTION distsys.rate_limit_drop(text, boolean) IS 'Drops a policy. Its buckets go when they would have been full again; a policy of the same name created before that finds them. true: dropped. 42704 unknown.';

-- Taking ---------------------------------------------------------------------

CREATE FUNCTION distsys.rate_limit_take(policy text, key text, cost bigint DEFAULT 1) RETURNS distsys.rate_limit_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_take';
COMMENT ON FUNCTION distsys.rate_limit_take(text, text, bigint) IS 'Takes cost tokens (>= 0; 0 looks only) from the bucket of key (1..255 bytes), or says when to come back. A refused call writes nothing. Take it as its own statement before BEGIN: inside a transaction the bucket is locked to its end and a rollback gives the tokens back. contended: another transaction held the bucket for longer than distsys.rate_limit_wait. Call it in FROM: (f()).* takes once per column. 42704 unknown policy, 25001 in_transaction forbid, 25006 READ ONLY or standby.';

CREATE FUNCTION distsys.rate_limit_peek(policy text, key text, cost bigint DEFAULT 1) RETURNS distsys.rate_limit_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_peek';
COMMENT ON FUNCTION distsys.rate_limit_peek(text, text, bigint) IS 'What rate_limit_take() would answer now; changes nothing, works in READ ONLY transactions and on a standby. A new key is a full bucket.';

CREATE FUNCTION distsys.rate_limit_take_or_raise(policy text, key text, cost bigint DEFAULT 1) RETURNS distsys.rate_limit_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_take_or_raise';
COMMENT ON FUNCTION distsys.rate_limit_take_or_raise(text, text, bigint) IS 'rate_limit_take() with refusals as errors: SD201 limited, SD202 contended; DETAIL is the row as JSON.';

CREATE FUNCTION distsys.rate_limit_reset(policy text, key text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_reset';
COMMENT ON FUNCTION distsys.rate_limit_reset(text, text) IS 'Fills a bucket. false: it was full. For operators.';

CREATE FUNCTION distsys.rate_limit_http(policies text[], keys text[], costs bigint[] DEFAULT NULL, style text DEFAULT 'ietf',
    OUT allowed boolean, OUT status int, OUT headers jsonb, OUT problem jsonb, OUT violated text[]) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_http';
COMMENT ON FUNCTION distsys.rate_limit_http(text[], text[], bigint[], text) IS 'Takes from one or several limits, all or nothing, and returns what a web framework sends: status 200, 429 or 503 (contended), headers as an object of strings, problem details (RFC 9457, NULL when allowed), and the policies that refuse. costs NULL: 1 each. style: ietf (RateLimit-Policy, RateLimit) | x (X-RateLimit-*, reset in epoch seconds) | draft06 (RateLimit-*, reset in seconds); Retry-After always. 2202E arrays of different length, 22023 the same limit twice.';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('app', 'routine', 'rate_limit_take'), ('app', 'routine', 'rate_limit_peek'), ('app', 'routine', 'rate_limit_take_or_raise'),
    ('app', 'routine', 'rate_limit_http'),
    ('config', 'routine', 'rate_limit_create'), ('config', 'routine', 'rate_limit_alter'), ('config', 'routine', 'rate_limit_drop'),
    ('config', 'table', 'rate_limit_policy'),
    ('operator', 'routine', 'rate_limit_reset'),
    ('monitor', 'routine', 'rate_limit_peek');

