-- Groups: fetch, ack, nack, reject, retries, dead letters, redrive, claims and their loss, seek, retention.
SET client_min_messages = warning;
\set VERBOSITY sqlstate
SELECT distsys.outbox_topic_create('group'), distsys.outbox_group_create('group', 'g', max_attempts => 3, backoff_base => '10 s', backoff_cap => '15 s');
CREATE TEMP TABLE d (n serial, LIKE distsys.outbox_event_log, member text, attempt int, receipt bigint, epoch bigint);
-- fetches into d; answers with what came
CREATE FUNCTION pg_temp.take(member text, max_events int DEFAULT 100, group_name text DEFAULT 'g') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer text;
BEGIN
    WITH fetched AS (SELECT * FROM distsys.outbox_fetch('group', take.group_name, take.member, max_events)),
         kept AS (INSERT INTO d (aggregatetype, position, id, type, occurred_at, payload, member, attempt, receipt, epoch)
                  SELECT topic, position, id, type, occurred_at, payload, take.member, attempt, receipt, epoch FROM fetched ORDER BY position RETURNING d.*)
    SELECT string_agg(type || CASE WHEN attempt > 1 THEN '/' || attempt ELSE '' END, ' ' ORDER BY position) INTO answer FROM kept;
    RETURN answer;
END $$;
-- the last receipts of these events, '' for all that a member got last
CREATE FUNCTION pg_temp.receipts(types text) RETURNS bigint[] LANGUAGE sql AS $$
    SELECT array_agg(receipt ORDER BY receipt) FROM (SELECT DISTINCT ON (type) receipt FROM d WHERE type = ANY (string_to_array(types, ' ')) ORDER BY type, n DESC) r
$$;
CREATE FUNCTION pg_temp.ack(types text) RETURNS int LANGUAGE sql AS $$ SELECT distsys.outbox_ack('group', 'g', pg_temp.receipts(types)) $$;
CREATE FUNCTION pg_temp.nack(types text, delay interval DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(outcome, ' ' ORDER BY receipt) FROM distsys.outbox_nack('group', 'g', pg_temp.receipts(types), delay, 'because')
$$;
CREATE FUNCTION pg_temp.publish(types text) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(distsys.outbox_publish('group', type, to_jsonb(type))) FROM unnest(string_to_array(types, ' ')) type
$$;
CREATE VIEW pg_temp.state AS
    SELECT g.group_name, (SELECT type FROM distsys.outbox_event_log e WHERE e.aggregatetype = g.topic AND e.position = g.position) AS position, lag_events AS lag, lag_time > '0' AS late,
           in_flight, dead, owner, epoch
    FROM distsys.outbox_groups g WHERE topic = 'group';

-- fetch hands out at most max_events, in order; the position moves over what is acknowledged only
SELECT pg_temp.publish('a b c d e');
SELECT pg_temp.take('m', 3);
SELECT * FROM pg_temp.state;
SELECT payload, epoch, receipt - min(receipt) OVER () AS receipt FROM d ORDER BY n;
SELECT pg_temp.ack('b');
SELECT * FROM pg_temp.state;
SELECT pg_temp.ack('a'), pg_temp.ack('a b');
SELECT * FROM pg_temp.state;
-- the same member gets more while it holds some, another one does not
SELECT pg_temp.take('other');
SELECT pg_temp.take('m', 1);
SELECT pg_temp.ack('c d');
SELECT * FROM pg_temp.state;
-- nothing in flight: anybody may go on; receipts of the first one are history
SELECT pg_temp.take('other');
SELECT pg_temp.ack('d');
SELECT pg_temp.ack('e'), pg_temp.take('other'), pg_temp.take('m');
SELECT * FROM pg_temp.state;

-- nack: later, others go on; the attempt counts
SELECT pg_temp.publish('f g h');
SELECT pg_temp.take('m');
SELECT pg_temp.nack('f', '1 min'), pg_temp.nack('f'), pg_temp.ack('g');
SELECT * FROM pg_temp.state;
SELECT pg_temp.ack('h'), pg_temp.take('m');
SELECT * FROM pg_temp.state;
SET distsys.clock_offset = '59 s';
SELECT pg_temp.take('m');
SET distsys.clock_offset = '61 s';
SELECT pg_temp.take('m');
-- full jitter: at most backoff_base at first, twice that then, never more than backoff_cap
SELECT pg_temp.nack('f');
SELECT attempts, next_at < clock_timestamp() + interval '76 s' AS soon, reason FROM distsys.outbox_retry;
SET distsys.clock_offset = '77 s';
SELECT pg_temp.take('m');
-- the last attempt: dead
SELECT pg_temp.nack('f');
SELECT type, payload, attempts, reason FROM distsys.outbox_dead_letters WHERE topic = 'group';
SELECT count(*) FROM distsys.outbox_retry;
SELECT * FROM pg_temp.state;
-- reject: dead at once
SELECT pg_temp.publish('i j');
SELECT pg_temp.take('m');
SELECT distsys.outbox_reject('group', 'g', pg_temp.receipts('i'), 'bad'), distsys.outbox_reject('group', 'g', pg_temp.receipts('i j'));
SELECT type, attempts, reason FROM distsys.outbox_dead_letters WHERE topic = 'group' ORDER BY position;

-- redrive: from the first attempt, also when the event itself is gone; by id, at most max_rows
DELETE FROM distsys.outbox_event_log WHERE aggregatetype = 'group' AND type = 'f';
SELECT distsys.outbox_redrive('group', 'g', '{}'), distsys.outbox_redrive('group', 'g', ARRAY[gen_random_uuid()]);
SELECT distsys.outbox_redrive('group', 'g', (SELECT array_agg(id) FROM distsys.outbox_dead_letters WHERE type = 'i'));
SELECT pg_temp.take('m');
SELECT distsys.outbox_redrive('group', 'g', max_rows => 1), distsys.outbox_redrive('group', 'g'), distsys.outbox_redrive('group', 'g');
SELECT pg_temp.take('m');
SELECT payload FROM d ORDER BY n DESC LIMIT 2;
SELECT pg_temp.ack('f i'), pg_temp.nack('j', '0');
SELECT pg_temp.take('m');
SELECT pg_temp.ack('j');
SELECT count(*) FROM distsys.outbox_retry;
SELECT * FROM pg_temp.state;
RESET distsys.clock_offset;

-- the ttl: what was in flight goes to the next one with new receipts, the old ones are SD301
SELECT pg_temp.publish('k l m');
SELECT pg_temp.take('m');
SELECT pg_temp.ack('k');
SET distsys.clock_offset = '29 s';
SELECT pg_temp.take('other');
-- nobody has taken it over: a late ack is accepted
SET distsys.clock_offset = '31 s';
SELECT pg_temp.ack('l');
-- settling what is oldest gives the rest a new ttl
SET distsys.clock_offset = '60 s';
SELECT pg_temp.take('other');
SET distsys.clock_offset = '62 s';
SELECT pg_temp.take('other');
SELECT distsys.outbox_ack('group', 'g', (SELECT array_agg(receipt) FROM d WHERE type = 'm' AND member = 'm'));
SELECT distsys.outbox_nack('group', 'g', (SELECT array_agg(receipt) FROM d WHERE type = 'm' AND member = 'm'));
SELECT distsys.outbox_reject('group', 'g', (SELECT array_agg(receipt) FROM d WHERE type = 'm' AND member = 'm'));
SELECT * FROM pg_temp.state;
SELECT pg_temp.ack('m');
-- fetching more does not keep what the member has lost sight of
SELECT pg_temp.publish('n');
SELECT pg_temp.take('m');
SET distsys.clock_offset = '80 s';
SELECT pg_temp.publish('o');
SELECT pg_temp.take('m');
SET distsys.clock_offset = '93 s';
SELECT pg_temp.take('m');
SELECT pg_temp.ack('n o');
-- an event that is lost at every attempt is a dead letter
SELECT pg_temp.publish('p q');
SELECT pg_temp.take('m1');
SET distsys.clock_offset = '130 s';
SELECT pg_temp.take('m2', 1);
-- the rest follows before anything new
SELECT pg_temp.publish('r');
SELECT pg_temp.take('m2', 1), pg_temp.take('m2', 1);
SET distsys.clock_offset = '170 s';
SELECT pg_temp.take('m3');
SET distsys.clock_offset = '210 s';
SELECT pg_temp.take('m4');
SELECT type, attempts, reason FROM distsys.outbox_dead_letters WHERE topic = 'group' ORDER BY position;
SELECT pg_temp.ack('r'), distsys.outbox_redrive('group', 'g'), pg_temp.take('m4'), pg_temp.ack('p q');
RESET distsys.clock_offset;
-- the ttl of whoever takes over counts for what he was handed, not for the rest that he has not fetched yet
SELECT pg_temp.publish('a2 b2 c2');
SELECT pg_temp.take('m1');
SET distsys.clock_offset = '40 s';
SELECT pg_temp.take('m2', 1);
SET distsys.clock_offset = '60 s';
SELECT pg_temp.ack('a2'), pg_temp.take('m2', 1);
SET distsys.clock_offset = '80 s';
SELECT pg_temp.take('m3');
SELECT pg_temp.ack('b2'), pg_temp.take('m2', 1);
SELECT pg_temp.ack('c2');
RESET distsys.clock_offset;
-- what is taken over while it was being retried comes once
SELECT pg_temp.publish('d2 e2');
SELECT pg_temp.take('m1');
SELECT pg_temp.nack('d2 e2', '0'), pg_temp.take('m1');
SET distsys.clock_offset = '40 s';
SELECT pg_temp.take('m2');
SELECT pg_temp.nack('d2 e2', '0');
SELECT distsys.outbox_redrive('group', 'g'), pg_temp.take('m2'), pg_temp.ack('d2 e2');
RESET distsys.clock_offset;
-- stepping the wall clock neither frees nor keeps a claim
SELECT pg_temp.publish('s');
SELECT pg_temp.take('m');
SET distsys.clock_step = '1 h';
SELECT pg_temp.take('other');
SET distsys.clock_step = '-1 h';
SELECT pg_temp.take('other');
RESET distsys.clock_step;
-- the connection that fetched is gone: free at once
SELECT pg_temp.ack('s');
SELECT pg_temp.publish('t');
SELECT pg_temp.take('gone');
UPDATE distsys.outbox_cursor SET pid = 1 WHERE topic = 'group';
SELECT pg_temp.take('m');
SELECT pg_temp.ack('t');

-- rollback: nothing has happened
SELECT pg_temp.publish('u v');
BEGIN;
SELECT pg_temp.take('m');
ROLLBACK;
SELECT * FROM pg_temp.state;
SELECT pg_temp.take('m');
BEGIN;
SELECT pg_temp.ack('u');
SAVEPOINT s;
SELECT pg_temp.ack('v');
ROLLBACK TO s;
COMMIT;
SELECT * FROM pg_temp.state;
-- a wrong receipt undoes the others of the call
SELECT distsys.outbox_ack('group', 'g', pg_temp.receipts('v') || 9007199254740991);
SELECT in_flight FROM pg_temp.state;
SELECT pg_temp.nack('v v', '0');
BEGIN;
SELECT count(*) FROM distsys.outbox_fetch('group', 'g', 'm');
COMMIT;

-- a second group has its own position; start_from (i was published when the clock was ahead)
SELECT distsys.outbox_group_create('group', 'second', start_from => 'latest'), distsys.outbox_group_create('group', 'third', start_from => (SELECT position::text FROM distsys.outbox_read('group') WHERE type = 's')),
       distsys.outbox_group_create('group', 'fourth', start_from => (SELECT occurred_at::text FROM distsys.outbox_read('group') WHERE type = 'i')),
       distsys.outbox_group_create('group', 'fifth', start_from => '2000-01-01');
SELECT distsys.outbox_seek('group', 'g', 'latest');
SELECT pg_temp.publish('w');
SELECT pg_temp.take('m', group_name => 'second'), pg_temp.take('m', group_name => 'third'), pg_temp.take('m', group_name => 'fourth'), pg_temp.take('m', 4, 'fifth'), pg_temp.take('m');
SELECT * FROM pg_temp.state ORDER BY 1;
-- options
SELECT distsys.outbox_group_alter('group', 'second', '1 min', 1, '0', '0', 'skip');
SELECT ttl, max_attempts, backoff_base, backoff_cap FROM distsys.outbox_group WHERE topic = 'group' AND group_name = 'second';
SELECT (distsys.outbox_nack('group', 'second', ARRAY[(SELECT receipt FROM distsys.outbox_cursor, unnest(receipts) receipt WHERE group_name = 'second')])).outcome;

-- seek: drops what is in flight and what waits for a retry, keeps the dead letters
SELECT distsys.outbox_seek('group', 'g', (SELECT position::text FROM distsys.outbox_read('group') WHERE type = 'u'));
SELECT pg_temp.ack('w');
SELECT pg_temp.take('m');
SELECT pg_temp.nack('v', '1 min');
SELECT distsys.outbox_seek('group', 'g', 'earliest');
SELECT pg_temp.take('m', 2);
SELECT distsys.outbox_seek('group', 'g', '0'), distsys.outbox_seek('group', 'g', '2000-01-01 00:00:00+00');
SELECT pg_temp.take('m', 2);
SELECT distsys.outbox_seek('group', 'g', 'latest');
SELECT pg_temp.take('m');
SELECT count(*) FROM distsys.outbox_retry WHERE group_name = 'g';
-- beyond everything: the group would wait in silence
SELECT distsys.outbox_seek('group', 'g', '9007199254740991');
-- dead letters that a group which went back gets anyway, or has in flight, are not delivered twice by a redrive
SELECT pg_temp.publish('x y z');
SELECT pg_temp.take('m');
SELECT distsys.outbox_reject('group', 'g', pg_temp.receipts('x y z'));
SELECT distsys.outbox_seek('group', 'g', (SELECT position::text FROM distsys.outbox_read('group') WHERE type = 'w'));
SELECT pg_temp.take('m', 1);
SELECT pg_temp.ack('x'), pg_temp.take('m', 1);
SELECT distsys.outbox_redrive('group', 'g'), pg_temp.take('m');
SELECT pg_temp.ack('x y z'), pg_temp.take('m'), dead FROM pg_temp.state WHERE group_name = 'g';

-- retention: what every group has settled, from the front; then a reader that is behind is told
SELECT position AS a FROM distsys.outbox_read('group') WHERE type = 'a' \gset
SELECT position AS c FROM distsys.outbox_read('group') WHERE type = 'c' \gset
SELECT distsys.outbox_topic_alter('group', '1 h');
CREATE FUNCTION pg_temp.retain() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    before bigint := (SELECT count(*) FROM distsys.outbox_event_log WHERE aggregatetype = 'group');
BEGIN
    -- each call removes a bounded number, of any topic
    WHILE (SELECT rows_removed > 0 FROM distsys.maintain() WHERE job = 'outbox_retention') LOOP
    END LOOP;
    RETURN before - (SELECT count(*) FROM distsys.outbox_event_log WHERE aggregatetype = 'group');
END $$;
SELECT pg_temp.retain();
SET distsys.clock_offset = '2 h';
-- group fifth has four in flight, nothing settled
SELECT pg_temp.retain();
SELECT distsys.outbox_ack('group', 'fifth', (SELECT receipts[1:3] FROM distsys.outbox_cursor WHERE group_name = 'fifth'));
SELECT pg_temp.retain();
SELECT type FROM distsys.outbox_read('group', max_events => 1);
SELECT distsys.outbox_read('group', :a);
SELECT type FROM distsys.outbox_read('group', :c, 1);
SELECT distsys.outbox_seek('group', 'g', :'a');
SELECT distsys.outbox_seek('group', 'g', :'c'), distsys.outbox_seek('group', 'g', 'earliest');
SELECT pg_temp.take('m', 1);
SELECT distsys.outbox_seek('group', 'g', 'latest');
RESET distsys.clock_offset;

-- many in flight: bounded, and acknowledged at once
SELECT count(distsys.outbox_publish('group', 'many', to_jsonb(n))) FROM generate_series(1, 10050) n;
SELECT count(*) FROM distsys.outbox_fetch('group', 'g', 'm', 6000);
SELECT count(*) FROM distsys.outbox_fetch('group', 'g', 'm', 6000);
SELECT count(*) FROM distsys.outbox_fetch('group', 'g', 'm');
SELECT lag, in_flight FROM pg_temp.state WHERE group_name = 'g';
SELECT distsys.outbox_ack('group', 'g', (SELECT receipts FROM distsys.outbox_cursor WHERE topic = 'group' AND group_name = 'g'));
SELECT lag, in_flight FROM pg_temp.state WHERE group_name = 'g';
SELECT count(*), min(payload::int) FROM distsys.outbox_fetch('group', 'g', 'm');

-- dropped and made again: the old receipts are nothing any more
SELECT distsys.outbox_group_drop('group', 'g'), distsys.outbox_group_create('group', 'g', start_from => 'latest');
SELECT pg_temp.ack('w');
SELECT count(*) FROM distsys.outbox_retry WHERE topic = 'group' AND group_name = 'g';
SELECT distsys.outbox_group_drop('group', g) FROM unnest(ARRAY['g', 'second', 'third', 'fourth', 'fifth']) g;
SELECT distsys.outbox_topic_drop('group');
SELECT (SELECT count(*) FROM distsys.outbox_retry), (SELECT count(*) FROM distsys.outbox_dead_letter), (SELECT count(*) FROM distsys.outbox_cursor WHERE topic = 'group');
DELETE FROM distsys.outbox_event_log WHERE aggregatetype = 'group';
