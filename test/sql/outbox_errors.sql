-- Every function of the outbox against every kind of bad input: the SQLSTATE it answers with.
SET client_min_messages = warning;

\getenv helpers PG_ABS_SRCDIR
\set helper :helpers '/helper/state.sql'
\i :helper

SELECT distsys.outbox_topic_create('errors'), distsys.outbox_group_create('errors', 'g');
SELECT distsys.outbox_publish('errors', 'e', '1') IS NOT NULL;
SELECT receipt AS lost FROM distsys.outbox_fetch('errors', 'g', 'm') \gset
SELECT distsys.outbox_seek('errors', 'g', 'earliest');
SELECT receipt AS r FROM distsys.outbox_fetch('errors', 'g', 'm') \gset

-- names: a topic or group of one byte that nobody has created is 42704
SELECT call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, 'topic_create(%s)'), (2, 'topic_alter(%s)'), (3, 'topic_drop(%s)'), (4, $$publish(%s, 'e', '1')$$), (5, $$publish_bytes(%s, 'e', '1')$$),
             (6, $$publish_all(%s, '[]')$$), (7, 'read(%s)'), (8, $$group_create(%s, 'g')$$), (9, $$group_create('errors', %s)$$), (10, $$group_alter('errors', %s)$$),
             (11, $$group_drop('errors', %s)$$), (12, $$fetch('errors', %s, 'm')$$), (13, $$fetch(%s, 'g', 'm')$$), (14, $$fetch('errors', 'g', %s)$$),
             (15, $$ack('errors', %s, '{}')$$), (16, $$nack('errors', %s, '{}')$$), (17, $$reject('errors', %s, '{}')$$), (18, $$seek('errors', %s, 'latest')$$),
             (19, $$redrive('errors', %s)$$), (20, $$redrive(%s, 'g')$$)) f (i, name),
     LATERAL (SELECT 'distsys.outbox_' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'empty', $$''$$), (3, 'newline', $$E'a\nb'$$), (4, 'del', $$E'\x7f'$$), (5, '64 bytes', $$repeat('x', 64)$$),
             (6, '63 bytes', $$repeat('x', 63)$$)) v (j, label, value)
ORDER BY i, j \crosstabview
SELECT call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, $$publish('errors', %s, '1')$$), (2, $$publish('errors', 'e', '1', key => %s)$$), (3, $$publish_bytes('errors', %s, '1')$$), (4, $$publish_bytes('errors', 'e', '1', key => %s)$$),
             (5, $$publish_all('errors', jsonb_build_array(jsonb_build_object('payload', 1, 'type', %s)))$$),
             (6, $$publish_all('errors', jsonb_build_array(jsonb_build_object('payload', 1, 'type', 'e', 'key', %s)))$$), (7, $$topic_create('t', ce_source => %s)$$)) f (i, name),
     LATERAL (SELECT 'distsys.outbox_' || name AS call) c,
     (VALUES (1, 'null', 'NULL::text'), (2, 'empty', $$''::text$$), (3, 'newline', $$E'a\nb'::text$$), (4, '256 bytes', $$repeat('x', 256)$$), (5, '255 bytes', $$repeat('x', 255)$$)) v (j, label, value)
ORDER BY i, j \crosstabview

-- numbers
SELECT call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, $$read('errors', after => %s)$$), (2, $$read('errors', max_events => %s)$$), (3, $$fetch('errors', 'g', 'm', %s)$$), (4, $$redrive('errors', 'g', max_rows => %s)$$),
             (5, $$group_create('errors', 'n', partitions => %s)$$), (6, $$group_create('errors', 'n', max_attempts => %s)$$), (7, $$group_alter('errors', 'g', max_attempts => %s)$$)) f (i, name),
     LATERAL (SELECT 'distsys.outbox_' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'negative', '-1'), (3, 'zero', '0'), (4, 'one', '1'), (5, 'two', '2'), (6, 'largest', '2147483647')) v (j, label, value)
ORDER BY i, j \crosstabview
SELECT pg_temp.state($$distsys.outbox_read('errors', 9223372036854775807)$$) AS after_the_largest;

-- receipts
SELECT call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, $$ack('errors', 'g', %s)$$), (2, $$nack('errors', 'g', %s)$$), (3, $$reject('errors', 'g', %s)$$)) f (i, name),
     LATERAL (SELECT 'distsys.outbox_' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'empty', $$'{}'$$), (3, 'null inside', $$'{1,NULL}'$$), (4, 'two dim.', $$'{{1},{2}}'$$), (5, 'zero', $$'{0}'$$), (6, 'negative', $$'{-1}'$$),
             (7, 'held', $$'{$$ || :r || $$}'$$), (8, 'twice', $$'{$$ || :r || ',' || :r || $$}'$$), (9, 'lost', $$'{$$ || :lost || $$}'$$), (10, 'higher', $$'{$$ || :r + 1 || $$}'$$),
             (11, 'largest', $$'{9223372036854775807}'$$)) v (j, label, value)
ORDER BY i, j \crosstabview
SELECT pg_temp.state($$distsys.outbox_redrive('errors', 'g', '{}')$$) AS no_ids, pg_temp.state($$distsys.outbox_redrive('errors', 'g', '{NULL}')$$) AS null_id,
       pg_temp.state($$distsys.outbox_redrive('errors', 'g', ARRAY[ARRAY[gen_random_uuid()]])$$) AS two_dim;

-- intervals
SELECT replace(call, :'r', 'R') AS call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, $$topic_create('t', %s)$$), (2, $$topic_alter('errors', %s)$$), (3, $$group_create('errors', 'n', ttl => %s)$$), (4, $$group_create('errors', 'n', backoff_base => %s)$$),
             (5, $$group_create('errors', 'n', backoff_cap => %s)$$), (6, $$group_alter('errors', 'g', %s)$$), (7, $$nack('errors', 'g', '{$$ || :r || $$}', %s)$$)) f (i, name),
     LATERAL (SELECT 'distsys.outbox_' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'negative', $$'-1 s'$$), (3, 'zero', $$'0'$$), (4, '99 ms', $$'99 ms'$$), (5, '100 ms', $$'100 ms'$$), (6, '1 s', $$'1 s'$$),
             (7, '1 day', $$'1 day'$$), (8, '25 h', $$'25 h'$$), (9, '31 days', $$'31 days'$$), (10, '1 mon', $$'1 mon'$$), (11, '4000 days', $$'4000 days'$$), (12, 'huge', $$'2000000000 days'$$)) v (j, label, value)
ORDER BY i, j \crosstabview
-- the parser of 17 knows infinity, that of 15 refuses it: an error with both
SELECT pg_temp.state($$distsys.outbox_topic_create('t', 'infinity')$$) IN ('22023', '22007') AS retention,
       pg_temp.state($$distsys.outbox_group_create('errors', 'n', ttl => 'infinity')$$) IN ('22023', '22007') AS ttl;

-- words; what is not built yet
SELECT value, pg_temp.state(format($$distsys.outbox_group_create('errors', 'n', mode => %L)$$, value)) AS mode,
       pg_temp.state(format($$distsys.outbox_group_create('errors', 'n', on_failure => %L)$$, value)) AS on_failure,
       pg_temp.state(format($$distsys.outbox_group_alter('errors', 'g', on_failure => %L)$$, value)) AS alter_on_failure,
       pg_temp.state(format($$distsys.outbox_group_create('errors', 'n', start_from => %L)$$, value)) AS start_from,
       pg_temp.state(format($$distsys.outbox_seek('errors', 'g', %L)$$, value)) AS seek
FROM unnest(ARRAY[NULL, '', 'ordered', 'shared', 'skip', 'block', 'stop', 'Ordered', 'earliest', 'latest', 'LATEST', '0', '17', '9007199254740992', '99999999999999999999', '-1', '1.5',
                  '2026-01-01', '2026-01-01 12:00:00+02', '2026-13-01', 'infinity', 'now', repeat('1', 64)]) value;
SELECT pg_temp.state($$distsys.outbox_publish('errors', 'e', '1', deliver_at => now())$$) AS deliver_at,
       pg_temp.state($$distsys.outbox_publish_bytes('errors', 'e', '1', deliver_at => now())$$) AS deliver_at_bytes;
\set VERBOSITY default
SELECT distsys.outbox_group_create('errors', 'n', mode => 'shared');
SELECT distsys.outbox_group_create('errors', 'n', mode => 'fifo');
SELECT distsys.outbox_publish('errors', 'e', '1', deliver_at => now());
\set VERBOSITY sqlstate

-- contents
SELECT pg_temp.state($$distsys.outbox_publish('errors', 'e', NULL)$$) AS null_payload, pg_temp.state($$distsys.outbox_publish('errors', 'e', 'null')$$) AS json_null,
       pg_temp.state($$distsys.outbox_publish_bytes('errors', 'e', NULL)$$) AS null_body, pg_temp.state($$distsys.outbox_publish_bytes('errors', 'e', '')$$) AS empty_body,
       pg_temp.state($$distsys.outbox_publish('errors', 'e', '1', headers => '[]')$$) AS array_headers, pg_temp.state($$distsys.outbox_publish('errors', 'e', '1', headers => '"x"')$$) AS string_headers,
       pg_temp.state($$distsys.outbox_publish('errors', 'e', '1', headers => '{}')$$) AS headers;
SELECT events, pg_temp.state(format($$distsys.outbox_publish_all('errors', %L)$$, events)) AS publish_all
FROM unnest(ARRAY[NULL, 'null', '{}', '"x"', '1', '[]', '[1]', '["x"]', '[null]', '[[]]', '[{}]', '[{"type": "e"}]', '[{"payload": 1}]', '[{"type": "e", "payload": null}]', '[{"type": "e", "payload": {"a": [1]}}]',
                  '[{"type": 1, "payload": 1}]', '[{"type": "e", "payload": 1, "key": 7}]', '[{"type": "e", "payload": 1, "key": null, "headers": null, "id": null}]', '[{"type": "e", "payload": 1, "headers": []}]',
                  '[{"type": "e", "payload": 1, "headers": "x"}]', '[{"type": "e", "payload": 1, "headers": {"a": 1}}]', '[{"type": "e", "payload": 1, "id": "x"}]', '[{"type": "e", "payload": 1, "id": 7}]',
                  '[{"type": "e", "payload": 1, "id": "0190a5b4-0000-7000-8000-000000000000"}]', '[{"type": "e", "payload": 1, "topic": "x"}]', '[{"type": "e", "payload": 1}, {"type": "e"}]', '[{"type": "e", "payload": 1, "ty": null}]']::jsonb[]) events;
\set VERBOSITY default
SELECT distsys.outbox_publish_all('errors', '[{"type": "e", "payload": 1}, {"type": "e", "payload": 1, "deliver_at": 1}]');
SELECT distsys.outbox_publish_all('errors', '[{"type": "e"}]');
SELECT distsys.outbox_publish_all('errors', '[{"type": "e", "payload": 1}, {"type": "e", "payload": 1, "headers": []}]');
SELECT distsys.outbox_publish('no such topic', 'e', '1');
SELECT distsys.outbox_fetch('no such topic', 'g', 'm');
SELECT distsys.outbox_fetch('errors', 'no such group', 'm');
SELECT distsys.outbox_ack('errors', 'g', '{9007199254740991}');
\set VERBOSITY sqlstate

-- size: of the payload as it is stored, also when it comes compressed from a table
SET distsys.outbox_max_bytes = '2kB';
CREATE TEMP TABLE long_values AS SELECT jsonb_build_object('a', repeat('x', n)) AS payload, convert_to(repeat('x', n), 'UTF8') AS body FROM unnest(ARRAY[2000, 2048, 2049, 100000]) n;
SELECT length(body), pg_temp.state(format($$distsys.outbox_publish('errors', 'e', %L)$$, payload)) AS payload, pg_temp.state(format($$distsys.outbox_publish_bytes('errors', 'e', %L)$$, body)) AS body,
       pg_temp.state(format($$distsys.outbox_publish('errors', 'e', '1', headers => %L)$$, payload)) AS headers,
       pg_temp.state(format($$distsys.outbox_publish_all('errors', jsonb_build_array(jsonb_build_object('type', 'e', 'payload', %L::jsonb)))$$, payload)) AS publish_all
FROM long_values ORDER BY 1;
SELECT distsys.outbox_publish('errors', 'e', payload) FROM long_values WHERE length(body) = 100000;
RESET distsys.outbox_max_bytes;

-- READ ONLY: reading works, everything else is refused, also when there is nothing to do
SELECT name, pg_temp.state('distsys.outbox_' || name, read_only => true)
FROM unnest(ARRAY[$$read('errors')$$, $$topic_create('t')$$, $$topic_create('errors', if_not_exists => true)$$, $$topic_alter('errors')$$, $$topic_drop('none', true)$$, $$publish('errors', 'e', '1')$$,
                  $$publish_bytes('errors', 'e', '1')$$, $$publish_all('errors', '[]')$$, $$group_create('errors', 'n')$$, $$group_alter('errors', 'g')$$, $$group_drop('errors', 'none', true)$$,
                  $$fetch('errors', 'g', 'm')$$, $$ack('errors', 'g', '{}')$$, $$nack('errors', 'g', '{}')$$, $$reject('errors', 'g', '{}')$$, $$seek('errors', 'g', 'latest')$$, $$redrive('errors', 'g')$$]) name;
-- read-only after publishing: the COMMIT is refused
BEGIN; SELECT distsys.outbox_publish('errors', 'e', '"read only"') IS NOT NULL; SET TRANSACTION READ ONLY; COMMIT;
SELECT count(*) FROM distsys.outbox_read('errors') WHERE payload = '"read only"';

-- create, alter, drop
SELECT distsys.outbox_topic_create('errors', if_not_exists => true), distsys.outbox_topic_drop('none', if_exists => true), distsys.outbox_group_create('errors', 'g', if_not_exists => true),
       distsys.outbox_group_drop('errors', 'none', if_exists => true);
SELECT distsys.outbox_topic_create('errors');
SELECT distsys.outbox_topic_create('errors', if_not_exists => NULL);
SELECT distsys.outbox_topic_create('t', NULL);
SELECT distsys.outbox_topic_drop('errors');
SELECT distsys.outbox_topic_drop('none');
SELECT distsys.outbox_topic_drop('none', NULL);
SELECT distsys.outbox_topic_alter('none', '1 day');
SELECT distsys.outbox_group_create('errors', 'g');
SELECT distsys.outbox_group_create('none', 'g', if_not_exists => true);
SELECT distsys.outbox_group_alter('errors', 'none', '1 s');
SELECT distsys.outbox_group_drop('errors', 'none');
SELECT distsys.outbox_group_drop('none', 'none');
SELECT distsys.outbox_seek('errors', 'none', 'latest');

-- by hand: what a function would refuse, a constraint refuses
INSERT INTO distsys.outbox_topic VALUES ('', '1 day');
INSERT INTO distsys.outbox_topic VALUES ('t', '0');
INSERT INTO distsys.outbox_topic VALUES ('t', '1 mon');
UPDATE distsys.outbox_group SET mode = 'shared';
UPDATE distsys.outbox_group SET max_attempts = 0;
UPDATE distsys.outbox_group SET ttl = '1 ms';

-- after all these errors nothing is held
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';
SELECT distsys.outbox_group_drop('errors', 'g'), distsys.outbox_topic_drop('errors');
DELETE FROM distsys.outbox_event_log WHERE aggregatetype IN ('errors');
