/*
 * lease.c: grants of leases, and how the locks of a lease work.
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
 * when only pins are in the way.
 *
 * Order: table, NAME, GRANT. Rollback gives everything back, row and locks. A
 * crash takes back nothing that was committed, whatever synchronous_commit
 * says (xact_require_durable). On a standby everything but reading is 25006.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "compat.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "core/stats.h"
#include "core/wait.h"
#include "core/xact.h"
#include "lock/lease_row.h"
#include "store/token.h"

/* A waiting acquire looks again after this long, doubling, with jitter. */
#define POLL_FIRST (10 * MILLISECONDS)
#define POLL_LAST (100 * MILLISECONDS)

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
	lease_deadline_values(&lease->deadline, values);
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
		if (lease_read_latest(rel, &request->name, lease) && lease->live)
			return LEASE_HELD;
		if (why == LEASE_HELD)
			lease->owner = (Datum) 0;
		return why;
	}

	lease_row_key(&request->name, key);
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
	lease_row_key(&request->name, key);
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

	if (lease_read_latest(rel, &request->name, lease) && lease->live)
		reason = LEASE_HELD;
	else
	{
		lease_name_tag(&tag, &request->name);
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
		lease_name_tag(&tag, name);
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
