-- ---------------------------------------------------------------------------
-- ratelimit: limits of every algorithm, tiers, reservations
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
    CONSTRAINT rate_limit_policy_storage CHECK (storage <> 'durable' OR on_abort IS DISTINCT FROM 'keep')
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
    quota      bigint NOT NULL CHECK (quota >= 1),
    period_us  bigint NOT NULL CHECK (period_us >= 1),
    burst      bigint NOT NULL CHECK (burst >= 1),
    kind       smallint NOT NULL CHECK (kind IN (0, 1, 2, 3, 4, 5, 6, 12)),
    window_state bigint NOT NULL,
    times      timestamptz[] CHECK (cardinality(times) <= 1000 AND array_position(times, NULL) IS NULL),
    blocked_until timestamptz,
    blocked_reason text,
    PRIMARY KEY (policy, key)
) WITH (fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE distsys.rate_limit_bucket IS 'Internal: durable buckets. No row is a full limit. kind is the algorithm that counted it (0 token_bucket, 1 gcra, 2 sliding_window_log, 3 sliding_window, 4 fixed_window, 12 fixed_window from the first hit, 5 leaky_bucket, 6 calendar), quota, period_us and burst are those of the last take. Buckets: without common divisors, and credit counts units of token x microsecond: a token costs period_us, each microsecond adds quota. Windows: credit is what was taken, window_state when the window began (sliding_window: what was taken in the one before). times: the log. Read it with distsys.rate_limit_peek() or the view rate_limits.';
SELECT pg_catalog.pg_extension_config_dump('distsys.rate_limit_bucket', '');

-- Tiers: ordinary SQL, cached; effective at commit.
CREATE TABLE distsys.rate_limit_tier (
    tier   text COLLATE "C" NOT NULL PRIMARY KEY CHECK (octet_length(tier) BETWEEN 1 AND 63 AND tier !~ '[\x01-\x1f\x7f]'),
    parent text COLLATE "C" CHECK (parent <> tier)
);
COMMENT ON TABLE distsys.rate_limit_tier IS 'Tiers of subjects (customers, API keys): a tier has the limits of its rows in rate_limit_tier_policy and those of its parents that it does not set itself. A subject without a row in rate_limit_subject is in tier ''default'', which you create. A parent is a tier (23503), not one''s own descendant (42P17), and there are at most 32 in a row.';

-- Not a foreign key: of one within a table pg_dump warns in every dump.
CREATE FUNCTION distsys._rate_limit_tier_check() RETURNS trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bad record;
BEGIN
    IF TG_WHEN = 'BEFORE' THEN
        LOCK TABLE distsys.rate_limit_tier IN SHARE ROW EXCLUSIVE MODE;
        RETURN NULL;
    END IF;
    SELECT c.tier, c.parent INTO bad FROM distsys.rate_limit_tier c
    WHERE c.parent IS NOT NULL AND NOT EXISTS (SELECT FROM distsys.rate_limit_tier p WHERE p.tier = c.parent) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'parent "%" of rate limit tier "%" does not exist', bad.parent, bad.tier USING ERRCODE = 'foreign_key_violation';
    END IF;
    WITH RECURSIVE up(tier, parent, height) AS (
        SELECT t.tier, t.parent, 0 FROM distsys.rate_limit_tier t
        UNION ALL
        SELECT up.tier, t.parent, up.height + 1 FROM up JOIN distsys.rate_limit_tier t ON t.tier = up.parent WHERE up.height <= 32)
    SELECT up.tier INTO bad FROM up WHERE up.height > 32 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'rate limit tier "%" has more than 32 parents', bad.tier
            USING ERRCODE = 'invalid_object_definition', HINT = 'Look for a circle.';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION distsys._rate_limit_tier_check() IS 'Internal: parents of tiers are tiers and make no circle.';
CREATE TRIGGER lock_tiers BEFORE INSERT OR UPDATE OR DELETE ON distsys.rate_limit_tier
    FOR EACH STATEMENT EXECUTE FUNCTION distsys._rate_limit_tier_check();
CREATE TRIGGER check_parents AFTER INSERT OR UPDATE OR DELETE ON distsys.rate_limit_tier
    FOR EACH STATEMENT EXECUTE FUNCTION distsys._rate_limit_tier_check();

CREATE TABLE distsys.rate_limit_tier_policy (
    tier      text COLLATE "C" NOT NULL REFERENCES distsys.rate_limit_tier ON DELETE CASCADE,
    policy    text COLLATE "C" NOT NULL REFERENCES distsys.rate_limit_policy,
    quota     bigint CHECK (quota >= 1),
    burst     bigint CHECK (burst >= 1),
    period    interval CHECK (period > '0' AND period <= '366 days' AND extract(month FROM period) = 0 AND extract(year FROM period) = 0),
    unlimited boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tier, policy)
);
COMMENT ON TABLE distsys.rate_limit_tier_policy IS 'The limits of a tier. quota, burst, period: NULL as the policy has it (a burst that the policy does not set follows the quota; windows have no burst, a calendar keeps its unit). unlimited: no limit at all. What does not fit the policy''s algorithm is 22003 when it is used.';

CREATE TABLE distsys.rate_limit_subject (
    subject     text COLLATE "C" NOT NULL PRIMARY KEY CHECK (octet_length(subject) BETWEEN 1 AND 255),
    tier        text COLLATE "C" NOT NULL REFERENCES distsys.rate_limit_tier,
    valid_until timestamptz
);
COMMENT ON TABLE distsys.rate_limit_subject IS 'The tier of a subject, until valid_until (NULL: for ever); then it is in tier ''default'' again.';

CREATE TABLE distsys.rate_limit_override (
    subject     text COLLATE "C" NOT NULL CHECK (octet_length(subject) BETWEEN 1 AND 255),
    policy      text COLLATE "C" NOT NULL REFERENCES distsys.rate_limit_policy,
    quota       bigint CHECK (quota >= 1),
    burst       bigint CHECK (burst >= 1),
    period      interval CHECK (period > '0' AND period <= '366 days' AND extract(month FROM period) = 0 AND extract(year FROM period) = 0),
    unlimited   boolean NOT NULL DEFAULT false,
    valid_until timestamptz,
    PRIMARY KEY (subject, policy)
);
COMMENT ON TABLE distsys.rate_limit_override IS 'What one subject has instead of what its tier says about a policy, until valid_until (NULL: for ever). It changes a limit of the tier; it does not add one.';

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['rate_limit_tier', 'rate_limit_tier_policy', 'rate_limit_subject', 'rate_limit_override'] LOOP
        EXECUTE pg_catalog.format('CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON distsys.%I FOR EACH STATEMENT EXECUTE FUNCTION distsys._config_changed()', t);
        EXECUTE pg_catalog.format('ALTER TABLE distsys.%I ENABLE ALWAYS TRIGGER config_changed', t);
        PERFORM pg_catalog.pg_extension_config_dump(pg_catalog.format('distsys.%I', t)::regclass, '');
    END LOOP;
END
$$;

CREATE TABLE distsys.rate_limit_reservation (
    reservation bigint NOT NULL PRIMARY KEY,
    policy      text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    cost        bigint NOT NULL,
    act_at      timestamptz NOT NULL
) WITH (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE distsys.rate_limit_reservation IS 'Internal: reservations whose time has not come, so that rate_limit_cancel() finds what they took.';
SELECT pg_catalog.pg_extension_config_dump('distsys.rate_limit_reservation', '');

CREATE SEQUENCE distsys.reservation_counter;
COMMENT ON SEQUENCE distsys.reservation_counter IS 'Internal: numbers of reservations. Drawn by the library, never by nextval().';
SELECT pg_catalog.pg_extension_config_dump('distsys.reservation_counter', '');

CREATE TABLE distsys.rate_limit_snapshot (
    partition     bigint NOT NULL,
    key           uuid NOT NULL,
    policy        text COLLATE "C" NOT NULL,
    kind          smallint NOT NULL,
    quota         bigint NOT NULL,
    period_us     bigint NOT NULL,
    burst         bigint NOT NULL,
    windows       timestamptz[],
    a             bigint NOT NULL,
    b             bigint NOT NULL,
    at            timestamptz NOT NULL,
    blocked_until timestamptz,
    PRIMARY KEY (partition, key)
) WITH (fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE distsys.rate_limit_snapshot IS 'Internal: shared limits with on_restart ''snapshot'' as they were in the last minute, for the time after a crash or a failover. key is a hash. Not dumped: it has meaning in this cluster only.';

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
COMMENT ON TYPE distsys.rate_limit_result IS 'allowed: the verdict of the whole call. reason: ok | limited | cost_exceeds_limit | blocked | contended | shadow | unlimited | disabled | unavailable. quota: as the policy or the tier has it. remaining: whole tokens left now. retry_after: sleep exactly that long and the same cost is there; NULL when allowed and when it can never be. reset_after: until full. next_after: until one token more; gcra: until the next one conforms, 0 while one is left; leaky_bucket, when allowed: how long to wait for the turn of what was just let in. within: this limit''s own verdict. decided_at: the limiter''s clock, read inside the critical section.';

-- Policies -------------------------------------------------------------------

CREATE FUNCTION distsys.rate_limit_create(policy text, quota bigint, period interval, burst bigint DEFAULT NULL,
    algorithm text DEFAULT 'token_bucket', storage text DEFAULT 'durable', on_abort text DEFAULT NULL, on_restart text DEFAULT 'snapshot',
    on_error text DEFAULT 'open', in_transaction text DEFAULT 'allow', mode text DEFAULT 'enforce', calendar_unit text DEFAULT NULL,
    time_zone text DEFAULT 'UTC', anchor text DEFAULT 'epoch', block_for interval DEFAULT NULL, quota_unit text DEFAULT 'requests',
    if_not_exists boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_create';
COMMENT ON FUNCTION distsys.rate_limit_create(text, bigint, interval, bigint, text, text, text, text, text, text, text, text, text, text, interval, text, boolean) IS 'Creates a policy (ASCII name, 1..63 bytes): quota tokens per period (1 us .. 366 days, no months). true: created. algorithm: token_bucket (evenly refilled, at most burst at once, default quota: any window of length t admits at most burst + quota * t / period, exactly) | gcra (admits the same, reports as GCRA does) | leaky_bucket (admits the same into a queue of burst; next_after is the time to one''s turn) | sliding_window_log (never more than quota, at most 1000, in any period; each take writes the whole log) | sliding_window (two counters: an estimate, a true period can hold just under twice the quota) | fixed_window (at most quota per window, so at most twice in any period; anchor ''epoch'': windows where Unix time is a multiple of the period, ''first_hit'': from the first take) | calendar (quota per calendar_unit in time_zone: minute, hour, day, week from Monday, month, year; period is one such unit, e.g. ''1 month''). storage: durable (a row, part of the transaction, works without preload) | shared (shared memory, no lock to commit, nothing written; needs shared_preload_libraries, else 55000). on_abort: refund (default when durable) | keep (default when shared). on_restart (shared): snapshot | full | empty. on_error (shared memory full): open | closed. in_transaction ''forbid'': 25001 inside a transaction block. mode: enforce | shadow (decides, allows all the same) | disabled. block_for: a key that was limited is refused for so long. quota_unit: for headers. 42710 exists, 22003 out of range (buckets: burst x period), 22023 an option that is not the algorithm''s, 0A000 durable with keep.';

CREATE FUNCTION distsys.rate_limit_alter(policy text, quota bigint DEFAULT NULL, period interval DEFAULT NULL, burst bigint DEFAULT NULL,
    algorithm text DEFAULT NULL, storage text DEFAULT NULL, on_abort text DEFAULT NULL, on_restart text DEFAULT NULL,
    on_error text DEFAULT NULL, in_transaction text DEFAULT NULL, mode text DEFAULT NULL, calendar_unit text DEFAULT NULL,
    time_zone text DEFAULT NULL, anchor text DEFAULT NULL, block_for interval DEFAULT NULL, quota_unit text DEFAULT NULL,
    on_change text DEFAULT 'proportionally') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_alter';
COMMENT ON FUNCTION distsys.rate_limit_alter(text, bigint, interval, bigint, text, text, text, text, text, text, text, text, text, text, interval, text, text) IS 'Changes what is not NULL; effective at commit. on_change says what becomes of keys in use when quota, period, burst, algorithm or anchor change: proportionally (as full as they were) | as_is (the same tokens) | additive (and the growth of the burst) | reset (full); a full key stays full. Another algorithm drops the options that are not its own; another storage starts full. Errors as in rate_limit_create(), 42704 unknown.';

CREATE FUNCTION distsys.rate_limit_drop(policy text, if_exists boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_drop';
COMMENT ON FUNCTION distsys.rate_limit_drop(text, boolean) IS 'Drops a policy. Its keys go when they would have been full again; a policy of the same name created before that finds them. true: dropped. 42704 unknown, 2BP01 a tier or an override uses it (the tables that say so are locked against writes to the end of the transaction).';

CREATE FUNCTION distsys._calendar_window(unit text, time_zone text, at timestamptz, OUT begins timestamptz, OUT ends timestamptz) RETURNS record
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'distsys__calendar_window';
COMMENT ON FUNCTION distsys._calendar_window(text, text, timestamptz) IS 'Internal: the window of a calendar limit that holds a moment: minutes and hours from the local clock''s full ones, days, weeks (from Monday), months and years from local midnight. A midnight that does not exist is the moment of the change; of one that comes twice the second counts.';

-- Taking ---------------------------------------------------------------------

CREATE FUNCTION distsys.rate_limit_take(policy text, key text, cost bigint DEFAULT 1) RETURNS distsys.rate_limit_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_take';
COMMENT ON FUNCTION distsys.rate_limit_take(text, text, bigint) IS 'Takes cost tokens (>= 0; 0 looks only) from the limit of key (1..255 bytes), or says when to come back. A refused call writes nothing (but the first of a policy with block_for). durable: take it as its own statement before BEGIN: inside a transaction the key is locked to its end and a rollback gives the tokens back; contended: another transaction held the key for longer than distsys.rate_limit_wait; 25006 READ ONLY or standby. shared: no lock outlives the call, works in READ ONLY transactions; unavailable: no room for the key (on_error). Call it in FROM: (f()).* takes once per column. 42704 unknown policy, 25001 in_transaction forbid, 55000 shared without shared_preload_libraries.';

CREATE FUNCTION distsys.rate_limit_peek(policy text, key text, cost bigint DEFAULT 1) RETURNS distsys.rate_limit_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_peek';
COMMENT ON FUNCTION distsys.rate_limit_peek(text, text, bigint) IS 'What rate_limit_take() would answer now; changes nothing, works in READ ONLY transactions and on a standby. A new key is full.';

CREATE FUNCTION distsys.rate_limit_take_or_raise(policy text, key text, cost bigint DEFAULT 1) RETURNS distsys.rate_limit_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_take_or_raise';
COMMENT ON FUNCTION distsys.rate_limit_take_or_raise(text, text, bigint) IS 'rate_limit_take() with refusals as errors: SD201 limited, SD202 contended or unavailable (PT429, PT503 with distsys.http_sqlstate); DETAIL is the row as JSON. An error rolls a durable take of the same transaction back.';

CREATE FUNCTION distsys.rate_limit_take_up_to(policy text, key text, cost bigint) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_take_up_to';
COMMENT ON FUNCTION distsys.rate_limit_take_up_to(text, text, bigint) IS 'Takes as much of cost (>= 0) as is there and returns how much that was, 0..cost: 0 when nothing is left, the key is blocked or contended. All of cost when the policy is in shadow mode (which takes what is there) or disabled. Otherwise as rate_limit_take().';

CREATE FUNCTION distsys.rate_limit_charge(policy text, key text, cost bigint) RETURNS distsys.rate_limit_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_charge';
COMMENT ON FUNCTION distsys.rate_limit_charge(text, text, bigint) IS 'Takes cost (>= 0, also more than the limit) whatever is there: for a cost that is known only after the work. Buckets and the sliding window go into debt and work it off; a fixed or calendar window forgets its debt when it ends; a log counts at most its quota. Also while the key is blocked. allowed is true, but for contended: another transaction held the limit for longer than distsys.max_function_wait. 22003: more debt than can be counted.';

CREATE FUNCTION distsys.rate_limit_refund(policy text, key text, cost bigint) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_refund';
COMMENT ON FUNCTION distsys.rate_limit_refund(text, text, bigint) IS 'Gives cost (>= 0) back, never above full, and returns the whole tokens that came back. It counts now: windows give back what was taken in this one. SD202: another transaction held the limit for longer than distsys.max_function_wait.';

CREATE FUNCTION distsys.rate_limit_reserve(policy text, key text, cost bigint, wait interval,
    OUT granted boolean, OUT reason text, OUT reservation bigint, OUT delay interval, OUT act_at timestamptz) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_reserve';
COMMENT ON FUNCTION distsys.rate_limit_reserve(text, text, bigint, interval) IS 'Takes cost now, to be used after delay, which is at most wait (0 .. 366 days); in order of the calls. granted false: it would be later, and nothing is taken. reservation (below 2^53, for rate_limit_cancel()) is NULL when there is nothing to cancel: refused, or granted for now. Does not sleep. Algorithms token_bucket and gcra promise what will come in; leaky_bucket gives a place in its queue of burst; others 0A000.';

CREATE FUNCTION distsys.rate_limit_cancel(reservation bigint) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_cancel';
COMMENT ON FUNCTION distsys.rate_limit_cancel(bigint) IS 'Cancels a reservation and returns the tokens that came back: its cost, or 0 when others were reserved after it (they were timed by it), when its time has come, and when it is unknown or cancelled. SD202: another transaction held the limit for longer than distsys.max_function_wait.';

CREATE FUNCTION distsys.rate_limit_block(policy text, key text, duration interval, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_block';
COMMENT ON FUNCTION distsys.rate_limit_block(text, text, interval, text) IS 'Refuses every take of key for duration (> 0, at most 100 years, no months), whatever is left; a longer or shorter block before it is replaced. reason (1..255 bytes) is shown in the view rate_limits. Durable: waits for an open take, at most distsys.max_function_wait, then SD202. true. For operators.';

CREATE FUNCTION distsys.rate_limit_unblock(policy text, key text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_unblock';
COMMENT ON FUNCTION distsys.rate_limit_unblock(text, text) IS 'Lifts a block, also one of block_for; what is left in the limit stays. false: there was none. Durable: waits for an open take, at most distsys.max_function_wait, then SD202. For operators.';

CREATE FUNCTION distsys.rate_limit_reset(policy text, key text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_reset';
COMMENT ON FUNCTION distsys.rate_limit_reset(text, text) IS 'Makes a limit full again and lifts its block. false: it was full. Durable: waits for an open take, at most distsys.max_function_wait, then SD202. For operators.';

CREATE FUNCTION distsys.rate_limit_http(policies text[], keys text[], costs bigint[] DEFAULT NULL, style text DEFAULT 'ietf',
    OUT allowed boolean, OUT status int, OUT headers jsonb, OUT problem jsonb, OUT violated text[]) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_http';
COMMENT ON FUNCTION distsys.rate_limit_http(text[], text[], bigint[], text) IS 'Takes from one or several limits, all or nothing, and returns what a web framework sends: status 200, 429 or 503 (contended), headers as an object of strings, problem details (RFC 9457, NULL when allowed), and the policies that refuse. costs NULL: 1 each. style: ietf (RateLimit-Policy, RateLimit) | x (X-RateLimit-*, reset in epoch seconds) | draft06 (RateLimit-*, reset in seconds); Retry-After always. 2202E arrays of different length, 22023 the same limit twice.';

CREATE FUNCTION distsys.rate_limit_take_all(policies text[], keys text[], costs bigint[] DEFAULT NULL) RETURNS SETOF distsys.rate_limit_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_take_all';
COMMENT ON FUNCTION distsys.rate_limit_take_all(text[], text[], bigint[]) IS 'Takes from several limits of any storage, from all or from none; one row per limit in the order of the arguments. allowed: the verdict of the whole call on every row; within: this limit''s own. costs NULL: 1 each. Call it in FROM. 2202E arrays of different length, 22023 the same limit twice.';

CREATE FUNCTION distsys.rate_limit_take_for(subject text, cost bigint DEFAULT 1, policies text[] DEFAULT NULL) RETURNS SETOF distsys.rate_limit_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_take_for';
COMMENT ON FUNCTION distsys.rate_limit_take_for(text, bigint, text[]) IS 'Takes cost from every limit of the subject''s tier and its parents (in order of their names), or from the named ones, all or nothing, as rate_limit_take_all(). The key is the subject. What counts: its row in rate_limit_override, its tier, the tier''s parents, the policy. Without a row in rate_limit_subject it is in tier ''default''. 42704: there is no such tier, or it has no limits.';

CREATE FUNCTION distsys.rate_limit_headers(policies text[], keys text[], style text DEFAULT 'ietf') RETURNS jsonb
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_headers';
COMMENT ON FUNCTION distsys.rate_limit_headers(text[], text[], text) IS 'The headers of rate_limit_http() for what is left now, as an object of strings; changes nothing, works in READ ONLY transactions. Retry-After only when a key is blocked.';

CREATE FUNCTION distsys.rate_limit_wait(policy text, key text, cost bigint DEFAULT 1, wait interval DEFAULT '5 s') RETURNS distsys.rate_limit_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_rate_limit_wait';
COMMENT ON FUNCTION distsys.rate_limit_wait(text, text, bigint, interval) IS 'Takes cost and sleeps until it may be used, at most wait (0 .. distsys.max_function_wait), in order of arrival; refused at once when it would take longer, with the retry_after of a take. The row is as of the end of the wait. A cancel or a lost connection gives the tokens back unless others wait behind it. Shared policies with algorithm token_bucket, gcra or leaky_bucket only: 0A000. It sleeps in its statement, with the snapshot of that statement.';
INSERT INTO distsys.access_object (profile, kind, name) VALUES ('app', 'routine', 'rate_limit_wait');

-- Views ----------------------------------------------------------------------

CREATE FUNCTION distsys._rate_limits(OUT policy text, OUT key text, OUT storage text, OUT algorithm text, OUT capacity bigint, OUT remaining bigint,
    OUT reset_after interval, OUT blocked_until timestamptz, OUT blocked_reason text, OUT last_used_at timestamptz) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys__rate_limits';
COMMENT ON FUNCTION distsys._rate_limits() IS 'Internal: rows of the view distsys.rate_limits.';

CREATE VIEW distsys.rate_limits AS
    SELECT l.policy, l.key, l.storage, l.algorithm, l.capacity, l.remaining, l.reset_after, l.blocked_until, l.blocked_reason, l.last_used_at
    FROM distsys._rate_limits() l;
COMMENT ON VIEW distsys.rate_limits IS 'Every limit that is in use: what of its capacity (burst or quota, as counted at its last use) remains now, and whether it is blocked. A key that is not here is full. A full one stays here until the sweep, or until another needs its room in shared memory, which knows keys by their hash: the key is NULL unless it is one of those that are used most. For one key ask rate_limit_peek().';

CREATE FUNCTION distsys._rate_limit_shared_hot_keys(OUT policy text, OUT key text, OUT takes bigint, OUT last_used_at timestamptz) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys__rate_limit_shared_hot_keys';
COMMENT ON FUNCTION distsys._rate_limit_shared_hot_keys() IS 'Internal: the shared part of the view distsys.rate_limit_hot_keys.';

CREATE VIEW distsys.rate_limit_hot_keys AS
    SELECT s.policy, s.key, 'shared' AS storage, s.takes, s.last_used_at FROM distsys._rate_limit_shared_hot_keys() s
    UNION ALL
    (SELECT b.policy, b.key, 'durable', NULL, b.updated_at FROM distsys.rate_limit_bucket b ORDER BY b.updated_at DESC LIMIT 100);
COMMENT ON VIEW distsys.rate_limit_hot_keys IS 'The keys that are used most: of shared limits the 100 with the most calls (takes: about how many in the last minutes, from every 16th call of a session), of durable ones the 100 that were written last (their takes are not counted: takes is NULL).';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('monitor', 'view', 'rate_limits'), ('monitor', 'routine', '_rate_limits'),
    ('monitor', 'view', 'rate_limit_hot_keys'), ('monitor', 'routine', '_rate_limit_shared_hot_keys'),
    ('operator', 'view', 'rate_limits'), ('operator', 'routine', '_rate_limits'),
    ('app', 'routine', 'rate_limit_take_up_to'), ('app', 'routine', 'rate_limit_charge'), ('app', 'routine', 'rate_limit_refund'),
    ('app', 'routine', 'rate_limit_reserve'), ('app', 'routine', 'rate_limit_cancel'), ('app', 'routine', 'rate_limit_take_all'),
    ('app', 'routine', 'rate_limit_take_for'), ('app', 'routine', 'rate_limit_headers'),
    ('config', 'table', 'rate_limit_tier'), ('config', 'table', 'rate_limit_tier_policy'), ('config', 'table', 'rate_limit_subject'),
    ('config', 'table', 'rate_limit_override'),
    ('operator', 'routine', 'rate_limit_block'), ('operator', 'routine', 'rate_limit_unblock'),
    ('app', 'routine', 'rate_limit_take'), ('app', 'routine', 'rate_limit_peek'), ('app', 'routine', 'rate_limit_take_or_raise'),
    ('app', 'routine', 'rate_limit_http'),
    ('config', 'routine', 'rate_limit_create'), ('config', 'routine', 'rate_limit_alter'), ('config', 'routine', 'rate_limit_drop'),
    ('config', 'table', 'rate_limit_policy'),
    ('operator', 'routine', 'rate_limit_reset'),
    ('monitor', 'routine', 'rate_limit_peek');

