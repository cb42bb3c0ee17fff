/*
 * lease.c: one attempt to get leases, and how the locks of a lease work.
 *
 * Key locks of a lease:
 *
 *   NAME    RowShare, RowExclusive   pin of a shared or an exclusive grant: lease_assert; also renew and release, to keep a takeover out
 *           Share, Exclusive         acquire, shared or exclusive, of a lease that looks free
 *   SLOT    Exclusive                shared acquire: the row it writes
 *   GRANT   Exclusive                renew, release: they write the row of one grant
 *   INTENT  Share                    an exclusive acquire waits (only where there is no queue, waitlist.h);
 *           RowExclusive             tried by shared ones, which then let it pass
 *
 * Nobody ever waits in the queue of NAME: a queued Exclusive would make every
 * later pin and heartbeat of the live holder queue behind it. A waiting acquire sleeps
 * while the lease is live, and waits for the pinning transactions themselves
 * when only pins are in the way (lease_wait.c).
 *
 * Order: table, NAME, SLOT, GRANT. Rollback gives everything back, row and locks. A
 * crash takes back nothing that was committed, whatever synchronous_commit
 * says (xact_require_durable); a release may be lost, then the grant ends by its ttl. On a standby everything but
 * reading is 25006.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "utils/acl.h"

#include "core/waitlist.h"
#include "core/xact.h"
#include "lock/lease_history.h"
#include "lock/lease_row.h"
#include "lock/lease_session.h"
#include "store/token.h"

/* Grants that this session got last: to tell a wait for oneself from a wait for somebody else. */
#define REMEMBERED 64

/* More shared grants of one name than this many transactions make at the same time: then one more is refused. */
#define SLOTS_TAKEN 1000

static int64 granted_here[REMEMBERED];
static int	next_granted = 0;

/* A name that is asked for: what is locked for it, and the row that its grant goes over. */
typedef struct Attempt
{
	const LeaseKind *kind;
	const LeaseRequest *request;
	Relation	rel;
	LOCKTAG		name_tag;
	LOCKTAG		slot_tag;
	LOCKTAG		dead_tag;		/* GRANT of the dead grant in the slot */
	bool		name_locked;
	bool		slot_locked;
	bool		dead_locked;
	bool		preferred;		/* the place is kept for who asks: he need not queue */
	int64		slot;
	HeapTuple	old;			/* NULL: a new row */
	Lease		old_lease;
	ClockReading now;
	LeaseAnswer *answer;
} Attempt;

static LOCKMODE
acquire_mode(const Attempt *attempt)
{
	return attempt->request->shared ? ShareLock : ExclusiveLock;
}

static void
undo(Attempt *attempt)
{
	if (attempt->dead_locked)
		keylock_release(&attempt->dead_tag, ExclusiveLock);
	if (attempt->slot_locked)
		keylock_release(&attempt->slot_tag, ExclusiveLock);
	if (attempt->name_locked)
		keylock_release(&attempt->name_tag, acquire_mode(attempt));
	attempt->dead_locked = attempt->slot_locked = attempt->name_locked = false;
}

static bool
refuse(Attempt *attempt, LeaseReason reason, int64 retry_us)
{
	attempt->answer->reason = reason;
	attempt->answer->retry_us = retry_us;
	return false;
}

/* ---- does a grant stand in the way? ---- */

/* Is it what this very request has got before, and its answer was lost? It is given out as an answer, so a crash must not take it back. */
static bool
is_retry(const Attempt *attempt, HeapTuple row, const Lease *lease)
{
	const LeaseRequest *request = attempt->request;

	if (request->request_id == NULL || !lease->live || !lease->has_request || lease->shared != request->shared ||
		memcmp(request->request_id, &lease->request_id, sizeof(pg_uuid_t)) != 0 ||
		!has_privs_of_role(GetUserId(), lease->role))
		return false;
	row_make_durable(row);
	return true;
}

/* The exclusive grant: true: it does not stand in the way. Else the answer says why, or that it is ours already (again). */
static bool
exclusive_grant_allows(Attempt *attempt, HeapTuple row, const Lease *lease)
{
	int64		reserved_us;

	if (row == NULL)
		return true;
	attempt->answer->lease = *lease;
	if (lease->live)
	{
		attempt->answer->again = is_retry(attempt, row, lease);
		return refuse(attempt, attempt->answer->again ? LEASE_OK : LEASE_HELD, lease->left_us);
	}
	if (lease->hold_left_us > 0)
		return refuse(attempt, LEASE_MIN_HOLD, lease->hold_left_us);
	reserved_us = attempt->kind->reserved_us == NULL ? 0 : attempt->kind->reserved_us(lease, attempt->request);
	attempt->preferred = reserved_us < 0;
	if (reserved_us > 0)
		return refuse(attempt, LEASE_HELD, reserved_us);
	return true;
}

/* Shared grants, asked by an exclusive request: none may be live. The answer tells about the one that lasts longest. */
static bool
shared_grants_allow(Attempt *attempt)
{
	RowScan    *scan = lease_scan_shared(attempt->rel, &attempt->request->name);
	int64		longest_us = 0;
	HeapTuple	row;

	while ((row = row_scan_next(scan)) != NULL)
	{
		ClockReading now = clock_read();
		Lease		lease;
		int64		left_us;

		lease_from_row(attempt->rel, row, &now, &lease);
		left_us = Max(lease.left_us, lease.hold_left_us);
		if (left_us <= longest_us)
			continue;
		longest_us = left_us;
		lease_from_row(attempt->rel, heap_copytuple(row), &now, &attempt->answer->lease);
		(void) refuse(attempt, lease.live ? LEASE_HELD : LEASE_MIN_HOLD, left_us);
	}
	row_scan_end(scan);
	return longest_us == 0;
}

/* A shared request that was granted before under the same request_id. */
static bool
find_shared_retry(Attempt *attempt)
{
	RowScan    *scan;
	HeapTuple	row;

	if (attempt->request->request_id == NULL)
		return false;
	scan = lease_scan_shared(attempt->rel, &attempt->request->name);
	while (!attempt->answer->again && (row = row_scan_next(scan)) != NULL)
	{
		ClockReading now = clock_read();
		Lease		lease;

		lease_from_row(attempt->rel, row, &now, &lease);
		if (!is_retry(attempt, row, &lease))
			continue;
		attempt->answer->again = true;
		lease_from_row(attempt->rel, heap_copytuple(row), &now, &attempt->answer->lease);
	}
	row_scan_end(scan);
	return attempt->answer->again;
}

/* ---- steps of an attempt ---- */

/* Where there is no queue, a waiting exclusive request is let pass by shared ones. */
static bool
writer_waits(const Attempt *attempt)
{
	LOCKTAG		tag;

	if (!attempt->request->shared || waitlist_available())
		return false;
	lease_intent_tag(attempt->kind, &tag, &attempt->request->name);
	if (!keylock_try(&tag, RowExclusiveLock))
		return true;
	keylock_release(&tag, RowExclusiveLock);
	return false;
}

/* Pins let this one pass, an acquire of a mode that conflicts with ours does not. */
static LOCKMODE
probe_mode(const Attempt *attempt)
{
	return attempt->request->shared ? RowShareLock : RowExclusiveLock;
}

/*
 * Others wait before us. It is being taken by one of them, or pinned, or theirs and they are told so; that is
 * asked without taking NAME, which may be refused to them just then.
 */
static bool
refuse_for_queue(Attempt *attempt)
{
	bool		taken = keylock_conflicts(&attempt->name_tag, probe_mode(attempt));
	bool		pinned = !taken && keylock_conflicts(&attempt->name_tag, acquire_mode(attempt));

	if (!taken)
		waitlist_call(&attempt->name_tag);
	if (!pinned)
		memset(&attempt->answer->lease, 0, sizeof(Lease));
	return refuse(attempt, pinned ? LEASE_PINNED : LEASE_HELD, 0);
}

/* Looks without a lock: false when there is nothing to be had, or it is ours already. */
static bool
look(Attempt *attempt)
{
	Lease		lease;
	HeapTuple	row = lease_read_latest(attempt->rel, &attempt->request->name, EXCLUSIVE_SLOT, &lease);
	int64		delay_us;

	if (!exclusive_grant_allows(attempt, row, &lease))
		return false;
	if (attempt->request->shared && find_shared_retry(attempt))
		return refuse(attempt, LEASE_OK, 0);
	attempt->now = clock_read();
	delay_us = token_grant_delay(&attempt->now);
	if (delay_us > 0)
	{
		memset(&attempt->answer->lease, 0, sizeof(Lease));
		return refuse(attempt, LEASE_FAILOVER_DELAY, delay_us);
	}
	if (!attempt->preferred &&
		(waitlist_must_wait(&attempt->name_tag, attempt->request->shared) || writer_waits(attempt)))
		return refuse_for_queue(attempt);
	memset(&attempt->answer->lease, 0, sizeof(Lease));
	return true;
}

/* Takes NAME, or says who is in the way: pins, or a grant that is not committed yet. */
static bool
lock_name(Attempt *attempt)
{
	LOCKMODE	probe = probe_mode(attempt);
	Lease		lease;
	HeapTuple	row;

	attempt->name_locked = keylock_try(&attempt->name_tag, acquire_mode(attempt));
	if (attempt->name_locked)
		return true;
	if (keylock_try(&attempt->name_tag, probe))
	{
		keylock_release(&attempt->name_tag, probe);
		/* whoever had it alone has let go, or there are pins */
		attempt->name_locked = keylock_try(&attempt->name_tag, acquire_mode(attempt));
		if (attempt->name_locked)
			return true;
		(void) refuse(attempt, LEASE_PINNED, 0);
	}
	else
		(void) refuse(attempt, LEASE_HELD, 0);

	/* the winner may have committed since we looked */
	row = lease_read_latest(attempt->rel, &attempt->request->name, EXCLUSIVE_SLOT, &lease);
	if (row != NULL && lease.live)
	{
		attempt->answer->lease = lease;
		return refuse(attempt, LEASE_HELD, lease.left_us);
	}
	if (attempt->answer->reason != LEASE_PINNED)
		return false;
	/* the pins may be those of live shared grants */
	if (!attempt->request->shared && !shared_grants_allow(attempt))
		return false;
	if (row != NULL)
		attempt->answer->lease = lease;
	return false;
}

/* Locks the shared slot if its row may be written over; it is dead in what was read. */
static bool
lock_slot(Attempt *attempt, int64 slot)
{
	const LeaseRequest *request = attempt->request;
	HeapTuple	row;
	Lease		lease;

	lease_slot_tag(attempt->kind, &attempt->slot_tag, &request->name, slot);
	attempt->slot_locked = keylock_try(&attempt->slot_tag, ExclusiveLock);
	if (!attempt->slot_locked)
		return false;
	attempt->slot = slot;
	attempt->old = NULL;
	row = lease_read_latest(attempt->rel, &request->name, slot, &lease);
	if (row == NULL)
		return true;
	/* a renewal of the dead grant must not be under way */
	lease_grant_tag(attempt->kind, &attempt->dead_tag, &request->name, lease.token);
	attempt->dead_locked = !lease.live && lease.hold_left_us == 0 && keylock_try(&attempt->dead_tag, ExclusiveLock);
	if (attempt->dead_locked)
	{
		attempt->old = lease_read_locked(attempt->rel, &request->name, slot, &attempt->old_lease, &attempt->now);
		if (attempt->old != NULL && attempt->old_lease.token == lease.token &&
			!attempt->old_lease.live && attempt->old_lease.hold_left_us == 0)
			return true;
		keylock_release(&attempt->dead_tag, ExclusiveLock);
		attempt->dead_locked = false;
	}
	keylock_release(&attempt->slot_tag, ExclusiveLock);
	attempt->slot_locked = false;
	return false;
}

/* Locks a slot for a shared grant: the first that is free or dead. */
static bool
choose_slot(Attempt *attempt)
{
	RowScan    *scan = lease_scan_shared(attempt->rel, &attempt->request->name);
	int64		next = EXCLUSIVE_SLOT + 1;
	int64		last;
	HeapTuple	row;

	while (!attempt->slot_locked && (row = row_scan_next(scan)) != NULL)
	{
		ClockReading now = clock_read();
		Lease		lease;

		lease_from_row(attempt->rel, row, &now, &lease);
		while (!attempt->slot_locked && next < lease.slot)
			(void) lock_slot(attempt, next++);
		if (!attempt->slot_locked && !lease.live)
			(void) lock_slot(attempt, lease.slot);
		next = lease.slot + 1;
	}
	row_scan_end(scan);
	/* beyond these are only slots that others are taking right now, or that collide with what others lock */
	last = next + SLOTS_TAKEN;
	while (!attempt->slot_locked && next < last)
		(void) lock_slot(attempt, next++);
	return attempt->slot_locked;
}

/* Locks what is needed and looks again. true: the grant can be written. */
static bool
lock_and_look(Attempt *attempt)
{
	const LeaseRequest *request = attempt->request;
	bool		free;

	if (!lock_name(attempt))
		return false;
	attempt->slot = EXCLUSIVE_SLOT;
	attempt->old = lease_read_locked(attempt->rel, &request->name, EXCLUSIVE_SLOT, &attempt->old_lease, &attempt->now);
	free = exclusive_grant_allows(attempt, attempt->old, &attempt->old_lease) &&
		(request->shared || shared_grants_allow(attempt));
	if (free && request->shared && !choose_slot(attempt))
		free = refuse(attempt, LEASE_HELD, 0);
	if (!free)
	{
		undo(attempt);
		return false;
	}
	memset(&attempt->answer->lease, 0, sizeof(Lease));
	attempt->answer->reason = LEASE_FREE;
	return true;
}

static void
remember(int64 token)
{
	granted_here[next_granted++ % REMEMBERED] = token;
}

bool
lease_granted_here(int64 token)
{
	for (int i = 0; i < REMEMBERED; i++)
	{
		if (granted_here[i] == token)
			return true;
	}
	return false;
}

/* The grant as it will be in the row. */
static Lease
new_grant(const LeaseRequest *request, int64 slot, const ClockReading *now)
{
	Lease		lease = {0};

	lease.name = request->name.datum;
	lease.slot = slot;
	lease.owner = request->owner.datum;
	lease.role = request->role;
	lease.shared = request->shared;
	lease.token = token_issue();
	lease.ttl_us = request->ttl_us;
	lease.acquired_at = now->wall;
	lease.deadline = deadline_after(now, request->ttl_us);
	lease.grant_xid = (int64) U64FromFullTransactionId(GetTopFullTransactionId());
	lease.has_hold = request->min_hold_us > 0;
	if (lease.has_hold)
		lease.hold = deadline_after(now, request->min_hold_us);
	lease.data = request->data;
	lease.live = true;
	lease.left_us = request->ttl_us;
	lease.expires_at = lease.deadline.wall;
	return lease;
}

/* Writes the grant over the dead row, or as a new one. */
static void
write_grant(Attempt *attempt)
{
	const LeaseRequest *request = attempt->request;
	Lease	   *lease = &attempt->answer->lease;
	LeaseChange change;

	attempt->now = clock_read();
	if (attempt->old != NULL && !attempt->old_lease.released && !attempt->old_lease.broken)
		lease_history_add(attempt->kind, &request->name, "expired", &attempt->old_lease, NULL);
	*lease = new_grant(request, attempt->slot, &attempt->now);
	lease_grant_columns(lease, request->request_id, request->session_id, &change);
	if (attempt->old == NULL)
		row_insert(attempt->rel, change.values, change.nulls);
	else
		row_update(attempt->rel, attempt->old, change.values, change.nulls, change.replace);
	if (request->session_id != NULL)
		lease_session_add(request->session_id, &request->name, lease->token);
	xact_require_durable(true);
	waitlist_wake_at_abort(&attempt->name_tag);
	attempt->answer->reason = LEASE_OK;
	attempt->answer->retry_us = 0;
	remember(lease->token);
}

bool
lease_try(const LeaseKind *kind, const LeaseRequest *requests, int n, LeaseAnswer *answers, int *obstacle)
{
	Relation	rel = row_open_write(kind->table, kind->acquire_call);
	Attempt    *attempts = palloc0(n * sizeof(Attempt));
	bool		written = false;

	*obstacle = -1;
	memset(answers, 0, n * sizeof(LeaseAnswer));
	for (int i = 0; i < n; i++)
	{
		Attempt    *attempt = &attempts[i];

		attempt->kind = kind;
		attempt->request = &requests[i];
		attempt->rel = rel;
		attempt->answer = &answers[i];
		answers[i].reason = LEASE_FREE;
		lease_name_tag(kind, &attempt->name_tag, &requests[i].name);
		if (look(attempt) && *obstacle < 0)
			(void) lock_and_look(attempt);
		if (*obstacle < 0 && !answers[i].again && answers[i].reason != LEASE_FREE)
			*obstacle = i;
	}
	for (int i = 0; i < n; i++)
	{
		if (*obstacle >= 0)
		{
			undo(&attempts[i]);
			/* ours already, but not together with the others */
			if (answers[i].again)
				answers[i].reason = LEASE_HELD;
		}
		else if (!answers[i].again)
		{
			write_grant(&attempts[i]);
			written = true;
		}
	}
	if (written)
		row_close(rel);
	else
		row_close_unwritten(rel);
	return *obstacle < 0;
}
