-- Who holds a lease may be another login of the same role; a stranger learns nothing and changes nothing.
\set VERBOSITY sqlstate
SET client_min_messages = warning;
CREATE ROLE regress_lock_service;
CREATE ROLE regress_lock_login_1 IN ROLE regress_lock_service;
CREATE ROLE regress_lock_login_2 IN ROLE regress_lock_service;
CREATE ROLE regress_lock_stranger;
CREATE ROLE regress_lock_monitor;
CREATE ROLE regress_lock_nobody;
SELECT distsys.access_grant('regress_lock_service', 'app') > 0, distsys.access_grant('regress_lock_stranger', 'app') > 0,
       distsys.access_grant('regress_lock_monitor', 'monitor') > 0;
RESET client_min_messages;

SET ROLE regress_lock_service;
SELECT token AS t FROM distsys.lease_acquire('shared work', 'login 1', '10 min') \gset
-- a login of the same role has the rights of the role
SET ROLE regress_lock_login_2;
SELECT token = :t AS token, acquired FROM distsys.lease_renew('shared work', :t);
SELECT token = :t AS token FROM distsys.lease_get('shared work');
SELECT distsys.lease_assert('shared work', :t);
-- but what a login acquires without SET ROLE is its own
SELECT token AS own FROM distsys.lease_acquire('own work', 'login 2', '10 min') \gset
SET ROLE regress_lock_login_1;
SELECT token FROM distsys.lease_get('own work');
SELECT distsys.lease_renew('own work', :own);

-- a request's retry may come from another login of the role, not from a stranger
SET ROLE regress_lock_service;
SELECT token AS q FROM distsys.lease_acquire('request', 'login 1', '10 min', request_id => '00000000-0000-0000-0000-000000000001') \gset
SET ROLE regress_lock_login_2;
SELECT token = :q AS same FROM distsys.lease_acquire('request', 'login 2', '10 min', request_id => '00000000-0000-0000-0000-000000000001');
SET ROLE regress_lock_stranger;
SELECT acquired, reason, token FROM distsys.lease_acquire('request', 'login 1', '10 min', request_id => '00000000-0000-0000-0000-000000000001');
SET ROLE regress_lock_service;
SELECT distsys.lease_release('request', :q);

-- a stranger: no token, no renewal, no release, no second grant; the token alone proves a pin and passes a fence
SET ROLE regress_lock_stranger;
SELECT owner, token FROM distsys.lease_get('shared work');
SELECT acquired, reason, owner, token FROM distsys.lease_acquire('shared work', 'login 1', '10 min');
SELECT distsys.lease_renew('shared work', :t);
SELECT distsys.lease_release('shared work', :t);
SELECT distsys.lease_release('shared work', :t + 1);
SELECT distsys.lease_set_data('shared work', :t, '1');
SELECT distsys.lease_transfer('shared work', :t, 'stranger');
SELECT distsys.lease_break('shared work');
SELECT distsys.lease_assert('shared work', :t), distsys.fence_assert('lock_privileges', :t);
SELECT * FROM distsys.leases;
SELECT * FROM distsys.lease_grant;
SELECT * FROM distsys.fence;
SELECT distsys.token_epoch_bump();
SELECT distsys.token_advance(1);
RESET ROLE;
SELECT acquired, owner, role FROM distsys.leases JOIN distsys.lease_get('shared work') USING (name, owner);

-- monitor: sees who, not the token
SET ROLE regress_lock_monitor;
SELECT name, owner, role, live, token FROM distsys.leases WHERE name IN ('shared work', 'own work') ORDER BY 1;
SELECT count(*) FROM distsys.locks WHERE kind = 'lease';
SELECT distsys.lease_acquire('x', 'x', '1 s');
SELECT distsys.lease_renew('shared work', :t);
SET ROLE regress_lock_nobody;
SELECT distsys.lease_get('shared work');
SELECT distsys.lock_key('x');
CALL distsys.session_lock_wait('x');
RESET ROLE;

-- leaders, permits and sessions: the same
SET ROLE regress_lock_service;
SELECT term AS e FROM distsys.leader_campaign('lock_privileges', 'login 1', '10 min') \gset
SELECT distsys.lease_session_open('login 1', '10 min') AS session \gset
SET ROLE regress_lock_login_2;
SELECT elected, term = :e AS term FROM distsys.leader_renew('lock_privileges', :e);
SELECT count(*) FROM distsys.lease_session_renew(:'session');
SELECT acquired FROM distsys.lease_acquire('of a session', 'login 2', '10 min', session_id => :'session');
-- what was acquired under a session belongs to the role of the session
SET ROLE regress_lock_service;
SELECT acquired, reason, name, token IS NOT NULL AS token FROM distsys.lease_session_renew(:'session');
SET ROLE regress_lock_stranger;
SELECT candidate, term FROM distsys.leader_current('lock_privileges');
SELECT distsys.leader_renew('lock_privileges', :e);
SELECT distsys.leader_proclaim('lock_privileges', :e, '1');
SELECT distsys.leader_resign('lock_privileges', :e);
SELECT distsys.leader_request_step_down('lock_privileges', 'please');
SELECT distsys.leader_assert('lock_privileges', :e);
SELECT distsys.lease_session_renew(:'session');
SELECT distsys.lease_session_close(:'session');
SELECT acquired FROM distsys.lease_acquire('of a session', 'stranger', '10 min', session_id => :'session');
RESET ROLE;
SELECT distsys.leader_resign('lock_privileges', :e), distsys.lease_session_close(:'session');
SELECT distsys.lease_break('of a session');

-- what a stranger is told of a holder whose role was dropped
CREATE ROLE regress_lock_gone;
SELECT distsys.access_grant('regress_lock_gone', 'app') > 0;
SET ROLE regress_lock_gone;
SELECT token AS g FROM distsys.lease_acquire('of nobody', 'gone', '10 min') \gset
RESET ROLE;
SELECT distsys.access_revoke('regress_lock_gone', 'app') > 0;
DROP ROLE regress_lock_gone;
SET ROLE regress_lock_stranger;
SELECT distsys.lease_assert('of nobody', :g);
SELECT set_config('lock_privileges.g', :'g', false) = :'g';
\set VERBOSITY terse
DO $$
DECLARE
    detail text;
BEGIN
    PERFORM distsys.lease_renew('of nobody', current_setting('lock_privileges.g')::bigint);
EXCEPTION WHEN insufficient_privilege THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RAISE NOTICE '%', regexp_replace(detail, '\d+', 'NUMBER');
END $$;
\set VERBOSITY sqlstate
RESET ROLE;
SELECT distsys.lease_release('of nobody', :g);

-- a holder's role that is dropped: its rows stay readable, the lease can be taken over when it has expired
SET ROLE regress_lock_service;
SELECT distsys.lease_release('shared work', :t);
RESET ROLE;
SELECT distsys.lease_release('own work', :own);
SELECT distsys.access_revoke('regress_lock_service', 'app') > 0, distsys.access_revoke('regress_lock_stranger', 'app') > 0,
       distsys.access_revoke('regress_lock_monitor', 'monitor') > 0;
DROP ROLE regress_lock_service, regress_lock_login_1, regress_lock_login_2, regress_lock_stranger, regress_lock_monitor, regress_lock_nobody;
SELECT live, token IS NOT NULL AS token FROM distsys.leases WHERE name IN ('shared work', 'own work');
SELECT acquired FROM distsys.lease_acquire('shared work', 'me', '10 s');
SELECT distsys.lease_release('shared work', token) FROM distsys.lease_get('shared work');
