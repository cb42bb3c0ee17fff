\set ECHO none
-- Of a call, or a statement: its SQLSTATE and whether there is a hint. What it did is undone: the next one meets the same state.
CREATE FUNCTION pg_temp.fails(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE CASE WHEN call ~ '^(INSERT|UPDATE|DELETE|SELECT) ' THEN '' ELSE 'SELECT ' END || call;
    RAISE EXCEPTION USING ERRCODE = 'ZZZZZ';
EXCEPTION WHEN SQLSTATE 'ZZZZZ' THEN
    RETURN 'no error';
WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || CASE WHEN hint <> '' THEN ', hint' ELSE '' END;
END
$$;
\set ECHO all
