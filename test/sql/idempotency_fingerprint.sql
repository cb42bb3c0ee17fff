-- Fingerprints, deterministic keys and the Idempotency-Key header.

-- JSON: order of keys, space, trailing zeros and duplicates do not matter; values, types and order of arrays do
SELECT a, b, distsys.fingerprint_json(a::jsonb) = distsys.fingerprint_json(b::jsonb) AS same
FROM (VALUES (1, '{"a": 1, "b": [1, 2]}', '{"b":[1,2],"a":1}'), (2, '{"a": 1.0}', '{"a": 1}'), (3, '{"a": 1.10e1}', '{"a": 11}'), (4, '{"a": 0.0}', '{"a": 0}'),
             (5, '{"a": 1, "a": 2}', '{"a": 2}'), (6, '{"a": 1}', '{"a": "1"}'), (7, '[1, 2]', '[2, 1]'), (8, '[1]', '1'), (9, '{}', '[]'), (10, 'null', 'false'),
             (11, '{"a": null}', '{}'), (12, '["ab", "c"]', '["a", "bc"]'), (13, '{"a": {"b": 1.00}}', '{"a": {"b": 1}}'), (14, '{"a": "x"}', '{"a": "y"}'),
             (15, '{"a": [[1], 2]}', '{"a": [1, [2]]}'), (16, '100000000000000000000.0', '100000000000000000000')) v (i, a, b) ORDER BY i;
SELECT length(distsys.fingerprint_json('{}'));

-- parts and requests: no two requests share a fingerprint by where one part ends
SELECT distsys.fingerprint_parts('ab', 'c') = distsys.fingerprint_parts('a', 'bc') AS parts, distsys.fingerprint_parts('') = distsys.fingerprint_parts('', '') AS empty,
       distsys.fingerprint_request('POST', '/a', 'b') = distsys.fingerprint_request('POST', '/ab', '') AS request,
       distsys.fingerprint_request('POST', '/a', NULL) = distsys.fingerprint_request('POST', '/a', '') AS no_body;
-- any client can compute it: the length (8 bytes, big-endian) before each part
SELECT distsys.fingerprint_parts('ab', 'c') = sha256('\x0000000000000002'::bytea || 'ab'::bytea || '\x0000000000000001'::bytea || 'c'::bytea) AS documented;
SELECT distsys.fingerprint_parts(VARIADIC '{}') = sha256('') AS nothing;

-- keys: the same parts, the same key; version 8, variant 10
SELECT k, substr(k::text, 15, 1) AS version, substr(k::text, 20, 1) IN ('8', '9', 'a', 'b') AS variant, k = distsys.idempotency_key('ns', 'a', 'b') AS same,
       k = distsys.idempotency_key('ns', 'ab') AS concatenated, k = distsys.idempotency_key('nsa', 'b') AS moved FROM distsys.idempotency_key('ns', 'a', 'b') k;

-- the header
SELECT header, distsys.idempotency_key_parse(header) FROM (VALUES ('"abc"'), ('abc'), ('  "abc"  '), ('"a\"b\\c"'), ('"with space"'), ('"abc";v=1'), ('8e03978e-40d5-43e8-bc93-6894a57f9324'), (repeat('x', 255))) v (header);
CREATE FUNCTION pg_temp.state(header text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN distsys.idempotency_key_parse(header);
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;
SELECT header, pg_temp.state(header) FROM (VALUES (''), ('   '), ('""'), ('"abc'), ('abc"'), ('"abc" x'), ('"a\b"'), ('"a\'), ('a b'), (E'"a\tb"'), ('"ü"'), ('ü'), (NULL)) v (header);
SELECT pg_temp.state(repeat('x', 256)), pg_temp.state(repeat('x', 2000));

-- NULL
\set VERBOSITY sqlstate
SELECT distsys.fingerprint_json(NULL);
SELECT distsys.fingerprint_parts(VARIADIC NULL);
SELECT distsys.fingerprint_parts('a', NULL);
SELECT distsys.fingerprint_request(NULL, '/', '');
SELECT distsys.fingerprint_request('GET', NULL, '');
SELECT distsys.idempotency_key(NULL, 'a');
SELECT distsys.idempotency_key('n', NULL);
SELECT distsys.idempotency_key('', 'a');
