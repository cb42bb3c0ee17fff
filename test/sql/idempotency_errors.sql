-- Every function of the idempotency domain against every kind of bad input: the SQLSTATE it answers with.
SET client_min_messages = warning;

\getenv helpers PG_ABS_SRCDIR
\set helper :helpers '/helper/state.sql'
\i :helper

SELECT token AS t FROM distsys.idempotency_begin('e', 'held', sha256('x'), ttl => '1 h') \gset
SELECT token AS done FROM distsys.idempotency_begin('e', 'done', sha256('x')) \gset
SELECT distsys.idempotency_complete('e', 'done', :done, 200, 'body');

-- scopes, keys, and other names
SELECT call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, $$idempotency_begin(%s, 'k', sha256('x'))$$), (2, $$idempotency_begin('e', %s, sha256('x'))$$), (3, $$idempotency_begin_or_raise('e', %s, sha256('x'))$$),
             (4, $$idempotency_checkpoint(%s, 'k', 1, 'p')$$), (5, $$idempotency_checkpoint('e', %s, 1, 'p')$$), (6, $$idempotency_complete('e', %s, 1, 200)$$),
             (7, $$idempotency_complete_bytes('e', %s, 1, 200, '\x01')$$), (8, $$idempotency_fail('e', %s, 1)$$), (9, $$idempotency_renew('e', %s, 1)$$),
             (10, $$idempotency_get('e', %s)$$), (11, $$idempotency_forget('e', %s)$$), (12, $$idempotency_key(%s, 'a')$$)) f (i, name),
     LATERAL (SELECT 'distsys.' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'empty', $$''$$), (3, 'newline', $$E'a\nb'$$), (4, 'del', $$E'\x7f'$$), (5, '256 bytes', $$repeat('x', 256)$$),
             (6, '255 bytes', $$repeat('x', 255)$$)) v (j, label, value)
ORDER BY i, j \crosstabview

-- tokens
SELECT call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, $$idempotency_checkpoint('e', 'held', %s, 'p')$$), (2, $$idempotency_complete('e', 'held', %s, 200)$$), (3, $$idempotency_complete_bytes('e', 'held', %s, 200, '\x01')$$),
             (4, $$idempotency_fail('e', 'held', %s)$$), (5, $$idempotency_renew('e', 'held', %s)$$)) f (i, name),
     LATERAL (SELECT 'distsys.' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'negative', '-1'), (3, 'zero', '0'), (4, 'lower', '1'), (5, 'higher', '9007199254740991'), (6, 'right', :'t')) v (j, label, value)
ORDER BY i, j \crosstabview

-- intervals
SELECT replace(call, :'t', 'TOKEN') AS call, label, pg_temp.state(format(call, value))
FROM (VALUES (1, $$idempotency_begin('e', 'i', sha256('x'), ttl => %s)$$), (2, $$idempotency_begin('e', 'i', sha256('x'), wait => %s)$$), (3, $$idempotency_checkpoint('e', 'held', $$ || :t || $$, 'p', ttl => %s)$$),
             (4, $$idempotency_renew('e', 'held', $$ || :t || ', %s)'), (5, 'idempotency_abandoned(%s)'), (6, $$idempotency_policy_create('p', retention => %s)$$),
             (7, $$idempotency_policy_create('p', ttl => %s)$$)) f (i, name),
     LATERAL (SELECT 'distsys.' || name AS call) c,
     (VALUES (1, 'null', 'NULL'), (2, 'negative', $$'-1 s'$$), (3, 'zero', $$'0'$$), (4, '100 ms', $$'100 ms'$$), (5, '10 s', $$'10 s'$$), (6, '1 day', $$'1 day'$$),
             (7, '2 days', $$'2 days'$$), (8, 'month', $$'1 mon'$$), (9, 'huge', $$'2000000000 days'$$)) v (j, label, value)
ORDER BY i, j \crosstabview
-- the parser of 17 knows infinity, that of 15 refuses it: an error with both
SELECT pg_temp.state($$distsys.idempotency_begin('e', 'i', sha256('x'), ttl => 'infinity')$$) IN ('22023', '22007') AS infinite;

-- the rest of begin's arguments
SELECT pg_temp.state($$distsys.idempotency_begin('e', 'f', NULL)$$) AS no_fingerprint, pg_temp.state($$distsys.idempotency_begin('e', 'f', '\x')$$) AS empty,
       pg_temp.state($$distsys.idempotency_begin('e', 'f', 'ab12')$$) AS hex_text, pg_temp.state($$distsys.idempotency_begin('e', 'f', sha512('x'))$$) AS sha512;
SELECT pg_temp.state($$distsys.idempotency_begin('e', 'f', sha256('x'), policy => NULL)$$) AS null_policy, pg_temp.state($$distsys.idempotency_begin('e', 'f', sha256('x'), policy => '')$$) AS empty_policy,
       pg_temp.state($$distsys.idempotency_begin('e', 'f', sha256('x'), policy => 'nosuch')$$) AS unknown, pg_temp.state($$distsys.idempotency_begin('e', 'f', sha256('x'), policy => repeat('x', 64))$$) AS too_long;

-- the rest of the others'
SELECT pg_temp.state($$distsys.idempotency_checkpoint('e', 'held', $$ || :t || $$, NULL)$$) AS null_point, pg_temp.state($$distsys.idempotency_checkpoint('e', 'held', $$ || :t || $$, '')$$) AS empty_point,
       pg_temp.state($$distsys.idempotency_checkpoint('e', 'held', $$ || :t || $$, repeat('x', 64))$$) AS long_point;
SELECT pg_temp.state($$distsys.idempotency_complete('e', 'held', $$ || :t || ', NULL)') AS null_code, pg_temp.state($$distsys.idempotency_complete('e', 'held', $$ || :t || ', -1)') AS negative,
       pg_temp.state($$distsys.idempotency_complete('e', 'held', $$ || :t || ', 1000)') AS too_high, pg_temp.state($$distsys.idempotency_complete_bytes('e', 'held', $$ || :t || ', 200, NULL)') AS null_bytes;
SELECT pg_temp.state($$distsys.idempotency_fail('e', 'held', $$ || :t || ', NULL)') AS null_retryable, pg_temp.state($$distsys.idempotency_fail('e', 'held', $$ || :t || $$, false, 'x', 1000)$$) AS code;
SELECT pg_temp.state('distsys.idempotency_abandoned(''0'', NULL)') AS null_rows, pg_temp.state('distsys.idempotency_abandoned(''0'', 0)') AS no_rows;

-- keys that were never begun, and one that is finished
SELECT call, pg_temp.state('distsys.' || format(call, 'nosuch', 1)) AS never_begun, pg_temp.state('distsys.' || format(call, 'done', :done)) AS finished
FROM (VALUES (1, $$idempotency_checkpoint('e', '%s', %s, 'p')$$), (2, $$idempotency_complete('e', '%s', %s, 200, 'other')$$), (3, $$idempotency_complete('e', '%s', %s, 200, 'body')$$),
             (4, $$idempotency_complete_bytes('e', '%s', %s, 200, 'body')$$), (5, $$idempotency_fail('e', '%s', %s)$$), (6, $$idempotency_renew('e', '%s', %s)$$),
             (7, $$idempotency_get('e', '%s')$$), (8, $$idempotency_forget('e', '%s')$$)) f (i, call)
ORDER BY i;

-- policies
SELECT pg_temp.state('distsys.idempotency_policy_create(NULL)') AS null_name, pg_temp.state($$distsys.idempotency_policy_create('')$$) AS empty,
       pg_temp.state($$distsys.idempotency_policy_create(repeat('x', 64))$$) AS too_long, pg_temp.state($$distsys.idempotency_policy_create('p', require_fingerprint => NULL)$$) AS null_flag,
       pg_temp.state($$distsys.idempotency_policy_create('p', max_response_bytes => -1)$$) AS negative, pg_temp.state($$distsys.idempotency_policy_create('p', max_attempts => 0)$$) AS no_attempt,
       pg_temp.state($$distsys.idempotency_policy_create('p', if_not_exists => NULL)$$) AS null_if;
SELECT pg_temp.state($$distsys.idempotency_policy_alter('nosuch')$$) AS alter_unknown, pg_temp.state($$distsys.idempotency_policy_alter('default', ttl => '1 s')$$) AS alter_builtin,
       pg_temp.state($$distsys.idempotency_policy_drop('nosuch')$$) AS drop_unknown, pg_temp.state($$distsys.idempotency_policy_drop('nosuch', if_exists => true)$$) AS if_exists;

-- read-only transactions
SELECT call, pg_temp.state('distsys.' || call, true)
FROM (VALUES (1, $$idempotency_begin('e', 'ro', sha256('x'))$$), (2, $$idempotency_begin_or_raise('e', 'ro', sha256('x'))$$), (3, $$idempotency_checkpoint('e', 'held', 1, 'p')$$),
             (4, $$idempotency_complete('e', 'held', 1, 200)$$), (5, $$idempotency_fail('e', 'held', 1)$$), (6, $$idempotency_renew('e', 'held', 1)$$), (7, $$idempotency_forget('e', 'held')$$),
             (8, $$idempotency_policy_create('p')$$), (9, $$idempotency_policy_alter('p')$$), (10, $$idempotency_policy_drop('p')$$),
             (11, $$idempotency_get('e', 'held')$$), (12, $$idempotency_abandoned('0')$$), (13, $$fingerprint_json('1')$$)) f (i, call)
ORDER BY i;

-- the refusals of the _or_raise form
SELECT pg_temp.state($$distsys.idempotency_begin_or_raise('e', 'held', sha256('x'))$$) AS in_progress, pg_temp.state($$distsys.idempotency_begin_or_raise('e', 'held', sha256('y'))$$) AS mismatch,
       pg_temp.state($$distsys.idempotency_begin_or_raise('e', 'done', sha256('x'))$$) AS replay;

-- the messages that tell what to do
\set VERBOSITY default
SELECT distsys.idempotency_begin('e', 'f', NULL);
SELECT distsys.idempotency_begin('e', 'f', 'ab12');
SELECT distsys.idempotency_begin('e', 'f', sha256('x'), policy => 'it''s');
SELECT distsys.idempotency_complete('e', 'nosuch', 1, 200);
SELECT distsys.idempotency_complete('e', 'held', 1, 200);

-- after all these errors nothing is held
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();
SELECT distsys.idempotency_forget('e', 'held'), distsys.idempotency_forget('e', 'done');
