/*
 * lease.c: grants, renewals, releases and pins of leases.
 *
 * One row per name in lease_grant (slot 0: the exclusive grant). Two key locks per lease:
 *
 *   NAME   RowExclusive  pin: lease_assert; also renew and release, to keep a takeover out
 *          Exclusive     acquire, only for a lease that looks free
 *   GRANT  Exclusive     renew, release: they write the row of one grant
 *
 * Nobody ever waits in the queue of NAME: a queued Exclusive would make every
 * later pin and heartbeat of the live holder queue behind it. A waiting acquire sleeps
 * while the lease is live, and waits for the pinning transactions themselves
 * when only pins are in the way. A holder whose pin is refused looks whether his
 * lease is live: if so, an acquire that came too late lets go of NAME in a moment.
 *
 * Order: table, NAME, GRANT. Rollback gives everything back, row and locks. A
 * crash takes back nothing that was committed, whatever synchronous_commit
 * says (xact_require_durable). On a standby everything but reading is 25006.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "common/pg_prng.h"
#include "compat.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "core/guc.h"
#include "core/keylock.h"
#include "core/stats.h"
#include "core/wait.h"
#include "core/xact.h"
#include "errors.h"
#include "lock/lease.h"
#include "store/row.h"
#include "store/token.h"

/* A waiting acquire looks again after this long, doubling, with jitter. */
#define POLL_FIRST (10 * MILLISECONDS)
#define POLL_LAST (100 * MILLISECONDS)

/* A holder tries his pin again after this long while an acquire that came too late has the name. */
#define PIN_RETRY (1 * MILLISECONDS)

/* Two clocks that are read one after the other, and slewed, tell the same time. */
#define CLOCK_AGREES (100 * MILLISECONDS)

/* A dead row is kept this long: the next acquire of the name updates it in place. */
#define SWEEP_AFTER (60 * SECONDS)

enum
{
	ATTR_NAME = 1,
	ATTR_SLOT,
	ATTR_OWNER,
	ATTR_ROLE,
	ATTR_MODE,
	ATTR_TOKEN,
	ATTR_TTL_US,
	ATTR_ACQUIRED_AT,
	ATTR_EXPIRES_AT,
	ATTR_EXPIRES_BOOT,
	ATTR_CLOCK_ID,
	ATTR_GRANT_XID,
	ATTR_RELEASED,
	ATTR_REQUEST_ID,
	ATTR_DATA,
	ATTR_MIN_HOLD_UNTIL,
	ATTR_SESSION_ID,
	NATTS = ATTR_SESSION_ID
};

#define EXCLUSIVE_SLOT 0

void
lease_from_row(Relation rel, HeapTuple row, const ClockReading *now, Lease *lease)
{
	Datum		values[NATTS];
	bool		nulls[NATTS];

	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	lease->name = values[ATTR_NAME - 1];
	lease->owner = values[ATTR_OWNER - 1];
	lease->role = DatumGetObjectId(values[ATTR_ROLE - 1]);
	lease->token = DatumGetInt64(values[ATTR_TOKEN - 1]);
	lease->ttl_us = DatumGetInt64(values[ATTR_TTL_US - 1]);
	lease->acquired_at = DatumGetTimestampTz(values[ATTR_ACQUIRED_AT - 1]);
	lease->deadline.wall = DatumGetTimestampTz(values[ATTR_EXPIRES_AT - 1]);
	lease->deadline.boot = DatumGetInt64(values[ATTR_EXPIRES_BOOT - 1]);
	lease->deadline.id = DatumGetInt64(values[ATTR_CLOCK_ID - 1]);
	lease->grant_xid = DatumGetInt64(values[ATTR_GRANT_XID - 1]);
	lease->has_request = !nulls[ATTR_REQUEST_ID - 1];
	if (lease->has_request)
		lease->request_id = *DatumGetUUIDP(values[ATTR_REQUEST_ID - 1]);

	lease->left_us = deadline_left(&lease->deadline, now);
	lease->live = !DatumGetBool(values[ATTR_RELEASED - 1]) && lease->left_us > 0 &&
		lease->token >= token_lease_floor();
	if (!lease->live)
		lease->left_us = 0;
	lease->expires_at = lease->deadline.wall;
	/* somebody has set the wall clock since */
	if (lease->live && llabs(now->wall + lease->left_us - lease->deadline.wall) > CLOCK_AGREES)
		lease->expires_at = now->wall + lease->left_us;
}

static void
row_key_of(const NameArg *name, Datum *key)
{
	key[0] = name->datum;
	key[1] = Int32GetDatum(EXCLUSIVE_SLOT);
}

static void
name_tag(LOCKTAG *tag, const NameArg *name)
{
	keylock_tag(tag, KEYLOCK_LEASE_NAME, name->data, name->len);
}

static void
grant_tag(LOCKTAG *tag, const NameArg *name, int64 token)
{
	keylock_tag_num(tag, KEYLOCK_LEASE_GRANT, name->data, name->len, token);
}

/* Reads without a lock; false: no row. The newest committed version, or our own. */
static bool
read_latest(Relation rel, const NameArg *name, Lease *lease)
{
	Datum		key[2];
	HeapTuple	row;
	ClockReading now;

	row_key_of(name, key);
	row = row_read_latest(rel, key);
	if (row == NULL)
		return false;
	now = clock_read();
	lease_from_row(rel, row, &now, lease);
	return true;
}

bool
lease_read(const NameArg *name, Lease *lease)
{
	Relation	rel = row_open_read(TABLE_LEASE);
	bool		found = read_latest(rel, name, lease);

	row_close(rel);
	return found;
}

/* ---- acquire ---- */

static void
deadline_values(const Deadline *deadline, Datum *values)
{
	values[ATTR_EXPIRES_AT - 1] = TimestampTzGetDatum(deadline->wall);
	values[ATTR_EXPIRES_BOOT - 1] = Int64GetDatum(deadline->boot);
	values[ATTR_CLOCK_ID - 1] = Int64GetDatum(deadline->id);
}

/* Writes the grant over the dead row, or as a new one. Holds NAME in Exclusive. */
static void
write_grant(Relation rel, HeapTuple old, const LeaseRequest *request, const ClockReading *now, Lease *lease)
{
	Datum		values[NATTS] = {0};
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS];

	lease->name = request->name.datum;
	lease->owner = request->owner.datum;
	lease->role = GetUserId();
	lease->token = token_issue();
	lease->ttl_us = request->ttl_us;
	lease->acquired_at = now->wall;
	lease->deadline = deadline_after(now, request->ttl_us);
	lease->grant_xid = (int64) U64FromFullTransactionId(GetTopFullTransactionId());
	lease->live = true;
	lease->left_us = request->ttl_us;
	lease->expires_at = lease->deadline.wall;

	values[ATTR_NAME - 1] = request->name.datum;
	values[ATTR_SLOT - 1] = Int32GetDatum(EXCLUSIVE_SLOT);
	values[ATTR_OWNER - 1] = request->owner.datum;
	values[ATTR_ROLE - 1] = ObjectIdGetDatum(lease->role);
	values[ATTR_MODE - 1] = CStringGetTextDatum("exclusive");
	values[ATTR_TOKEN - 1] = Int64GetDatum(lease->token);
	values[ATTR_TTL_US - 1] = Int64GetDatum(request->ttl_us);
	values[ATTR_ACQUIRED_AT - 1] = TimestampTzGetDatum(now->wall);
	deadline_values(&lease->deadline, values);
	values[ATTR_GRANT_XID - 1] = Int64GetDatum(lease->grant_xid);
	values[ATTR_RELEASED - 1] = BoolGetDatum(false);
	nulls[ATTR_REQUEST_ID - 1] = request->request_id == NULL;
	if (request->request_id != NULL)
		values[ATTR_REQUEST_ID - 1] = UUIDPGetDatum(request->request_id);
	nulls[ATTR_DATA - 1] = true;
	nulls[ATTR_MIN_HOLD_UNTIL - 1] = true;
	nulls[ATTR_SESSION_ID - 1] = true;

	memset(replace, true, sizeof(replace));
	if (old == NULL)
		row_insert(rel, values, nulls);
	else
		row_update(rel, old, values, nulls, replace);
	xact_require_durable(true);
}

/* Takes NAME in Exclusive, or says who is in the way: pins, or a grant that is not committed yet. */
static bool
lock_name(const LOCKTAG *tag, LeaseReason *why)
{
	if (keylock_try(tag, ExclusiveLock))
		return true;
	*why = LEASE_HELD;
	if (!keylock_try(tag, RowExclusiveLock))
		return false;
	keylock_release(tag, RowExclusiveLock);
	*why = LEASE_PINNED;
	/* whoever had it alone has let go, or there are pins */
	return keylock_try(tag, ExclusiveLock);
}

/* The lease looks free: takes NAME, looks again, grants. */
static LeaseReason
lock_and_grant(Relation rel, const LOCKTAG *tag, const LeaseRequest *request, Lease *lease)
{
	Datum		key[2];
	HeapTuple	old;
	ClockReading now;
	LeaseReason why;

	if (!lock_name(tag, &why))
	{
		/* the winner may have committed since we looked */
		if (read_latest(rel, &request->name, lease) && lease->live)
			return LEASE_HELD;
		if (why == LEASE_HELD)
			lease->owner = (Datum) 0;
		return why;
	}

	row_key_of(&request->name, key);
	old = row_read_locked(rel, key);
	now = clock_read();
	if (old != NULL)
	{
		lease_from_row(rel, old, &now, lease);
		if (lease->live)
		{
			keylock_release(tag, ExclusiveLock);
			return LEASE_HELD;
		}
	}
	write_grant(rel, old, request, &now, lease);
	return LEASE_OK;
}

/* Is the live lease what this very request has got before, and its answer was lost? */
static bool
is_retry(Relation rel, const LeaseRequest *request, const Lease *lease)
{
	Datum		key[2];
	HeapTuple	row;

	if (request->request_id == NULL || lease->owner == (Datum) 0 || !lease->live || !lease->has_request ||
		memcmp(request->request_id, &lease->request_id, sizeof(pg_uuid_t)) != 0 ||
		!has_privs_of_role(GetUserId(), lease->role))
		return false;
	/* it is given out as an answer, so a crash must not take it back */
	row_key_of(&request->name, key);
	row = row_read_latest(rel, key);
	if (row != NULL)
		row_make_durable(row);
	return true;
}

static LeaseReason
acquire_once(const LeaseRequest *request, Lease *lease, bool *again)
{
	Relation	rel = row_open_write(TABLE_LEASE, "lease_acquire()");
	LOCKTAG		tag;
	LeaseReason reason;

	if (read_latest(rel, &request->name, lease) && lease->live)
		reason = LEASE_HELD;
	else
	{
		name_tag(&tag, &request->name);
		reason = lock_and_grant(rel, &tag, request, lease);
	}
	*again = reason == LEASE_HELD && is_retry(rel, request, lease);
	if (reason == LEASE_OK)
		row_close(rel);
	else
		row_close_unwritten(rel);
	return *again ? LEASE_OK : reason;
}

/* Sleeps until the lease may be free; pins are waited for by their transactions. */
static void
wait_a_little(const NameArg *name, LeaseReason reason, const Lease *lease, int64 left_us, int64 *poll_us)
{
	LOCKTAG		tag;
	int64		sleep_us = *poll_us / 2 + (int64) (pg_prng_double(&pg_global_prng_state) * (*poll_us / 2.0));

	if (reason == LEASE_PINNED)
	{
		name_tag(&tag, name);
		(void) keylock_wait_for_holders(&tag, ExclusiveLock, left_us);
		return;
	}
	if (lease->owner != (Datum) 0 && lease->live)
		sleep_us = Min(sleep_us, lease->left_us);
	wait_sleep(Min(sleep_us, left_us), WAIT_LEASE);
	*poll_us = Min(*poll_us * 2, POLL_LAST);
}

LeaseReason
lease_acquire(const LeaseRequest *request, int64 wait_us, Lease *lease, bool *again)
{
	TimestampTz until = GetCurrentTimestamp() + wait_us;
	int64		poll_us = POLL_FIRST;
	LeaseReason reason;

	for (;;)
	{
		int64		left_us;

		memset(lease, 0, sizeof(*lease));
		reason = acquire_once(request, lease, again);
		if (reason == LEASE_OK || wait_us == 0)
			break;
		left_us = until - GetCurrentTimestamp();
		if (left_us <= 0)
		{
			reason = LEASE_TIMEOUT;
			break;
		}
		wait_a_little(&request->name, reason, lease, left_us, &poll_us);
	}
	if (!*again)
		stats_add("lease", "", reason == LEASE_OK ? "acquired" : "refused", 1);
	return reason;
}

/* ---- what a holder does ---- */

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

	name_tag(&tag, name);
	while (!keylock_try(&tag, RowExclusiveLock))
	{
		Lease		lease;
		const char *why = read_latest(rel, name, &lease) ? why_not_held(&lease, token) : no_such_lease;

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

	row_key_of(name, key);
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
	name_tag(&tag, name);
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
	deadline_values(&lease->deadline, values);
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
		why = read_latest(rel, name, &lease) ? why_not_held(&lease, token) : no_such_lease;
	row_close(rel);
	if (why == NULL && lease.left_us < min_remaining_us)
		why = psprintf("It has %.3f s left, %.3f s were asked for.", lease.left_us / 1e6, min_remaining_us / 1e6);
	if (why != NULL)
		raise_not_held(name, why);
	check_snapshot(name, lease.grant_xid);
}

/* ---- housekeeping ---- */

static bool
lease_dead(Relation rel, HeapTuple row, void *arg)
{
	ClockReading now = clock_read();
	Lease		lease;

	lease_from_row(rel, row, &now, &lease);
	/* by both measures, so that a stepped clock removes nothing early */
	return !lease.live && lease.acquired_at + lease.ttl_us + SWEEP_AFTER < now.wall &&
		lease.deadline.wall + SWEEP_AFTER < now.wall;
}

static void
lease_row_tag(Relation rel, HeapTuple row, LOCKTAG *tag, void *arg)
{
	NameArg		name = arg_name_datum(row_get(rel, row, ATTR_NAME, NULL), "name", NAME_LONG);

	name_tag(tag, &name);
}

void
lease_sweep(JobSlice *slice)
{
	static const RowSweep sweep = {.dead = lease_dead, .tag = lease_row_tag};
	Relation	rel = row_open_write(TABLE_LEASE, "lease_sweep()");

	sweep_slice(rel, &sweep, slice);
	row_close(rel);
}
