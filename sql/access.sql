
-- ---------------------------------------------------------------------------
-- access: who may call what. PUBLIC may nothing.
-- ---------------------------------------------------------------------------

-- What access_grant() gave, so that access_apply() can give it again after an update has brought new functions.
CREATE TABLE distsys.access (
    grantee regrole NOT NULL,
    profile text COLLATE "C" NOT NULL CHECK (profile IN ('app', 'consumer', 'config', 'operator', 'monitor')),
    PRIMARY KEY (grantee, profile)
);
COMMENT ON TABLE distsys.access IS 'The profiles that distsys.access_grant() has given. Changed by access_grant() and access_revoke() only.';
SELECT pg_catalog.pg_extension_config_dump('distsys.access', '');

CREATE FUNCTION distsys._access_check(grantee text, profile text) RETURNS regrole
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE CALLED ON NULL INPUT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    role_id oid;
BEGIN
    IF grantee IS NULL OR profile IS NULL THEN
        RAISE EXCEPTION '% must not be null', CASE WHEN grantee IS NULL THEN 'grantee' ELSE 'profile' END
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF profile NOT IN ('app', 'consumer', 'config', 'operator', 'monitor') THEN
        RAISE EXCEPTION 'profile "%" is not known', profile
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Profiles are app, consumer, config, operator and monitor.';
    END IF;
    SELECT r.oid INTO role_id FROM pg_roles r WHERE r.rolname = grantee;
    IF role_id IS NULL THEN
        RAISE EXCEPTION 'role "%" does not exist', grantee
            USING ERRCODE = 'undefined_object', HINT = 'Give the name as it is, without quotes. PUBLIC cannot be a grantee.';
    END IF;
    RETURN role_id;
END
$$;
COMMENT ON FUNCTION distsys._access_check(text, text) IS 'Internal: checks the arguments of access_grant() and access_revoke().';

-- The profile's objects, as GRANT and REVOKE name them.
CREATE FUNCTION distsys._access_objects(profile text, OUT privilege text, OUT object text) RETURNS SETOF record
    LANGUAGE sql STABLE PARALLEL SAFE CALLED ON NULL INPUT SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE o.kind WHEN 'routine' THEN 'EXECUTE' WHEN 'view' THEN 'SELECT' ELSE 'SELECT, INSERT, UPDATE, DELETE' END,
           format('%s distsys.%I', CASE o.kind WHEN 'routine' THEN 'ROUTINE' ELSE 'TABLE' END, o.name)
    FROM distsys.access_object o
    WHERE o.profile = _access_objects.profile
    ORDER BY o.kind, o.name
$$;
COMMENT ON FUNCTION distsys._access_objects(text) IS 'Internal: what a profile gives.';

CREATE FUNCTION distsys._access_give(grantee regrole, profile text) RETURNS int
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    o record;
    n int := 0;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA distsys TO %s', grantee);
    FOR o IN SELECT * FROM distsys._access_objects(profile) LOOP
        EXECUTE format('GRANT %s ON %s TO %s', o.privilege, o.object, grantee);
        n := n + 1;
    END LOOP;
    RETURN n;
END
$$;
COMMENT ON FUNCTION distsys._access_give(regrole, text) IS 'Internal: grants what a profile gives; returns the number of objects.';

CREATE FUNCTION distsys.access_grant(grantee text, profile text) RETURNS int
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    checked regrole := distsys._access_check(grantee, profile);
BEGIN
    LOCK TABLE distsys.access IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO distsys.access AS a (grantee, profile) VALUES (checked, access_grant.profile)
        ON CONFLICT ON CONSTRAINT access_pkey DO NOTHING;
    RETURN distsys._access_give(checked, profile);
END
$$;
COMMENT ON FUNCTION distsys.access_grant(text, text) IS 'Gives a role a profile: app (services), consumer (workers that read the outbox), config (migrations), operator (people on call), monitor (exporters). Returns the number of objects granted; again is the same. grantee is a role name as it is, without quotes: unknown 42704; unknown profile 22023; NULL 22004. Whoever may call this can give any profile to anybody.';

CREATE FUNCTION distsys.access_revoke(grantee text, profile text) RETURNS int
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    checked regrole := distsys._access_check(grantee, profile);
    o record;
    n int := 0;
BEGIN
    LOCK TABLE distsys.access IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM distsys.access a WHERE a.grantee = checked AND a.profile = access_revoke.profile;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- what another profile of this role gives as well stays
    FOR o IN SELECT * FROM distsys._access_objects(access_revoke.profile)
             EXCEPT
             SELECT k.privilege, k.object FROM distsys.access a, distsys._access_objects(a.profile) k WHERE a.grantee = checked
    LOOP
        EXECUTE format('REVOKE %s ON %s FROM %s', o.privilege, o.object, checked);
        n := n + 1;
    END LOOP;
    IF NOT EXISTS (SELECT FROM distsys.access a WHERE a.grantee = checked) THEN
        EXECUTE format('REVOKE USAGE ON SCHEMA distsys FROM %s', checked);
    END IF;
    RETURN n;
END
$$;
COMMENT ON FUNCTION distsys.access_revoke(text, text) IS 'Takes a profile from a role; what another of its profiles gives as well stays. Returns the number of objects revoked, 0 when the role did not have the profile. Errors as in access_grant().';

CREATE FUNCTION distsys.access_apply() RETURNS int
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a record;
    n int := 0;
BEGIN
    LOCK TABLE distsys.access IN SHARE ROW EXCLUSIVE MODE;
    -- roles that were dropped since
    DELETE FROM distsys.access d WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = d.grantee);
    FOR a IN SELECT d.grantee, d.profile FROM distsys.access d ORDER BY d.profile, d.grantee::oid LOOP
        n := n + distsys._access_give(a.grantee, a.profile);
    END LOOP;
    RETURN n;
END
$$;
COMMENT ON FUNCTION distsys.access_apply() IS 'Gives every role in distsys.access its profiles again: after a restore, and at the end of every update script, since a new version has new functions. Returns the number of objects granted.';

-- Every member of the extension loses what PUBLIC gets by default. Members only: the schema may hold a user's own objects.
CREATE FUNCTION distsys._access_close() RETURNS int
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    o record;
    n int := 0;
BEGIN
    FOR o IN
        SELECT format('%s %s', m.kind, m.name) AS object
        FROM (SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
              WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'distsys') d,
        LATERAL (SELECT 'ROUTINE', p.oid::regprocedure::text FROM pg_proc p
                 WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid
                 UNION ALL
                 SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text FROM pg_class c
                 WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
                 UNION ALL
                 SELECT 'TYPE', format_type(t.oid, NULL) FROM pg_type t
                 WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid AND t.typelem = 0) AS m(kind, name)
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', o.object);
        n := n + 1;
    END LOOP;
    EXECUTE 'REVOKE ALL ON SCHEMA distsys FROM PUBLIC';
    RETURN n;
END
$$;
COMMENT ON FUNCTION distsys._access_close() IS 'Internal: takes everything from PUBLIC. The last but one statement of the install script and of every update script.';

INSERT INTO distsys.access_object (profile, kind, name) VALUES
    ('operator', 'routine', 'access_grant'),
    ('operator', 'routine', 'access_revoke'),
    ('operator', 'routine', 'access_apply'),
    ('operator', 'view', 'access'),
    ('monitor', 'view', 'access');

SELECT distsys._access_close();
SELECT distsys._access_give('pg_monitor', 'monitor');
