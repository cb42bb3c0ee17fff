-- ---------------------------------------------------------------------------
-- outbox: events in commit order
-- ---------------------------------------------------------------------------

CREATE TABLE distsys.outbox_topic (
    topic     text COLLATE "C" NOT NULL PRIMARY KEY CHECK (octet_length(topic) BETWEEN 1 AND 63),
    retention interval NOT NULL CHECK (retention BETWEEN '1 s' AND '3650 days' AND extract(month FROM retention) = 0 AND extract(year FROM retention) = 0),
    ce_source text CHECK (octet_length(ce_source) BETWEEN 1 AND 255)
);
COMMENT ON TABLE distsys.outbox_topic IS 'Topics of the outbox; ordinary SQL, effective at commit. ce_source: source of CloudEvents.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON distsys.outbox_topic
    FOR EACH STATEMENT EXECUTE FUNCTION distsys._config_changed();
ALTER TABLE distsys.outbox_topic ENABLE ALWAYS TRIGGER config_changed;
SELECT pg_catalog.pg_extension_config_dump('distsys.outbox_topic', '');

-- The columns carry the names that Debezium's outbox event router reads: aggregatetype is the topic, aggregateid the key.
CREATE TABLE distsys.outbox_event_log (
    aggregatetype text COLLATE "C" NOT NULL,
    position      bigint NOT NULL,
    id            uuid NOT NULL,
    type          text NOT NULL,
    aggregateid   text,
    payload       jsonb,
    body          bytea,
    headers       jsonb,
    occurred_at   timestamptz NOT NULL,
    PRIMARY KEY (aggregatetype, position)
) WITH (vacuum_truncate = off, autovacuum_vacuum_insert_scale_factor = 0.1);
COMMENT ON TABLE distsys.outbox_event_log IS 'Internal: events, written at COMMIT by the sequencer. Read them with distsys.outbox_read() or outbox_fetch(): a plain SELECT does not know which positions are settled.';
SELECT pg_catalog.pg_extension_config_dump('distsys.outbox_event_log', '');

CREATE TABLE distsys.outbox_retained (
    topic           text COLLATE "C" NOT NULL PRIMARY KEY,
    removed_through bigint NOT NULL
) WITH (fillfactor = 50, vacuum_truncate = off);
COMMENT ON TABLE distsys.outbox_retained IS 'Internal: the highest position that retention has removed of each topic.';
SELECT pg_catalog.pg_extension_config_dump('distsys.outbox_retained', '');

CREATE TABLE distsys.outbox_settled (
    singleton  boolean NOT NULL PRIMARY KEY CHECK (singleton),
    position   bigint NOT NULL,
    settled_at timestamptz NOT NULL
) WITH (fillfactor = 10, vacuum_truncate = off, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE distsys.outbox_settled IS 'Internal: one row, a position up to which every event is visible or will never exist. Standbys read up to it.';
SELECT pg_catalog.pg_extension_config_dump('distsys.outbox_settled', '');

CREATE TABLE distsys.outbox_group (
    topic        text COLLATE "C" NOT NULL,
    group_name   text COLLATE "C" NOT NULL,
    mode         text NOT NULL CHECK (mode IN ('ordered')),
    partitions   int NOT NULL CHECK (partitions = 1),
    ttl          interval NOT NULL CHECK (ttl BETWEEN '100 ms' AND '1 day' AND extract(month FROM ttl) = 0),
    max_attempts int NOT NULL CHECK (max_attempts >= 1),
    backoff_base interval NOT NULL CHECK (backoff_base BETWEEN '0' AND '30 days' AND extract(month FROM backoff_base) = 0),
    backoff_cap  interval NOT NULL CHECK (backoff_cap BETWEEN '0' AND '30 days' AND extract(month FROM backoff_cap) = 0),
    on_failure   text NOT NULL CHECK (on_failure IN ('skip')),
    PRIMARY KEY (topic, group_name)
);
COMMENT ON TABLE distsys.outbox_group IS 'Consumer groups. Create and drop them with distsys.outbox_group_create() and _drop(), which keep the cursor with them; options are ordinary SQL, effective at commit.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON distsys.outbox_group
    FOR EACH STATEMENT EXECUTE FUNCTION distsys._config_changed();
ALTER TABLE distsys.outbox_group ENABLE ALWAYS TRIGGER config_changed;
SELECT pg_catalog.pg_extension_config_dump('distsys.outbox_group', '');

CREATE TABLE distsys.outbox_cursor (
    topic        text COLLATE "C" NOT NULL,
    group_name   text COLLATE "C" NOT NULL,
    position     bigint NOT NULL,
    fetched      bigint NOT NULL,
    epoch        bigint NOT NULL,
    member       text,
    pid          int NOT NULL,
    claim_base   bigint NOT NULL,
    receipt_last bigint NOT NULL,
    ttl_through  bigint NOT NULL,
    expires_at   timestamptz NOT NULL,
    expires_boot bigint NOT NULL,
    clock_id     bigint NOT NULL,
    receipts     bigint[] NOT NULL,
    positions    bigint[] NOT NULL,
    attempts     bigint[] NOT NULL,
    retried      bigint[] NOT NULL,
    PRIMARY KEY (topic, group_name)
) WITH (fillfactor = 10, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE distsys.outbox_cursor IS 'Internal: where each group is and what it has in flight (receipts, positions, attempts in parallel). Read the view distsys.outbox_groups.';
SELECT pg_catalog.pg_extension_config_dump('distsys.outbox_cursor', '');

CREATE TABLE distsys.outbox_retry (
    topic       text COLLATE "C" NOT NULL,
    group_name  text COLLATE "C" NOT NULL,
    position    bigint NOT NULL,
    attempts    int NOT NULL,
    next_at     timestamptz NOT NULL,
    reason      text,
    id          uuid NOT NULL,
    type        text NOT NULL,
    key         text,
    payload     jsonb,
    body        bytea,
    headers     jsonb,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (topic, group_name, position)
) WITH (fillfactor = 70, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE distsys.outbox_retry IS 'Internal: events that wait for another attempt of a group, each with a copy of the event.';
SELECT pg_catalog.pg_extension_config_dump('distsys.outbox_retry', '');

CREATE TABLE distsys.outbox_dead_letter (
    topic       text COLLATE "C" NOT NULL,
    group_name  text COLLATE "C" NOT NULL,
    position    bigint NOT NULL,
    attempts    int NOT NULL,
    died_at     timestamptz NOT NULL,
    reason      text,
    id          uuid NOT NULL,
    type        text NOT NULL,
    key         text,
    payload     jsonb,
    body        bytea,
    headers     jsonb,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (topic, group_name, position)
);
COMMENT ON TABLE distsys.outbox_dead_letter IS 'Internal: events that a group has given up. Read the view distsys.outbox_dead_letters, put them back with distsys.outbox_redrive().';
SELECT pg_catalog.pg_extension_config_dump('distsys.outbox_dead_letter', '');

CREATE TYPE distsys.outbox_event AS (
    position    bigint,
    topic       text,
    id          uuid,
    type        text,
    key         text,
    payload     jsonb,
    body        bytea,
    headers     jsonb,
    occurred_at timestamptz
);
COMMENT ON TYPE distsys.outbox_event IS 'An event. position: rises in commit order, below 2^53, not dense. payload or body is NULL: out comes what went in. occurred_at: when it was published, before its commit.';

CREATE TYPE distsys.outbox_delivery AS (
    position    bigint,
    topic       text,
    id          uuid,
    type        text,
    key         text,
    payload     jsonb,
    body        bytea,
    headers     jsonb,
    occurred_at timestamptz,
    attempt     int,
    receipt     bigint,
    epoch       bigint
);
COMMENT ON TYPE distsys.outbox_delivery IS 'An event handed to a member of a group. attempt: 1 the first time. receipt: what ack, nack and reject take. epoch: rises when the claim changes hands.';

-- Topics ---------------------------------------------------------------------

CREATE FUNCTION distsys.outbox_topic_create(topic text, retention interval DEFAULT '3 days', ce_source text DEFAULT NULL, if_not_exists boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_topic_create';
COMMENT ON FUNCTION distsys.outbox_topic_create(text, interval, text, boolean) IS 'Creates a topic (name 1..63 bytes). retention (from 1 s): events older than this that every group has settled are removed by the worker. true: created. 42710 exists.';

CREATE FUNCTION distsys.outbox_topic_alter(topic text, retention interval DEFAULT NULL, ce_source text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_topic_alter';
COMMENT ON FUNCTION distsys.outbox_topic_alter(text, interval, text) IS 'Changes what is not NULL. 42704 unknown.';

CREATE FUNCTION distsys.outbox_topic_drop(topic text, if_exists boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_topic_drop';
COMMENT ON FUNCTION distsys.outbox_topic_drop(text, boolean) IS 'Drops a topic; the worker removes its events, and a new topic of the same name does not show them. 2BP01 while it has groups, 42704 unknown.';

-- Publishing -----------------------------------------------------------------

CREATE FUNCTION distsys.outbox_publish(topic text, type text, payload jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL, id uuid DEFAULT NULL, deliver_at timestamptz DEFAULT NULL) RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_publish';
COMMENT ON FUNCTION distsys.outbox_publish(text, text, jsonb, text, jsonb, uuid, timestamptz) IS 'Publishes an event with this transaction: it exists when the transaction commits, at a position in commit order, and not at all when it rolls back. type, key: 1..255 bytes; headers: an object. Returns its id (UUID version 7 unless given). 42704 unknown topic, 54000 payload over distsys.outbox_max_bytes, 25006 READ ONLY or standby; PREPARE TRANSACTION afterwards is 0A000. deliver_at is not built yet: 0A000.';

CREATE FUNCTION distsys.outbox_publish_bytes(topic text, type text, body bytea, key text DEFAULT NULL, headers jsonb DEFAULT NULL, id uuid DEFAULT NULL, deliver_at timestamptz DEFAULT NULL) RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_publish_bytes';
COMMENT ON FUNCTION distsys.outbox_publish_bytes(text, text, bytea, text, jsonb, uuid, timestamptz) IS 'outbox_publish() for a binary body.';

CREATE FUNCTION distsys.outbox_publish_all(topic text, events jsonb) RETURNS uuid[]
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_publish_all';
COMMENT ON FUNCTION distsys.outbox_publish_all(text, jsonb) IS 'Publishes an array of events [{"type", "payload", "key", "headers", "id"}, ...], type and payload required, in this order at consecutive positions. Returns their ids. 22023 for anything else, with the element in DETAIL; 22P02 for an id that is not a UUID.';

-- Reading --------------------------------------------------------------------

CREATE FUNCTION distsys.outbox_read(topic text, after bigint DEFAULT 0, max_events int DEFAULT 100) RETURNS SETOF distsys.outbox_event
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'distsys_outbox_read';
COMMENT ON FUNCTION distsys.outbox_read(text, bigint, int) IS 'Events after a position (0: from the first retained one) in commit order, without state: keep the last position yourself, also outside the server. No event is skipped, none is shown before its rows can be read, and what was read survives a crash. Waits up to distsys.outbox_read_wait for commits in progress, then stops at what is settled. Works READ ONLY and on a standby (settled prefix). 22003 when after is below what is retained, 42704 unknown topic.';

-- Groups ---------------------------------------------------------------------

CREATE FUNCTION distsys.outbox_group_create(topic text, group_name text, mode text DEFAULT 'ordered', start_from text DEFAULT 'earliest', partitions int DEFAULT 1,
    ttl interval DEFAULT '30 s', max_attempts int DEFAULT 10, backoff_base interval DEFAULT '1 s', backoff_cap interval DEFAULT '10 min',
    on_failure text DEFAULT 'skip', if_not_exists boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_group_create';
COMMENT ON FUNCTION distsys.outbox_group_create(text, text, text, text, int, interval, int, interval, interval, text, boolean) IS 'Creates a consumer group. start_from: earliest | latest | a position | a timestamp. ttl (100 ms .. 1 day): how long what was fetched stays claimed. max_attempts: then an event is a dead letter. Delay before attempt n + 1: random() * least(backoff_cap, backoff_base * 2^(n - 1)). true: created. Built: mode ordered, one partition, on_failure skip (a failed event is retried later, others go on); other known words 0A000.';

CREATE FUNCTION distsys.outbox_group_alter(topic text, group_name text, ttl interval DEFAULT NULL, max_attempts int DEFAULT NULL,
    backoff_base interval DEFAULT NULL, backoff_cap interval DEFAULT NULL, on_failure text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_group_alter';
COMMENT ON FUNCTION distsys.outbox_group_alter(text, text, interval, int, interval, interval, text) IS 'Changes what is not NULL. 42704 unknown.';

CREATE FUNCTION distsys.outbox_group_drop(topic text, group_name text, if_exists boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_group_drop';
COMMENT ON FUNCTION distsys.outbox_group_drop(text, text, boolean) IS 'Drops a group with its position, retries and dead letters. 42704 unknown.';

CREATE FUNCTION distsys.outbox_fetch(topic text, group_name text, member text, max_events int DEFAULT 100) RETURNS SETOF distsys.outbox_delivery
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'distsys_outbox_fetch';
COMMENT ON FUNCTION distsys.outbox_fetch(text, text, text, int) IS 'Hands at most max_events to a member (1..63 bytes), in the order of positions: what another member lost, retries that are due, new events. No row while another member holds a claim; a claim ends with its ttl, counted for the events that were fetched first and are not settled (fetching more does not prolong it, settling them does), and at once when the connection that fetched is gone. The position moves only over what was acknowledged.';

CREATE FUNCTION distsys.outbox_ack(topic text, group_name text, receipts bigint[]) RETURNS int
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_ack';
COMMENT ON FUNCTION distsys.outbox_ack(text, text, bigint[]) IS 'Acknowledges deliveries; returns how many were not settled before. In the transaction of the effect it makes the effect exactly-once: roll back when it returns fewer than it was given, as after a COMMIT whose answer was lost. SD301 for a receipt whose claim was lost.';

CREATE FUNCTION distsys.outbox_nack(topic text, group_name text, receipts bigint[], delay interval DEFAULT NULL, reason text DEFAULT NULL,
    OUT receipt bigint, OUT outcome text) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'distsys_outbox_nack';
COMMENT ON FUNCTION distsys.outbox_nack(text, text, bigint[], interval, text) IS 'Gives deliveries back. outcome: retry (after delay, NULL: the group''s back-off) | dead (max_attempts used up). One row for each receipt that was not settled before. SD301 for a receipt whose claim was lost.';

CREATE FUNCTION distsys.outbox_reject(topic text, group_name text, receipts bigint[], reason text DEFAULT NULL) RETURNS int
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_reject';
COMMENT ON FUNCTION distsys.outbox_reject(text, text, bigint[], text) IS 'Makes deliveries dead letters at once; returns how many. SD301 for a receipt whose claim was lost.';

CREATE FUNCTION distsys.outbox_seek(topic text, group_name text, start_from text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_seek';
COMMENT ON FUNCTION distsys.outbox_seek(text, text, text) IS 'Moves a group: earliest | latest | a position | a timestamp (reads the topic from its beginning). What is in flight or waits for a retry is dropped, its receipts are SD301; dead letters stay. 22003 below what is retained, 22023 a position above all that were given out.';

CREATE FUNCTION distsys.outbox_redrive(topic text, group_name text, ids uuid[] DEFAULT NULL, max_rows int DEFAULT 100) RETURNS int
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'distsys_outbox_redrive';
COMMENT ON FUNCTION distsys.outbox_redrive(text, text, uuid[], int) IS 'Delivers dead letters of a group again, from attempt 1: all (ids NULL) or those with these ids, at most max_rows; returns how many. What the group gets anyway after outbox_seek(), or has in flight, comes once.';

-- Views ----------------------------------------------------------------------

CREATE VIEW distsys.outbox_topics AS
    SELECT t.topic,
           (SELECT e.position FROM distsys.outbox_event_log e WHERE e.aggregatetype = t.topic ORDER BY e.position DESC LIMIT 1) AS head,
           (SELECT e.position FROM distsys.outbox_event_log e WHERE e.aggregatetype = t.topic ORDER BY e.position LIMIT 1) AS oldest,
           (pg_catalog.pg_total_relation_size('distsys.outbox_event_log') *
            coalesce((SELECT f.freq
                      FROM pg_catalog.pg_stats s, ROWS FROM (pg_catalog.unnest(s.most_common_vals::text::text[]), pg_catalog.unnest(s.most_common_freqs)) AS f (val, freq)
                      WHERE s.schemaname = 'distsys' AND s.tablename = 'outbox_event_log' AND s.attname = 'aggregatetype' AND f.val = t.topic),
                     CASE WHEN EXISTS (SELECT FROM distsys.outbox_event_log e WHERE e.aggregatetype = t.topic) THEN 1.0 / (SELECT pg_catalog.count(*) FROM distsys.outbox_topic) ELSE 0 END))::bigint AS bytes,
           (SELECT pg_catalog.round(s.value / greatest(extract(epoch FROM pg_catalog.clock_timestamp() - s.since), 1), 1)
            FROM distsys.stats s WHERE s.domain = 'outbox' AND s.object = t.topic AND s.metric = 'published') AS events_per_s
    FROM distsys.outbox_topic t;
COMMENT ON VIEW distsys.outbox_topics IS 'Topics. head, oldest: highest and lowest position that is stored. bytes: estimate from the statistics of ANALYZE. events_per_s: published per second since the counter in distsys.stats began; NULL without shared_preload_libraries.';

CREATE VIEW distsys.outbox_groups AS
    SELECT g.topic, g.group_name, g.mode,
           (SELECT e.position FROM distsys.outbox_event_log e WHERE e.aggregatetype = g.topic ORDER BY e.position DESC LIMIT 1) AS head,
           c.position,
           (SELECT pg_catalog.count(*) FROM (SELECT FROM distsys.outbox_event_log e WHERE e.aggregatetype = g.topic AND e.position > c.position ORDER BY e.position LIMIT 10001) AS behind) AS lag_events,
           coalesce((SELECT pg_catalog.clock_timestamp() - e.occurred_at FROM distsys.outbox_event_log e WHERE e.aggregatetype = g.topic AND e.position > c.position ORDER BY e.position LIMIT 1), '0') AS lag_time,
           pg_catalog.cardinality(c.receipts) AS in_flight,
           (SELECT pg_catalog.count(*) FROM (SELECT FROM distsys.outbox_dead_letter d WHERE d.topic = g.topic AND d.group_name = g.group_name LIMIT 10001) AS dead) AS dead,
           CASE WHEN pg_catalog.cardinality(c.receipts) > 0 THEN c.member END AS owner,
           c.epoch
    FROM distsys.outbox_group g JOIN distsys.outbox_cursor c USING (topic, group_name);
COMMENT ON VIEW distsys.outbox_groups IS 'Consumer groups. position: everything up to it is settled. lag_events: events after it, counted up to 10,001. lag_time: age of the first of them. in_flight: fetched and not settled, owner: by whom. dead: dead letters, counted up to 10,001.';

CREATE VIEW distsys.outbox_dead_letters AS
    SELECT d.topic, d.group_name, d.position, d.id, d.type, d.key, d.payload, d.body, d.headers, d.occurred_at, d.attempts, d.reason, d.died_at
    FROM distsys.outbox_dead_letter d;
COMMENT ON VIEW distsys.outbox_dead_letters IS 'Events that a group has given up, with the reason. distsys.outbox_redrive() delivers them again.';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('app', 'routine', 'outbox_publish'), ('app', 'routine', 'outbox_publish_bytes'), ('app', 'routine', 'outbox_publish_all'),
    ('consumer', 'routine', 'outbox_read'), ('consumer', 'routine', 'outbox_fetch'), ('consumer', 'routine', 'outbox_ack'),
    ('consumer', 'routine', 'outbox_nack'), ('consumer', 'routine', 'outbox_reject'),
    ('config', 'routine', 'outbox_topic_create'), ('config', 'routine', 'outbox_topic_alter'), ('config', 'routine', 'outbox_topic_drop'),
    ('config', 'routine', 'outbox_group_create'), ('config', 'routine', 'outbox_group_alter'), ('config', 'routine', 'outbox_group_drop'),
    ('config', 'routine', 'outbox_seek'), ('config', 'routine', 'outbox_redrive'), ('config', 'table', 'outbox_topic'),
    ('operator', 'routine', 'outbox_seek'), ('operator', 'routine', 'outbox_redrive'),
    ('monitor', 'view', 'outbox_topics'), ('monitor', 'view', 'outbox_groups'), ('monitor', 'view', 'outbox_dead_letters');

