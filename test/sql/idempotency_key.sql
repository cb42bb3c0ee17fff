-- The life of an idempotency key: started, resumed, replay, in_progress, mismatch, exhausted.
SET client_min_messages = warning;

-- first, the same request again while it runs, another request under the same key
SELECT status, token AS t, token > 0 AS has_token, attempt, recovery_point, retry_after, completed_at, ttl_remaining FROM distsys.idempotency_begin('pay', 'k', sha256('a')) \gset f_
\echo :f_status :f_has_token :f_attempt :f_ttl_remaining
SELECT status, token, retry_after, retry_after_s, attempt FROM distsys.idempotency_begin('pay', 'k', sha256('a'));
SELECT status, token, retry_after, attempt, response_body FROM distsys.idempotency_begin('pay', 'k', sha256('b'));
-- another scope is another key
SELECT status FROM distsys.idempotency_begin('other', 'k', sha256('b'));

-- progress
SELECT distsys.idempotency_checkpoint('pay', 'k', :f_t, 'charged', '{"psp": 1}');
SELECT status, ttl_remaining FROM distsys.idempotency_renew('pay', 'k', :f_t, '10 min');
SELECT status, attempt, recovery_point, ttl_remaining > '9 min' AS prolonged FROM distsys.idempotency_get('pay', 'k');

-- the answer, byte for byte: the order of keys and the space stay
SELECT distsys.idempotency_complete('pay', 'k', :f_t, 201, '{"b":1,  "a":2}', '{"content-type": "application/json"}');
SELECT status, token, attempt, response_code, response_headers, response_body, response_bytes, error, retry_after, completed_at >= created_at AS done,
       ttl_remaining > '23:59' AS kept FROM distsys.idempotency_begin('pay', 'k', sha256('a'));
SELECT status, response_body FROM distsys.idempotency_begin('pay', 'k', sha256('b'));
SELECT status, response_body FROM distsys.idempotency_get('pay', 'k');
SELECT count(*) FROM distsys.idempotency_get('pay', 'nosuch');

-- completing twice: the same bytes are a no-op
SELECT distsys.idempotency_complete('pay', 'k', :f_t, 201, '{"b":1,  "a":2}', '{"content-type": "application/json"}');
\set VERBOSITY sqlstate
SELECT distsys.idempotency_complete('pay', 'k', :f_t, 201, '{"a":2,"b":1}', '{"content-type": "application/json"}');
SELECT distsys.idempotency_complete('pay', 'k', :f_t, 200, '{"b":1,  "a":2}', '{"content-type": "application/json"}');
\set VERBOSITY default

-- without a body; bytes that are no text; a large body that is stored out of line
SELECT token AS t FROM distsys.idempotency_begin('pay', 'empty', sha256('a')) \gset
SELECT distsys.idempotency_complete('pay', 'empty', :t, 204);
SELECT status, response_code, response_body IS NULL AS body, response_bytes IS NULL AS bytes FROM distsys.idempotency_begin('pay', 'empty', sha256('a'));
SELECT token AS t FROM distsys.idempotency_begin('pay', 'bytes', sha256('a')) \gset
SELECT distsys.idempotency_complete_bytes('pay', 'bytes', :t, 200, '\x00ff5c7b0a');
SELECT status, response_body, response_bytes FROM distsys.idempotency_begin('pay', 'bytes', sha256('a'));
SELECT token AS t FROM distsys.idempotency_begin('pay', 'large', sha256('a')) \gset
SELECT string_agg(md5(g::text), '') AS body FROM generate_series(1, 10000) g \gset
SELECT distsys.idempotency_complete('pay', 'large', :t, 200, :'body');
SELECT status, response_body = :'body' AS same, length(response_body) FROM distsys.idempotency_begin('pay', 'large', sha256('a'));
SELECT distsys.idempotency_complete('pay', 'large', :t, 200, :'body');

-- too large: says what to do, and that works
SELECT distsys.idempotency_policy_create('small', max_response_bytes => 10);
SELECT token AS t FROM distsys.idempotency_begin('pay', 'small', sha256('a'), policy => 'small') \gset
SELECT distsys.idempotency_complete('pay', 'small', :t, 200, '12345678901');
SELECT distsys.idempotency_complete('pay', 'small', :t, 200);
SELECT status, response_code, response_body FROM distsys.idempotency_begin('pay', 'small', sha256('a'), policy => 'small');

-- giving up: to be tried again, or for good
SELECT token AS t FROM distsys.idempotency_begin('pay', 'fail', sha256('a')) \gset
SELECT distsys.idempotency_checkpoint('pay', 'fail', :t, 'half', '1');
SELECT distsys.idempotency_fail('pay', 'fail', :t, error => 'psp is down'), distsys.idempotency_fail('pay', 'fail', :t);
SELECT status FROM distsys.idempotency_get('pay', 'fail');
SELECT status, token > :t AS newer, attempt, recovery_point, checkpoint, error FROM distsys.idempotency_begin('pay', 'fail', sha256('a'));
\set VERBOSITY sqlstate
SELECT distsys.idempotency_complete('pay', 'fail', :t, 200);
\set VERBOSITY default
SELECT token AS t FROM distsys.idempotency_begin('pay', 'final', sha256('a')) \gset
SELECT distsys.idempotency_fail('pay', 'final', :t, retryable => false, error => 'declined', response_code => 402, response_body => 'no money');
SELECT status, response_code, response_body, error FROM distsys.idempotency_begin('pay', 'final', sha256('a'));

-- the same logical attempt after a lost answer; another attempt; the same id under another fingerprint
SELECT status, token AS t FROM distsys.idempotency_begin('pay', 'retry', sha256('a'), request_id => '00000000-0000-0000-0000-000000000001') \gset
SELECT status, token = :t AS same, attempt FROM distsys.idempotency_begin('pay', 'retry', sha256('a'), request_id => '00000000-0000-0000-0000-000000000001');
SELECT status, token FROM distsys.idempotency_begin('pay', 'retry', sha256('a'), request_id => '00000000-0000-0000-0000-000000000002');
SELECT status FROM distsys.idempotency_begin('pay', 'retry', sha256('b'), request_id => '00000000-0000-0000-0000-000000000001');
SELECT status FROM distsys.idempotency_begin('pay', 'retry', sha256('a'));

-- the holder is late: he may complete as long as nobody has taken over
SELECT token AS t FROM distsys.idempotency_begin('pay', 'late', sha256('a'), ttl => '10 s') \gset
SET distsys.clock_offset = '11 s';
SELECT scope, key, recovery_point, attempt FROM distsys.idempotency_abandoned('0') WHERE key = 'late';
SELECT count(*) FROM distsys.idempotency_abandoned('1 min') WHERE key = 'late';
SET distsys.clock_offset = '25 h';
SELECT count(*) AS past_retention FROM distsys.idempotency_abandoned('0') WHERE key = 'late';
SET distsys.clock_offset = '11 s';
SELECT status FROM distsys.idempotency_get('pay', 'late');
SELECT distsys.idempotency_complete('pay', 'late', :t, 200, 'late');
SELECT status, response_body FROM distsys.idempotency_begin('pay', 'late', sha256('a'));
RESET distsys.clock_offset;
-- and not when somebody has
SELECT token AS t FROM distsys.idempotency_begin('pay', 'fenced', sha256('a'), ttl => '10 s') \gset
SET distsys.clock_offset = '11 s';
SELECT status, token AS t2, token > :t AS newer, attempt FROM distsys.idempotency_begin('pay', 'fenced', sha256('a')) \gset s_
\echo :s_status :s_newer :s_attempt
\set VERBOSITY sqlstate
SELECT distsys.idempotency_complete('pay', 'fenced', :t, 200, 'first');
SELECT distsys.idempotency_checkpoint('pay', 'fenced', :t, 'x');
SELECT distsys.idempotency_fail('pay', 'fenced', :t);
SELECT * FROM distsys.idempotency_renew('pay', 'fenced', :t);
\set VERBOSITY default
SELECT distsys.idempotency_complete('pay', 'fenced', :s_t2, 200, 'second');
SELECT response_body FROM distsys.idempotency_begin('pay', 'fenced', sha256('a'));
RESET distsys.clock_offset;
-- setting the wall clock moves nothing
SELECT status FROM distsys.idempotency_begin('pay', 'clock', sha256('a'), ttl => '10 s');
SET distsys.clock_step = '1 h';
SELECT status FROM distsys.idempotency_begin('pay', 'clock', sha256('a'));
SET distsys.clock_step = '-1 h';
SELECT status FROM distsys.idempotency_begin('pay', 'clock', sha256('a'));
RESET distsys.clock_step;

-- attempts that are used up
SELECT distsys.idempotency_policy_create('twice', max_attempts => 2, ttl => '1 s');
SELECT status, attempt FROM distsys.idempotency_begin('pay', 'twice', sha256('a'), policy => 'twice');
SET distsys.clock_offset = '2 s';
SELECT status, attempt FROM distsys.idempotency_begin('pay', 'twice', sha256('a'), policy => 'twice');
SET distsys.clock_offset = '4 s';
SELECT status, token, attempt, retry_after FROM distsys.idempotency_begin('pay', 'twice', sha256('a'), policy => 'twice');
RESET distsys.clock_offset;
SELECT distsys.idempotency_forget('pay', 'twice'), distsys.idempotency_forget('pay', 'twice');
SELECT status, attempt FROM distsys.idempotency_begin('pay', 'twice', sha256('a'), policy => 'twice');

-- retention: not forgotten before, as if it were not there afterwards, gone when the job has run
SELECT distsys.idempotency_policy_create('hour', retention => '1 h');
SELECT token AS t FROM distsys.idempotency_begin('pay', 'hour', sha256('a'), policy => 'hour') \gset
SELECT distsys.idempotency_complete('pay', 'hour', :t, 200, 'kept');
SET distsys.clock_offset = '59 min';
SELECT rows_removed >= 0 AS ran, error FROM distsys.maintain() WHERE job = 'idempotency_expire';
SELECT status FROM distsys.idempotency_begin('pay', 'hour', sha256('a'), policy => 'hour');
SET distsys.clock_offset = '61 min';
SELECT count(*) FROM distsys.idempotency_get('pay', 'hour');
SELECT count(*) FROM distsys.idempotency_record WHERE scope = 'pay' AND key = 'hour';
SELECT error FROM distsys.maintain() WHERE job = 'idempotency_expire';
SELECT count(*) FROM distsys.idempotency_record WHERE scope = 'pay' AND key = 'hour';
SELECT status, attempt, token > :t AS newer FROM distsys.idempotency_begin('pay', 'hour', sha256('b'), policy => 'hour');
-- a claim that is still live outlasts its retention
SELECT distsys.idempotency_policy_create('second', retention => '1 s');
SELECT status FROM distsys.idempotency_begin('pay', 'live', sha256('a'), policy => 'second', ttl => '1 h');
SET distsys.clock_offset = '62 min';
SELECT error FROM distsys.maintain() WHERE job = 'idempotency_expire';
SELECT status FROM distsys.idempotency_begin('pay', 'live', sha256('a'), policy => 'second');
RESET distsys.clock_offset;

-- rollback frees the key, wholly or to a savepoint; a caught error too
BEGIN;
SELECT status FROM distsys.idempotency_begin('pay', 'tx', sha256('a'));
SELECT status FROM distsys.idempotency_begin('pay', 'tx', sha256('a'));
ROLLBACK;
SELECT count(*) FROM distsys.idempotency_get('pay', 'tx');
BEGIN;
SAVEPOINT s;
SELECT status FROM distsys.idempotency_begin('pay', 'tx', sha256('a'));
ROLLBACK TO s;
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();
SELECT status, attempt FROM distsys.idempotency_begin('pay', 'tx', sha256('a'));
COMMIT;
DO $$
BEGIN
    BEGIN
        PERFORM distsys.idempotency_begin('pay', 'caught', sha256('a'));
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
END $$;
SELECT count(*) FROM distsys.idempotency_get('pay', 'caught');
-- a claim and its answer in one transaction, and what it replays afterwards
BEGIN;
SELECT token AS t FROM distsys.idempotency_begin('pay', 'one', sha256('a')) \gset
SELECT distsys.idempotency_complete('pay', 'one', :t, 200, 'one');
SELECT status FROM distsys.idempotency_begin('pay', 'one', sha256('a'));
COMMIT;
SELECT status, response_body FROM distsys.idempotency_begin('pay', 'one', sha256('a'));
-- what was refused holds nothing in an open transaction
BEGIN;
SELECT status FROM distsys.idempotency_begin('pay', 'one', sha256('a'));
SELECT status FROM distsys.idempotency_begin('pay', 'one', sha256('b'));
SELECT status FROM distsys.idempotency_begin('pay', 'retry', sha256('a'));
SELECT count(*) FROM distsys.locks WHERE pid = pg_backend_pid();
COMMIT;

-- roles: another login of the same group role goes on, a stranger learns nothing and never gets a second claim
CREATE ROLE regress_service;
CREATE ROLE regress_login_1 IN ROLE regress_service;
CREATE ROLE regress_login_2 IN ROLE regress_service;
CREATE ROLE regress_stranger;
SELECT count(distsys.access_grant(r, 'app')) FROM unnest(ARRAY['regress_service', 'regress_login_1', 'regress_login_2', 'regress_stranger']) r;
SET ROLE regress_service;
SELECT status, token AS t FROM distsys.idempotency_begin('pay', 'role', sha256('a')) \gset
SET ROLE regress_login_1;
SELECT status FROM distsys.idempotency_begin('pay', 'role', sha256('a'));
SELECT distsys.idempotency_complete('pay', 'role', :t, 200, 'secret');
SET ROLE regress_login_2;
SELECT status, response_body FROM distsys.idempotency_begin('pay', 'role', sha256('a'));
-- a key that one login resumes stays the group's
SET ROLE regress_service;
SELECT token AS t2 FROM distsys.idempotency_begin('pay', 'shared', sha256('a')) \gset
SELECT distsys.idempotency_fail('pay', 'shared', :t2);
SET ROLE regress_login_1;
SELECT status, token AS t2 FROM distsys.idempotency_begin('pay', 'shared', sha256('a')) \gset
SELECT distsys.idempotency_complete('pay', 'shared', :t2, 200, 'by one login');
SET ROLE regress_login_2;
SELECT status, response_body FROM distsys.idempotency_begin('pay', 'shared', sha256('a'));
SET ROLE regress_service;
SELECT status, response_body FROM distsys.idempotency_begin('pay', 'shared', sha256('a'));
SET ROLE regress_stranger;
\set VERBOSITY sqlstate
SELECT status, response_body FROM distsys.idempotency_begin('pay', 'role', sha256('a'));
SELECT status FROM distsys.idempotency_begin('pay', 'role', sha256('b'));
SELECT * FROM distsys.idempotency_get('pay', 'role');
SELECT distsys.idempotency_complete('pay', 'role', :t, 200, 'mine');
SELECT distsys.idempotency_forget('pay', 'role');
SELECT * FROM distsys.idempotency_record;
\set VERBOSITY default
RESET ROLE;
SELECT count(distsys.access_revoke(r, 'app')) FROM unnest(ARRAY['regress_service', 'regress_login_1', 'regress_login_2', 'regress_stranger']) r;
SELECT distsys.idempotency_forget('pay', 'role'), distsys.idempotency_forget('pay', 'shared');
DROP ROLE regress_login_1, regress_login_2, regress_service, regress_stranger;

-- policies: cached, effective at once for the session that changes them; the built-in one can be overridden
SELECT distsys.idempotency_policy_create('twice', if_not_exists => true), distsys.idempotency_policy_alter('twice', require_fingerprint => false);
SELECT status FROM distsys.idempotency_begin('pay', 'nofp', NULL, policy => 'twice');
UPDATE distsys.idempotency_policy SET require_fingerprint = true WHERE policy = 'twice';
\set VERBOSITY sqlstate
SELECT status FROM distsys.idempotency_begin('pay', 'nofp2', NULL, policy => 'twice');
SELECT distsys.idempotency_policy_create('twice');
\set VERBOSITY default
SELECT distsys.idempotency_policy_create('default', ttl => '5 s', require_fingerprint => false);
SELECT status, ttl_remaining FROM distsys.idempotency_begin('pay', 'default', NULL);
SELECT distsys.idempotency_policy_drop('default');
SELECT status, ttl_remaining FROM distsys.idempotency_begin('pay', 'default2', sha256('a'));
BEGIN;
SELECT distsys.idempotency_policy_drop('twice');
ROLLBACK;
SELECT status FROM distsys.idempotency_begin('pay', 'still', sha256('a'), policy => 'twice');
SELECT distsys.idempotency_policy_drop(policy) FROM distsys.idempotency_policy;

-- leave nothing behind
SELECT count(distsys.idempotency_forget(scope, key)) > 10 AS forgotten FROM distsys.idempotency_record WHERE scope IN ('pay', 'other');
