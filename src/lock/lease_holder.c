/*
 * lease_holder.c: what the holder of a lease does: renew, release, set_data, assert.
 *
 * Locks as in lease.c: NAME as a pin, then GRANT for those who write. A
 * holder whose pin is refused looks whether his lease is live: if so, an
 * acquire that came too late lets go of NAME in a moment.
 *
 * A pin ends with its (sub)transaction, a renewal or release is undone by its rollback.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "compat.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "core/guc.h"
#include "core/refusal.h"
#include "core/stats.h"
#include "core/wait.h"
#include "core/xact.h"
#include "lock/lease_holder.h"
#include "lock/lease_pin.h"
#include "lock/lease_session.h"
#include "store/token.h"

/* A holder tries his pin again after this long while an acquire that came too late has the name. */
#define PIN_RETRY (1 * MILLISECONDS)

void
lease_raise_not_held(const LeaseKind *kind, const NameArg *name, const char *why)
{
	stats_add(kind->domain, "", "lost", 1);
	ereport(ERROR,
			(errcode_sd(ERRCODE_SD_LEASE_NOT_HELD),
			 errmsg("%s \"%s\" is not held with this %s", kind->noun, name_cstring(*name), kind->token_noun),
			 errdetail("%s", why),
			 errhint("Stop the work that it protects, or acquire it again.")));
}

/* Is this the live grant of token? NULL, or the reason why not. owner 0: there is no row. */
static const char *
why_not_held(const Lease *lease, int64 token)
{
	if (lease->owner == (Datum) 0)
		return "It was never granted, or has been dead for long.";
	if (lease->token != token)
		return lease->token > token ? "It has been granted again since." : "This token was never granted for it.";
	if (lease->live)
		return NULL;
	if (lease->token < token_lease_floor())
		return "It was granted before this database was restored.";
	return lease->broken ? "It was broken by an operator." : "It has expired or was released.";
}

void
lease_check_role(const LeaseKind *kind, const NameArg *name, Oid role)
{
	if (!has_privs_of_role(GetUserId(), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s \"%s\"", kind->noun, name_cstring(*name)),
				 errdetail("It is held by role \"%s\".", refusal_role(role)),
				 errhint("Give short-lived logins a common role: ALTER ROLE login SET role = 'service'.")));
}

LOCKMODE
lease_pin_mode(const Lease *lease)
{
	return lease->shared ? RowShareLock : RowExclusiveLock;
}

/*
 * Keeps a takeover out to the end of the (sub)transaction. NULL, or the reason why token is not the live grant;
 * then nothing is locked. *lease: the grant as it was before the lock.
 *
 * Who has NAME alone while the grant is live looked too late and lets go as
 * soon as he has looked again (or has taken another name with the same hash): that is waited for.
 */
static const char *
pin(const LeaseKind *kind, Relation rel, const NameArg *name, int64 token, Lease *lease)
{
	int64		until = wait_clock() + (int64) guc_max_function_wait * MILLISECONDS;
	LOCKTAG		tag;

	lease_name_tag(kind, &tag, name);
	for (;;)
	{
		const char *why;

		(void) lease_find(rel, name, token, lease);
		why = why_not_held(lease, token);

		if (why != NULL)
			return why;
		if (keylock_try(&tag, lease_pin_mode(lease)))
			return NULL;
		if (wait_clock() >= until)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("%s \"%s\" is locked by another transaction", kind->noun, name_cstring(*name)),
					 errhint("Retry.")));
		wait_sleep(PIN_RETRY, WAIT_LEASE);
	}
}

/* The lock of the one grant, for those who write its row; the wait is short unless a transaction that renewed stays open. */
void
lease_lock_grant(const LeaseKind *kind, const NameArg *name, int64 token)
{
	LOCKTAG		tag;

	lease_grant_tag(kind, &tag, name, token);
	if (!keylock_wait(&tag, ExclusiveLock, (int64) guc_max_function_wait * MILLISECONDS))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("%s \"%s\" is being renewed or released by another transaction", kind->noun, name_cstring(*name)),
				 errhint("Renew in autocommit mode: the row is locked until the transaction that renews ends.")));
}

void
lease_let_go(const LeaseKind *kind, const NameArg *name, int64 token, LOCKMODE pin_mode)
{
	LOCKTAG		tag;

	lease_grant_tag(kind, &tag, name, token);
	keylock_release(&tag, ExclusiveLock);
	lease_name_tag(kind, &tag, name);
	keylock_release(&tag, pin_mode);
}

HeapTuple
lease_hold(const LeaseKind *kind, Relation rel, const NameArg *name, int64 token, Lease *lease, ClockReading *now, const char **why)
{
	HeapTuple	row;
	LOCKMODE	mode;

	*why = pin(kind, rel, name, token, lease);
	if (*why != NULL)
		return NULL;
	mode = lease_pin_mode(lease);
	lease_lock_grant(kind, name, token);
	row = lease_read_locked(rel, name, lease->slot, lease, now);
	*why = why_not_held(lease, token);
	if (*why == NULL)
		return row;
	lease_let_go(kind, name, token, mode);
	return NULL;
}

HeapTuple
lease_hold_or_raise(const LeaseKind *kind, Relation rel, const NameArg *name, int64 token, Lease *lease, ClockReading *now)
{
	const char *why;
	HeapTuple	row = lease_hold(kind, rel, name, token, lease, now, &why);

	if (row == NULL)
		lease_raise_not_held(kind, name, why);
	lease_check_role(kind, name, lease->role);
	return row;
}

/* ---- renew ---- */

static void
prolong(const LeaseKind *kind, Relation rel, const NameArg *name, HeapTuple row, int64 ttl_us, Lease *lease, const ClockReading *now)
{
	LeaseChange change = {0};
	int64		left_us = lease->left_us;

	lease->ttl_us = ttl_us > 0 ? ttl_us : lease->ttl_us;
	lease->deadline = deadline_after(now, lease->ttl_us);
	lease->left_us = lease->ttl_us;
	lease->expires_at = lease->deadline.wall;
	lease_change_set(&change, ATTR_TTL_US, Int64GetDatum(lease->ttl_us));
	lease_change_deadline(&change, lease, now, &lease->deadline);
	row_update(rel, row, change.values, change.nulls, change.replace);
	xact_require_durable(true);
	/* who waits for its end sleeps until the end that he has seen */
	if (lease->left_us < left_us)
		lease_call_waiters(kind, name);
	stats_add(kind->domain, "", "renewed", 1);
}

void
lease_renew(const LeaseKind *kind, const NameArg *name, int64 token, int64 ttl_us, Lease *lease)
{
	Relation	rel = row_open_write(kind->table, psprintf("%s_renew()", kind->domain));
	ClockReading now;
	HeapTuple	row = lease_hold_or_raise(kind, rel, name, token, lease, &now);

	if (lease->broken)
		lease_raise_not_held(kind, name, "It is being broken by an operator: it cannot be renewed.");
	prolong(kind, rel, name, row, ttl_us, lease, &now);
	row_close(rel);
}

LeaseReason
lease_try_renew(const LeaseKind *kind, const NameArg *name, int64 token, int64 ttl_us, Lease *lease)
{
	Relation	rel = row_open_write(kind->table, psprintf("%s_renew()", kind->domain));
	LeaseReason reason = LEASE_LOST;
	ClockReading now;
	const char *why;
	LOCKTAG		tag;

	lease_grant_tag(kind, &tag, name, token);
	if (!keylock_try(&tag, ExclusiveLock))
	{
		(void) lease_find(rel, name, token, lease);
		if (why_not_held(lease, token) == NULL)
			reason = LEASE_HELD;
	}
	else
	{
		HeapTuple	row = lease_hold(kind, rel, name, token, lease, &now, &why);

		if (row != NULL && !lease->broken && has_privs_of_role(GetUserId(), lease->role))
		{
			prolong(kind, rel, name, row, ttl_us, lease, &now);
			reason = LEASE_OK;
		}
	}
	row_close(rel);
	return reason;
}

/* ---- release ---- */

bool
lease_release(const LeaseKind *kind, const NameArg *name, int64 token)
{
	Relation	rel = row_open_write(kind->table, psprintf("%s_release()", kind->domain));
	bool		relaxed = xact_relaxed_begin();
	LeaseChange change = {0};
	ClockReading now;
	const char *why;
	Lease		lease;
	HeapTuple	row = lease_hold(kind, rel, name, token, &lease, &now, &why);

	if (row == NULL)
	{
		row_close_unwritten(rel);
		return false;
	}
	lease_check_role(kind, name, lease.role);
	lease_change_set(&change, ATTR_RELEASED, BoolGetDatum(true));
	row_update(rel, row, change.values, change.nulls, change.replace);
	row_close(rel);
	if (lease.has_session)
		lease_session_remove(&lease.session_id, name, token);
	/* lost in a crash it is held for the rest of its ttl, and no grant comes before it on disk */
	if (relaxed)
		xact_relaxed_end();
	lease_call_waiters(kind, name);
	stats_add(kind->domain, "", "released", 1);
	return true;
}

void
lease_set_data(const LeaseKind *kind, const NameArg *name, int64 token, Datum data)
{
	Relation	rel = row_open_write(kind->table, kind->set_data_call);
	LeaseChange change = {0};
	ClockReading now;
	Lease		lease;
	HeapTuple	row = lease_hold_or_raise(kind, rel, name, token, &lease, &now);

	if (data == (Datum) 0)
		lease_change_null(&change, ATTR_DATA);
	else
		lease_change_set(&change, ATTR_DATA, data);
	row_update(rel, row, change.values, change.nulls, change.replace);
	row_close(rel);
	xact_require_durable(true);
}

/* ---- assert ---- */

/* The caller's snapshot must see the grant: else it may read what the holder before it has changed since. */
static void
check_snapshot(const LeaseKind *kind, const NameArg *name, int64 grant_xid)
{
	FullTransactionId granted = FullTransactionIdFromU64((uint64) grant_xid);
	uint64		age = U64FromFullTransactionId(ReadNextFullTransactionId()) - (uint64) grant_xid;
	bool		own = TransactionIdIsCurrentTransactionId(XidFromFullTransactionId(granted)) &&
		FullTransactionIdEquals(granted, GetTopFullTransactionIdIfAny());

	if (own && IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s \"%s\" was acquired by this transaction, after its snapshot", kind->noun, name_cstring(*name)),
				 errhint("In REPEATABLE READ and SERIALIZABLE acquire it in a transaction of its own, before this one.")));
	if (!own && age < (UINT64CONST(1) << 31) &&
		XidInMVCCSnapshot(XidFromFullTransactionId(granted), GetActiveSnapshot()))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("snapshot is older than the grant of %s \"%s\"", kind->noun, name_cstring(*name)),
				 errhint("Begin a new transaction after the %s was acquired.", kind->noun)));
}

void
lease_assert(const LeaseKind *kind, const NameArg *name, int64 token, int64 min_remaining_us)
{
	Relation	rel;
	Lease		lease;
	const char *why;

	PreventCommandDuringRecovery(psprintf("%s_assert()", kind->domain));
	/* a pin of a parallel worker would end with the worker */
	PreventCommandIfParallelMode(psprintf("%s_assert()", kind->domain));
	rel = row_open_read(kind->table);
	why = pin(kind, rel, name, token, &lease);
	/* the lock may have come after the end of the ttl, and then after a takeover */
	if (why == NULL)
	{
		(void) lease_read_latest(rel, name, lease.slot, &lease);
		why = why_not_held(&lease, token);
	}
	row_close(rel);
	if (why == NULL && lease.left_us < min_remaining_us)
		why = psprintf("It has %.3f s left, %.3f s were asked for.", lease.left_us / 1e6, min_remaining_us / 1e6);
	if (why != NULL)
		lease_raise_not_held(kind, name, why);
	check_snapshot(kind, name, lease.grant_xid);
	lease_pin_note(kind, name);
}
