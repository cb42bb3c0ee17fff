-- distsys.http_sqlstate: refusals as the codes that PostgREST answers with that HTTP status; misuse keeps its code.
\set VERBOSITY sqlstate
SET client_min_messages = warning;

CREATE FUNCTION pg_temp.both(call text, OUT sd text, OUT http text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('distsys.http_sqlstate', 'off', true);
    BEGIN
        EXECUTE 'SELECT ' || call;
    EXCEPTION WHEN OTHERS THEN
        sd := SQLSTATE;
    END;
    PERFORM set_config('distsys.http_sqlstate', 'on', true);
    BEGIN
        EXECUTE 'SELECT ' || call;
    EXCEPTION WHEN OTHERS THEN
        http := SQLSTATE;
    END;
END
$$;

SELECT distsys.rate_limit_create('http', quota => 1, period => '10 h');
SELECT allowed FROM distsys.rate_limit_take('http', 'k');
SELECT status FROM distsys.idempotency_begin('http', 'k', sha256('x'));
SELECT acquired FROM distsys.lease_acquire('http', 'me', '10 min');
SELECT distsys.fence_pass('http', 5);
SELECT call, b.* FROM (VALUES
    ($$distsys.rate_limit_take_or_raise('http', 'k')$$),
    ($$distsys.idempotency_begin_or_raise('http', 'k', sha256('x'))$$),
    ($$distsys.idempotency_begin_or_raise('http', 'k', sha256('y'))$$),
    ($$distsys.idempotency_complete('http', 'k', 1, 200)$$),
    ($$distsys.lease_assert('http', 1)$$),
    ($$distsys.fence_assert('http', 4)$$),
    -- misuse
    ($$distsys.rate_limit_take_or_raise('http', NULL)$$),
    ($$distsys.rate_limit_take_or_raise('nope', 'k')$$)) v(call), LATERAL pg_temp.both(call) b;
SHOW distsys.http_sqlstate;
SELECT distsys.rate_limit_drop('http');
DELETE FROM distsys.rate_limit_bucket;
