/*
 * lease_holder.c: what the holder of a lease does: renew, release, assert.
 *
 * Locks as in lease.c: NAME in RowExclusive, then GRANT for those who write. A
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
#include "core/stats.h"
#include "core/wait.h"
#include "core/xact.h"
#include "errors.h"
#include "lock/lease_row.h"
#include "store/token.h"

/* A holder tries his pin again after this long while an acquire that came too late has the name. */
#define PIN_RETRY (1 * MILLISECONDS)

static void
grant_tag(LOCKTAG *tag, const NameArg *name, int64 token)
{
	keylock_tag_num(tag, KEYLOCK_LEASE_GRANT, name->data, name->len, token);
}

static const char no_such_lease[] = "It was never granted, or has been dead for long.";

static void
raise_not_held(const NameArg *name, const char *why)
{
	stats_add("lease", "", "lost", 1);
	ereport(ERROR,
			(errcode(ERRCODE_SD_LEASE_NOT_HELD),
			 errmsg("lease \"%s\" is not held with this token", name_cstring(*name)),
			 errdetail("%s", why),
			 errhint("Stop the work that it protects, or acquire it again.")));
}

/* Is this row the live grant of token? NULL, or the reason why not. */
static const char *
why_not_held(const Lease *lease, int64 token)
{
	if (lease->token != token)
		return lease->token > token ? "It has been granted again since." : "This token was never granted for it.";
	if (!lease->live)
		return lease->left_us == 0 && lease->token >= token_lease_floor() ?
			"It has expired or was released." : "It was granted before this database was restored.";
	return NULL;
}

static void
check_role(const NameArg *name, Oid role)
{
	if (!has_privs_of_role(GetUserId(), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for lease \"%s\"", name_cstring(*name)),
				 errdetail("It is held by role \"%s\".", GetUserNameFromId(role, true)),
				 errhint("Give short-lived logins a common role: ALTER ROLE login SET role = 'service'.")));
}

/*
 * Keeps a takeover out to the end of the (sub)transaction. NULL, or the reason why token is not the live grant.
 *
 * Who has NAME alone while the grant is live looked too late and lets go as
 * soon as he has looked again (or has taken another name with the same hash): that is waited for.
 */
static const char *
pin(Relation rel, const NameArg *name, int64 token)
{
	TimestampTz until = GetCurrentTimestamp() + (int64) guc_max_function_wait * MILLISECONDS;
	LOCKTAG		tag;

	lease_name_tag(&tag, name);
	while (!keylock_try(&tag, RowExclusiveLock))
	{
		Lease		lease;
		const char *why = lease_read_latest(rel, name, &lease) ? why_not_held(&lease, token) : no_such_lease;

		if (why != NULL)
			return why;
		if (GetCurrentTimestamp() >= until)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("lease \"%s\" is locked by another transaction", name_cstring(*name)),
					 errhint("Retry.")));
		wait_sleep(PIN_RETRY, WAIT_LEASE);
	}
	return NULL;
}

/*
 * Locks the grant for writing and reads it. Returns the row, or NULL with
 * *why when token is not the live grant.
 */
static HeapTuple
lock_grant(Relation rel, const NameArg *name, int64 token, Lease *lease, ClockReading *now, const char **why)
{
	LOCKTAG		tag;
	Datum		key[2];
	HeapTuple	row;

	*why = pin(rel, name, token);
	if (*why != NULL)
		return NULL;
	grant_tag(&tag, name, token);
	if (!keylock_wait(&tag, ExclusiveLock, (int64) guc_max_function_wait * MILLISECONDS))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("lease \"%s\" is being renewed or released by another transaction", name_cstring(*name)),
				 errhint("Renew in autocommit mode: the row is locked until the transaction that renews ends.")));

	lease_row_key(name, key);
	row = row_read_locked(rel, key);
	*now = clock_read();
	if (row == NULL)
	{
		*why = no_such_lease;
		return NULL;
	}
	lease_from_row(rel, row, now, lease);
	*why = why_not_held(lease, token);
	return *why == NULL ? row : NULL;
}

static void
unlock_grant(const NameArg *name, int64 token)
{
	LOCKTAG		tag;

	grant_tag(&tag, name, token);
	if (LockHeldByMe(&tag, ExclusiveLock, false))
		keylock_release(&tag, ExclusiveLock);
	lease_name_tag(&tag, name);
	if (LockHeldByMe(&tag, RowExclusiveLock, false))
		keylock_release(&tag, RowExclusiveLock);
}

void
lease_renew(const NameArg *name, int64 token, int64 ttl_us, Lease *lease)
{
	Relation	rel = row_open_write(TABLE_LEASE, "lease_renew()");
	Datum		values[NATTS] = {0};
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS] = {false};
	ClockReading now;
	const char *why;
	HeapTuple	row = lock_grant(rel, name, token, lease, &now, &why);

	if (row == NULL)
		raise_not_held(name, why);
	check_role(name, lease->role);

	lease->ttl_us = ttl_us > 0 ? ttl_us : lease->ttl_us;
	lease->deadline = deadline_after(&now, lease->ttl_us);
	lease->left_us = lease->ttl_us;
	lease->expires_at = lease->deadline.wall;
	values[ATTR_TTL_US - 1] = Int64GetDatum(lease->ttl_us);
	lease_deadline_values(&lease->deadline, values);
	replace[ATTR_TTL_US - 1] = true;
	replace[ATTR_EXPIRES_AT - 1] = true;
	replace[ATTR_EXPIRES_BOOT - 1] = true;
	replace[ATTR_CLOCK_ID - 1] = true;
	row_update(rel, row, values, nulls, replace);
	row_close(rel);
	xact_require_durable(true);
	stats_add("lease", "", "renewed", 1);
}

bool
lease_release(const NameArg *name, int64 token)
{
	Relation	rel = row_open_write(TABLE_LEASE, "lease_release()");
	Datum		values[NATTS] = {0};
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS] = {false};
	ClockReading now;
	const char *why;
	Lease		lease;
	HeapTuple	row = lock_grant(rel, name, token, &lease, &now, &why);

	if (row == NULL)
	{
		unlock_grant(name, token);
		row_close_unwritten(rel);
		return false;
	}
	check_role(name, lease.role);
	values[ATTR_RELEASED - 1] = BoolGetDatum(true);
	replace[ATTR_RELEASED - 1] = true;
	row_update(rel, row, values, nulls, replace);
	row_close(rel);
	stats_add("lease", "", "released", 1);
	return true;
}

/* ---- pins ---- */

/* The caller's snapshot must see the grant: else it may read what the holder before it has changed since. */
static void
check_snapshot(const NameArg *name, int64 grant_xid)
{
	FullTransactionId granted = FullTransactionIdFromU64((uint64) grant_xid);
	uint64		age = U64FromFullTransactionId(ReadNextFullTransactionId()) - (uint64) grant_xid;
	bool		own = TransactionIdIsCurrentTransactionId(XidFromFullTransactionId(granted)) &&
		FullTransactionIdEquals(granted, GetTopFullTransactionIdIfAny());

	if (own && IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("lease \"%s\" was acquired by this transaction, after its snapshot", name_cstring(*name)),
				 errhint("In REPEATABLE READ and SERIALIZABLE acquire it in a transaction of its own, before this one.")));
	if (!own && age < (UINT64CONST(1) << 31) &&
		XidInMVCCSnapshot(XidFromFullTransactionId(granted), GetActiveSnapshot()))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("snapshot is older than the grant of lease \"%s\"", name_cstring(*name)),
				 errhint("Begin a new transaction after the lease was acquired.")));
}

void
lease_assert(const NameArg *name, int64 token, int64 min_remaining_us)
{
	Relation	rel;
	Lease		lease = {0};
	const char *why;

	PreventCommandDuringRecovery("lease_assert()");
	/* a pin of a parallel worker would end with the worker */
	PreventCommandIfParallelMode("lease_assert()");
	rel = row_open_read(TABLE_LEASE);
	why = pin(rel, name, token);
	if (why == NULL)
		why = lease_read_latest(rel, name, &lease) ? why_not_held(&lease, token) : no_such_lease;
	row_close(rel);
	if (why == NULL && lease.left_us < min_remaining_us)
		why = psprintf("It has %.3f s left, %.3f s were asked for.", lease.left_us / 1e6, min_remaining_us / 1e6);
	if (why != NULL)
		raise_not_held(name, why);
	check_snapshot(name, lease.grant_xid);
}
