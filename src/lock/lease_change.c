/*
 * lease_change.c: a grant that is handed on, and one that an operator breaks.
 *
 * transfer writes a new grant over the live one, under NAME as an acquire, so no transaction that asserted
 * the old one is open; there is no moment in which the lease is free. break writes under the locks of a holder, so an open
 * transaction that asserted the lease does not keep it from working; that transaction is waited for by the
 * next acquire, as after an expiry.
 *
 * Both leave a line in the history. Rollback undoes them.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "utils/acl.h"

#include "core/guc.h"
#include "core/stats.h"
#include "core/xact.h"
#include "lock/lease_history.h"
#include "lock/lease_holder.h"
#include "store/token.h"

/* ---- transfer ---- */

static void
write_transfer(Relation rel, HeapTuple row, const Lease *old, const NameArg *new_owner, int64 ttl_us,
			   const ClockReading *now, Lease *lease)
{
	LeaseChange change = {0};

	*lease = *old;
	lease->owner = new_owner->datum;
	lease->role = GetUserId();
	lease->token = token_issue();
	lease->ttl_us = ttl_us > 0 ? ttl_us : old->ttl_us;
	lease->acquired_at = now->wall;
	lease->deadline = deadline_after(now, lease->ttl_us);
	lease->expires_at = lease->deadline.wall;
	lease->left_us = lease->ttl_us;
	lease->grant_xid = (int64) U64FromFullTransactionId(GetTopFullTransactionId());
	lease_change_set(&change, ATTR_OWNER, lease->owner);
	lease_change_set(&change, ATTR_ROLE, ObjectIdGetDatum(lease->role));
	lease_change_set(&change, ATTR_TOKEN, Int64GetDatum(lease->token));
	lease_change_set(&change, ATTR_TTL_US, Int64GetDatum(lease->ttl_us));
	lease_change_set(&change, ATTR_ACQUIRED_AT, TimestampTzGetDatum(lease->acquired_at));
	lease_change_set(&change, ATTR_GRANT_XID, Int64GetDatum(lease->grant_xid));
	lease_change_deadline(&change, old, now, &lease->deadline);
	/* they were the old holder's */
	lease_change_null(&change, ATTR_REQUEST_ID);
	lease_change_null(&change, ATTR_SESSION_ID);
	row_update(rel, row, change.values, change.nulls, change.replace);
	xact_require_durable(true);
}

bool
lease_transfer(const LeaseKind *kind, const NameArg *name, int64 token, const NameArg *new_owner, int64 ttl_us, Lease *lease)
{
	Relation	rel = row_open_write(kind->table, psprintf("%s_transfer()", kind->domain));
	ClockReading now;
	Lease		old;
	HeapTuple	row = lease_hold_or_raise(kind, rel, name, token, &old, &now);
	LOCKTAG		tag;

	if (old.broken)
		lease_raise_not_held(kind, name, "It is being broken by an operator: it cannot be handed on.");
	lease_name_tag(kind, &tag, name);
	/* shared grants do not exclude each other, so the transactions under the old one may go on */
	if (!old.shared && !keylock_try(&tag, ExclusiveLock))
	{
		lease_let_go(kind, name, token, lease_pin_mode(&old));
		row_close_unwritten(rel);
		*lease = old;
		return false;
	}
	write_transfer(rel, row, &old, new_owner, ttl_us, &now, lease);
	row_close(rel);
	/* who waits for its end sleeps until the end that he has seen */
	if (lease->left_us < old.left_us)
		lease_call_waiters(kind, name);
	lease_history_add(kind, name, "transferred", lease, NULL);
	stats_add(kind->domain, "", "transferred", 1);
	return true;
}

/* ---- break ---- */

/* The operator's word stands above the least time to hold. */
static void
write_break(const LeaseKind *kind, Relation rel, const NameArg *name, HeapTuple row, const Lease *lease, LeaseChange *change, const char *reason)
{
	if (lease->has_hold)
	{
		lease_change_null(change, ATTR_MIN_HOLD_UNTIL);
		lease_change_null(change, ATTR_MIN_HOLD_BOOT);
	}
	row_update(rel, row, change->values, change->nulls, change->replace);
	lease_history_add(kind, name, "broken", lease, reason);
	stats_add(kind->domain, "", "broken", 1);
}

/* Ends one live grant after_us from now. Returns when that is, 0: it is not live any more. */
static int64
break_grant(const LeaseKind *kind, Relation rel, const NameArg *name, int64 token, int64 after_us, const char *reason)
{
	LeaseChange change = {0};
	ClockReading now;
	const char *why;
	Lease		lease;
	Deadline	deadline;
	HeapTuple	row = lease_hold(kind, rel, name, token, &lease, &now, &why);

	if (row == NULL)
		return 0;
	after_us = Min(after_us, lease.left_us);
	deadline = deadline_after(&now, after_us);
	lease_change_deadline(&change, &lease, &now, &deadline);
	lease_change_set(&change, ATTR_BROKEN, BoolGetDatum(true));
	write_break(kind, rel, name, row, &lease, &change, reason);
	return after_us;
}

/* A grant that was released and kept for its least time to hold: true: it is not any more. Who has NAME alone is taking it. */
static bool
end_hold(const LeaseKind *kind, Relation rel, const NameArg *name, const Lease *kept, const char *reason)
{
	LeaseChange change = {0};
	LOCKMODE	mode = lease_pin_mode(kept);
	ClockReading now;
	Lease		lease;
	HeapTuple	row;
	LOCKTAG		tag;

	lease_name_tag(kind, &tag, name);
	if (!keylock_try(&tag, mode))
		return false;
	lease_lock_grant(kind, name, kept->token);
	row = lease_read_locked(rel, name, kept->slot, &lease, &now);
	if (row == NULL || lease.token != kept->token || lease.live || lease.hold_left_us == 0)
	{
		lease_let_go(kind, name, kept->token, mode);
		return false;
	}
	write_break(kind, rel, name, row, &lease, &change, reason);
	return true;
}

int64
lease_break(const LeaseKind *kind, const NameArg *name, int64 after_us, const char *reason)
{
	Relation	rel = row_open_write(kind->table, psprintf("%s_break()", kind->domain));
	int			n;
	Lease	   *leases = lease_read(kind, name, &n);
	int64		free_us = -1;

	for (int i = 0; i < n; i++)
	{
		if (leases[i].live)
		{
			int64		left_us = break_grant(kind, rel, name, leases[i].token, after_us, reason);

			free_us = Max(free_us, left_us);
		}
		else if (leases[i].hold_left_us > 0 && end_hold(kind, rel, name, &leases[i], reason))
			free_us = Max(free_us, 0);
	}
	row_close(rel);
	if (free_us >= 0)
	{
		xact_require_durable(false);
		lease_call_waiters(kind, name);
	}
	return free_us;
}
