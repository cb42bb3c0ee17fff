\set ECHO none
-- The SQLSTATE of a call, in a transaction that is read-only if so wanted. What it did is undone.
CREATE FUNCTION pg_temp.state(call text, read_only boolean DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF read_only THEN
        SET LOCAL transaction_read_only = on;
    END IF;
    EXECUTE 'SELECT ' || call;
    RAISE EXCEPTION USING ERRCODE = 'ZZZZZ';
EXCEPTION WHEN OTHERS THEN
    RETURN CASE SQLSTATE WHEN 'ZZZZZ' THEN 'ok' ELSE SQLSTATE END;
END $$;
\set ECHO all
