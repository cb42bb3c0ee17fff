-- docs/calling.md, line by line: the right form beside the wrong ones. The numbers are those of the page.
SET distsys.notice_in_transaction = off;
CREATE TEMP TABLE account (id int PRIMARY KEY, balance bigint);
INSERT INTO account SELECT n, 100 FROM generate_series(1, 3) n;
SELECT distsys.rate_limit_create('calling', quota => 100, period => '1 hour');
SELECT distsys.outbox_topic_create('calling');
SELECT token FROM distsys.lease_acquire('calling', 'me', '10 min') \gset
CREATE FUNCTION pg_temp.sqlstate_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

-- 1. In FROM a call happens once; (f()).* calls once per column.
SELECT allowed, remaining FROM distsys.rate_limit_take('calling', 'one');
SELECT count(*) FROM (SELECT (distsys.rate_limit_take('calling', 'twelve')).*) t;
SELECT remaining < 90 AS took_one_per_column FROM distsys.rate_limit_peek('calling', 'twelve');

-- 2. A guard is a subselect: it runs once, also when no row matches. In WHERE by itself it runs per row, or not at all.
UPDATE account SET balance = balance - 1 WHERE id = 1 AND (SELECT distsys.lease_assert('calling', :token));
SELECT pg_temp.sqlstate_of(format('UPDATE account SET balance = 0 WHERE id = 1 AND (SELECT distsys.lease_assert(''calling'', %s))', :token + 1));
SELECT pg_temp.sqlstate_of(format('UPDATE account SET balance = 0 WHERE id = 99 AND (SELECT distsys.lease_assert(''calling'', %s))', :token + 1));
SET enable_seqscan = off;
SELECT pg_temp.sqlstate_of(format('UPDATE account SET balance = 0 WHERE id = 99 AND distsys.lease_assert(''calling'', %s)', :token + 1)) AS wrong_form;
RESET enable_seqscan;
SELECT count(*) FROM account WHERE (distsys.rate_limit_take('calling', 'rows')).allowed;
SELECT remaining AS took_one_per_row FROM distsys.rate_limit_peek('calling', 'rows');
INSERT INTO account SELECT 4, 0 WHERE (SELECT distsys.lease_assert('calling', :token));
SELECT id, balance FROM account ORDER BY id;

-- 3. A CTE that nobody reads does not run.
SELECT pg_temp.sqlstate_of(format('WITH guard AS (SELECT distsys.lease_assert(''calling'', %s)) UPDATE account SET balance = 7 WHERE id = 2', :token + 1)) AS wrong_form;
SELECT balance FROM account WHERE id = 2;

-- 4. A join does not keep the second call from running. Two statements, or CASE.
SELECT l.allowed, b.status
FROM distsys.rate_limit_take('calling', 'joined', 0) l
LEFT JOIN LATERAL distsys.idempotency_begin('calling', 'joined', distsys.fingerprint_parts('x')) b ON NOT l.allowed;
SELECT status AS claimed_all_the_same FROM distsys.idempotency_get('calling', 'joined');
SELECT CASE WHEN l.allowed THEN (SELECT b.status FROM distsys.idempotency_begin('calling', 'case', distsys.fingerprint_parts('x')) b) END AS status
FROM distsys.rate_limit_take('calling', 'case') l;

-- 5. Named arguments with =>.
SELECT acquired, reason FROM distsys.lease_acquire('calling', owner => 'other', ttl => '30 s', wait => '0');

-- 6. Intervals: a literal with its unit, or make_interval(secs => n). A bare number is seconds.
SELECT acquired, ttl_remaining > '29 s' AS half_a_minute FROM distsys.lease_acquire('calling 6', 'me', make_interval(secs => 30));
SELECT distsys.lease_release('calling 6', token) FROM distsys.lease_get('calling 6');
SELECT pg_temp.sqlstate_of($$SELECT distsys.lease_acquire('calling 6', 'me', '30000')$$) AS milliseconds_meant;

-- 7. Tokens and positions are exact in JSON and in a double.
SELECT (to_jsonb(l) ->> 'token')::bigint = l.token AND l.token::float8::bigint = l.token AND l.token < 2::bigint ^ 53 AS exact
FROM distsys.lease_get('calling') l;

-- 8. CALL forms are statements of their own.
CALL distsys.session_lock_wait('calling 8') \gset call_
SELECT distsys.session_unlock('calling 8', :call_token);
BEGIN;
CALL distsys.session_lock_wait('calling 8');
ROLLBACK;

-- 9. Refused is a row; _or_raise makes it an error.
SELECT allowed, reason FROM distsys.rate_limit_take('calling', 'nine', 101);
SELECT pg_temp.sqlstate_of($$SELECT distsys.rate_limit_take_or_raise('calling', 'nine', 101)$$);
SELECT status FROM distsys.idempotency_begin('calling', 'joined', distsys.fingerprint_parts('x'));
SELECT pg_temp.sqlstate_of($$SELECT distsys.idempotency_begin_or_raise('calling', 'joined', distsys.fingerprint_parts('x'))$$);

-- 10. A rate limit is taken before BEGIN: a rollback gives the tokens back.
BEGIN;
SELECT remaining FROM distsys.rate_limit_take('calling', 'ten', 5);
ROLLBACK;
SELECT remaining AS guessed_for_nothing FROM distsys.rate_limit_peek('calling', 'ten');
SELECT distsys.rate_limit_create('calling outside', quota => 5, period => '1 min', in_transaction => 'forbid');
BEGIN;
SELECT distsys.rate_limit_take('calling outside', 'ten');
ROLLBACK;

-- 11. A lease is acquired and renewed in autocommit: in a transaction others see it at COMMIT only.
RESET distsys.notice_in_transaction;
BEGIN;
SELECT acquired FROM distsys.lease_acquire('calling 11', 'me', '30 s');
ROLLBACK;
SELECT count(*) FROM distsys.lease_get('calling 11');

-- 12. NULL where a value is needed is an error, never a silent NULL.
SELECT pg_temp.sqlstate_of($$SELECT distsys.lease_acquire('calling 12', 'me', NULL)$$);
SELECT pg_temp.sqlstate_of($$SELECT distsys.lease_acquire('calling 12', 'me', '30 s', wait => NULL)$$);

-- 13. _get: no such thing is no row.
SELECT count(*) FROM distsys.lease_get('nobody');
SELECT count(*) FROM distsys.idempotency_get('calling', 'nobody');

-- 14. Several calls in one statement: select them from the row that they belong to; without a row they do not run.
SELECT token AS claim FROM distsys.idempotency_begin('calling', 'fourteen', distsys.fingerprint_json('{"amount": 5}')) \gset
WITH entry AS (INSERT INTO account VALUES (5, 5) RETURNING id)
SELECT distsys.outbox_publish('calling', 'account.opened', jsonb_build_object('id', id)) IS NOT NULL AS published,
       distsys.idempotency_complete('calling', 'fourteen', :claim, 201, '{"id":5}') AS completed
FROM entry;
SELECT status, response_code, response_body FROM distsys.idempotency_begin('calling', 'fourteen', distsys.fingerprint_json('{"amount": 5.0}'));
SELECT type, payload FROM distsys.outbox_read('calling');
SELECT token AS claim FROM distsys.idempotency_begin('calling', 'empty', distsys.fingerprint_parts('x')) \gset
WITH entry AS (INSERT INTO account SELECT 5, 5 WHERE false RETURNING id)
SELECT distsys.idempotency_complete('calling', 'empty', :claim, 201) FROM entry;
SELECT status AS not_completed FROM distsys.idempotency_get('calling', 'empty');

-- 15. In PL/pgSQL: SELECT ... INTO from FROM, PERFORM for verbs.
DO $$
DECLARE
    b distsys.idempotency_result;
BEGIN
    SELECT * INTO b FROM distsys.idempotency_begin('calling', 'fifteen', distsys.fingerprint_parts('x'));
    PERFORM distsys.idempotency_complete('calling', 'fifteen', b.token, 204);
END $$;
SELECT status, response_code, response_body IS NULL AS no_body FROM distsys.idempotency_get('calling', 'fifteen');

-- 16. Session locks need the connection that took them.
SELECT distsys.session_lock('calling 16') AS session_token \gset
SELECT pg_temp.sqlstate_of($$SELECT distsys.session_lock('calling 16', wait => '0')$$) AS not_reentrant;
SELECT distsys.session_unlock('calling 16', :session_token);
SELECT pg_temp.sqlstate_of(format('SELECT distsys.session_unlock(''calling 16'', %s)', :session_token)) AS another_connection;

-- clean up
SELECT distsys.lease_release('calling', :token);
SELECT distsys.rate_limit_drop('calling'), distsys.rate_limit_drop('calling outside'), distsys.outbox_topic_drop('calling');
