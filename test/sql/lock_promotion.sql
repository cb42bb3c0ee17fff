-- Until failover_delay after a promotion there is no new grant; a caller who rolls back each refusal gets it then all the same.
SET distsys.notice_in_transaction = off;
SELECT acquired FROM distsys.lease_acquire('known', 'me', '20 s');
DELETE FROM distsys.lease_grant WHERE name <> 'known';
DELETE FROM distsys.leader_term;
DELETE FROM distsys.semaphore_permit;
UPDATE distsys.token_state SET timeline = timeline - 1;
\c
SET distsys.notice_in_transaction = off;
-- a first call that fails while it looks for the longest ttl: the session does not take the promotion as known
CREATE INDEX unsupported ON distsys.leader_term ((ttl_us + 1));
\set VERBOSITY sqlstate
SELECT acquired, reason FROM distsys.lease_acquire('new', 'me', '1 s');
\set VERBOSITY default
DROP INDEX distsys.unsupported;
BEGIN;
SELECT acquired, reason, retry_after BETWEEN '10 s' AND '21 s' AS later FROM distsys.lease_acquire('new', 'me', '1 s');
ROLLBACK;
SET distsys.clock_offset = '15 s';
BEGIN;
SELECT acquired, reason, retry_after < '6 s' AS sooner FROM distsys.lease_acquire('new', 'me', '1 s');
ROLLBACK;
SET distsys.clock_offset = '21 s';
BEGIN;
SELECT acquired, reason FROM distsys.lease_acquire('new', 'me', '1 s');
ROLLBACK;
-- as it was for the tests after this one
RESET distsys.clock_offset;
DELETE FROM distsys.lease_grant;
UPDATE distsys.token_state SET promoted_at = 'epoch', promoted_boot = 0, promoted_clock = 0, timeline = (SELECT timeline_id FROM pg_control_checkpoint());
