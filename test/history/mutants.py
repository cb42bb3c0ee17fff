"""Calls that are broken on purpose: what a checker is for, it has to find.

A mutant is a function in the schema `mutant` of the test's database that clients call in place of the one in distsys.
Most are mistakes that have been made in published lock libraries. `found_by` is the checker that must find it.
"""


class Mutant:
    def __init__(self, name, found_by, mistake, functions, sql, workload="lease"):
        self.name, self.found_by, self.mistake, self.functions, self.sql, self.workload = name, found_by, mistake, functions, sql, workload


LEASE_ACQUIRE = "mutant.lease_acquire(name text, owner text, ttl interval, wait interval DEFAULT '0', mode text DEFAULT 'exclusive', request_id uuid DEFAULT NULL)"
LEASE_RENEW = "mutant.lease_renew(name text, token bigint, ttl interval DEFAULT NULL)"

NO_ASSERT = """
CREATE FUNCTION mutant.lease_assert(name text, token bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
"""

NO_FENCE = """
CREATE FUNCTION mutant.fence_assert(resource text, token bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
"""

# asks whether the transaction has shown a token, not of what
FENCE_FOR_ANY_TOKEN = """
CREATE FUNCTION mutant.guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM distsys.locks l WHERE l.kind IN ('lease', 'fence') AND l.pid = pg_backend_pid()) THEN
        RAISE SQLSTATE 'SD002';
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION mutant.fence_attach(rel regclass, lease_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER guard BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION mutant.guard()', rel);
END $$;
"""

# clients of one host have the same owner, and it is the name of the connection
RENEW_BY_OWNER = f"""
CREATE FUNCTION {LEASE_RENEW} RETURNS distsys.lease LANGUAGE sql SECURITY DEFINER AS $$
    SELECT r FROM distsys.lease_renew(name,
        coalesce((SELECT g.token FROM distsys.lease_grant g WHERE g.name = $1 AND g.slot = 0 AND g.owner = current_setting('application_name')), token), ttl) r;
$$;
"""

# a lease of its own in plain SQL, in which time stands still from BEGIN on
TIME_OF_BEGIN = f"""
CREATE TABLE mutant.lease (name text PRIMARY KEY, owner text, token bigint, expires_at timestamptz, ttl interval);
CREATE SEQUENCE mutant.token;
CREATE FUNCTION mutant.answer(l mutant.lease, ok boolean) RETURNS distsys.lease LANGUAGE sql AS $$
    SELECT ROW(ok, CASE WHEN ok THEN 'ok' ELSE 'held' END, l.name, l.owner, 'exclusive', CASE WHEN ok THEN l.token END, NULL, l.expires_at, l.ttl, NULL, NULL)::distsys.lease;
$$;
CREATE FUNCTION {LEASE_ACQUIRE} RETURNS distsys.lease LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    l mutant.lease;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext($1));
    SELECT * INTO l FROM mutant.lease m WHERE m.name = $1;
    IF l.expires_at > now() THEN
        RETURN mutant.answer(l, false);
    END IF;
    l := ROW($1, $2, nextval('mutant.token'), now() + $3, $3);
    DELETE FROM mutant.lease m WHERE m.name = $1;
    INSERT INTO mutant.lease SELECT l.*;
    RETURN mutant.answer(l, true);
END $$;
CREATE FUNCTION {LEASE_RENEW} RETURNS distsys.lease LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    l mutant.lease;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext($1));
    UPDATE mutant.lease m SET expires_at = now() + $3, ttl = $3 WHERE m.name = $1 AND m.token = $2 AND m.expires_at > now() RETURNING * INTO l;
    IF NOT FOUND THEN
        RAISE SQLSTATE 'SD002';
    END IF;
    RETURN mutant.answer(l, true);
END $$;
CREATE FUNCTION mutant.lease_release(name text, token bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext($1));
    DELETE FROM mutant.lease m WHERE m.name = $1 AND m.token = $2;
    RETURN FOUND;
END $$;
"""

# tokens are counted in the row of the lease, and the row goes when the lease does
COUNTER_THAT_RESETS = f"""
CREATE TABLE mutant.counter (name text PRIMARY KEY, token bigint);
CREATE FUNCTION {LEASE_ACQUIRE} RETURNS distsys.lease LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    l distsys.lease;
    real bigint;
BEGIN
    SELECT * INTO l FROM distsys.lease_acquire($1, $2, $3, $4, request_id => $6);
    IF l.acquired THEN
        real := l.token;
        INSERT INTO mutant.counter AS c VALUES ($1, 1) ON CONFLICT ON CONSTRAINT counter_pkey DO UPDATE SET token = c.token + 1 RETURNING c.token INTO l.token;
        INSERT INTO mutant.real_token VALUES ($1, l.token, real) ON CONFLICT ON CONSTRAINT real_token_pkey DO UPDATE SET real = excluded.real;
    END IF;
    RETURN l;
END $$;
CREATE TABLE mutant.real_token (name text, token bigint, real bigint, PRIMARY KEY (name, token));
CREATE FUNCTION {LEASE_RENEW} RETURNS distsys.lease LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    l distsys.lease;
BEGIN
    SELECT * INTO l FROM distsys.lease_renew($1, coalesce((SELECT t.real FROM mutant.real_token t WHERE t.name = $1 AND t.token = $2), $2), $3);
    l.token := $2;
    RETURN l;
END $$;
CREATE FUNCTION mutant.lease_release(name text, token bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF NOT distsys.lease_release($1, coalesce((SELECT t.real FROM mutant.real_token t WHERE t.name = $1 AND t.token = $2), $2)) THEN
        RETURN false;
    END IF;
    DELETE FROM mutant.counter c WHERE c.name = $1;
    RETURN true;
END $$;
CREATE FUNCTION mutant.lease_assert(name text, token bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS $$
    SELECT distsys.lease_assert($1, coalesce((SELECT t.real FROM mutant.real_token t WHERE t.name = $1 AND t.token = $2), $2));
$$;
"""

# "it is mine, is it not": by name, whatever the token
RELEASE_BY_NAME = """
CREATE FUNCTION mutant.lease_release(name text, token bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS $$
    SELECT coalesce(bool_or(distsys.lease_release($1, g.token)), true) FROM distsys.lease_grant g WHERE g.name = $1;
$$;
"""

# a lock of the session that nobody gives back
LOCK_LEAKS = f"""
CREATE FUNCTION {LEASE_ACQUIRE} RETURNS distsys.lease LANGUAGE plpgsql AS $$
DECLARE
    l distsys.lease;
BEGIN
    SELECT * INTO l FROM distsys.lease_acquire($1, $2, $3, $4, $5, $6);
    IF l.acquired THEN
        PERFORM distsys.session_lock('leak ' || l.token);
    END IF;
    RETURN l;
END $$;
"""

# looks how many are out, and takes one more
COUNT_THEN_TAKE = """
CREATE TABLE mutant.permit (name text, token bigint, permits int, expires_at timestamptz);
CREATE SEQUENCE mutant.permit_token;
CREATE FUNCTION mutant.semaphore_acquire(name text, owner text, ttl interval, permits int DEFAULT 1, wait interval DEFAULT '0', request_id uuid DEFAULT NULL)
RETURNS distsys.semaphore_grant LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    t bigint;
BEGIN
    IF (SELECT coalesce(sum(p.permits), 0) FROM mutant.permit p WHERE p.name = $1 AND p.expires_at > clock_timestamp()) + $4 > 3 THEN
        RETURN ROW(false, 'no_permit', NULL, NULL, NULL, NULL, NULL, NULL)::distsys.semaphore_grant;
    END IF;
    PERFORM pg_sleep(0.005);
    t := nextval('mutant.permit_token');
    INSERT INTO mutant.permit VALUES ($1, t, $4, clock_timestamp() + $3);
    RETURN ROW(true, 'ok', t, NULL, NULL, $3, NULL, NULL)::distsys.semaphore_grant;
END $$;
CREATE FUNCTION mutant.semaphore_renew(name text, token bigint, ttl interval DEFAULT NULL) RETURNS distsys.semaphore_grant LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE mutant.permit p SET expires_at = clock_timestamp() + $3 WHERE p.token = $2 AND p.expires_at > clock_timestamp();
    IF NOT FOUND THEN
        RAISE SQLSTATE 'SD002';
    END IF;
    RETURN ROW(true, 'ok', $2, NULL, NULL, $3, NULL, NULL)::distsys.semaphore_grant;
END $$;
CREATE FUNCTION mutant.semaphore_release(name text, token bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    DELETE FROM mutant.permit p WHERE p.token = $2 AND p.expires_at > clock_timestamp();
    RETURN FOUND;
END $$;
CREATE FUNCTION mutant.semaphore_assert(name text, token bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM mutant.permit p WHERE p.token = $2 AND p.expires_at > clock_timestamp()) THEN
        RAISE SQLSTATE 'SD002';
    END IF;
    RETURN true;
END $$;
"""

# fewer permits than before are noted where no acquire looks
NEVER_SMALLER = """
CREATE FUNCTION mutant.semaphore_resize(name text, permits int) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS $$
    SELECT distsys.semaphore_resize($1, greatest($2, (SELECT s.permits FROM distsys.semaphore s WHERE s.name = $1))) IS NOT NULL;
$$;
"""

MUTANTS = {m.name: m for m in (
    Mutant("no-assert", "append", "critical sections are not guarded by lease_assert", ("lease_assert",), NO_ASSERT),
    Mutant("no-fence", "append", "critical sections are not guarded by fence_assert", ("fence_assert",), NO_FENCE),
    Mutant("any-token", "append", "the fence of a table asks whether a token was shown, not of what", ("fence_attach",), FENCE_FOR_ANY_TOKEN),
    Mutant("renew-by-owner", "overlap", "renew asks for the owner in place of the token", ("lease_renew",), RENEW_BY_OWNER),
    Mutant("time-of-begin", "overlap", "time is now(), that of BEGIN", ("lease_acquire", "lease_renew", "lease_release", "lease_assert", "lease_get"),
           TIME_OF_BEGIN + NO_ASSERT + "CREATE FUNCTION mutant.lease_get(name text) RETURNS SETOF distsys.lease LANGUAGE sql AS 'SELECT NULL::distsys.lease WHERE false';"),
    Mutant("counter-resets", "tokens", "tokens are counted in the row, which goes with the lease", ("lease_acquire", "lease_renew", "lease_release", "lease_assert"), COUNTER_THAT_RESETS),
    Mutant("release-by-name", "linear", "release frees the name, whatever the token", ("lease_release",), RELEASE_BY_NAME),
    Mutant("lock-leaks", "liveness", "acquire leaves a lock behind", ("lease_acquire",), LOCK_LEAKS),
    Mutant("count-then-take", "overlap", "permits are counted before one more is taken", ("semaphore_acquire", "semaphore_renew", "semaphore_release", "semaphore_assert"),
           COUNT_THEN_TAKE, workload="semaphore"),
    Mutant("never-smaller", "overlap", "acquire does not look at a smaller number of permits", ("semaphore_resize",), NEVER_SMALLER, workload="semaphore"),
)}
