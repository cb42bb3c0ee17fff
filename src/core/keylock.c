/*
 * keylock.c: key locks, see keylock.h.
 *
 * Locks are the server's own heavyweight locks, so the deadlock detector,
 * cancel, lock_timeout, log_lock_waits and pg_locks know them. Whatever is not
 * released by a call falls with its (sub)transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "compat.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

#include "core/arg.h"
#include "core/guc.h"
#include "core/keylock.h"
#include "core/wait.h"
#include "core/xact.h"

/*
 * Who waits for a holder's transaction looks again after deadlock_timeout and this long, since the lock may have gone
 * with a savepoint. Not sooner, or no deadlock would be seen.
 */
#define HOLDER_LOOK_AGAIN (1 * SECONDS)

/* Key locks this transaction holds. A rollback to a savepoint restores the number. */
static int	held = 0;
static XactMarks marks;

static void
set_tag(LOCKTAG *tag, KeylockSpace space, uint64 hash)
{
	if (guc_hash_bits < 64)
		hash &= (UINT64CONST(1) << guc_hash_bits) - 1;
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, space);
}

void
keylock_tag(LOCKTAG *tag, KeylockSpace space, const char *name, int len)
{
	set_tag(tag, space, hash_bytes_extended((const unsigned char *) name, len, space));
}

void
keylock_tag2(LOCKTAG *tag, KeylockSpace space, const char *a, int alen, const char *b, int blen)
{
	uint64		seed = hash_bytes_extended((const unsigned char *) a, alen, space);

	set_tag(tag, space, hash_bytes_extended((const unsigned char *) b, blen, seed));
}

void
keylock_tag_num(LOCKTAG *tag, KeylockSpace space, const char *name, int len, int64 number)
{
	keylock_tag2(tag, space, name, len, (const char *) &number, sizeof(number));
}

/* Makes room for one more held lock: before it is taken, since this can fail. */
static void
reserve(const LOCKTAG *tag, LOCKMODE mode)
{
	if (held >= guc_max_keys_per_transaction && !LockHeldByMe(tag, mode, false))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("transaction uses more than %d keys", guc_max_keys_per_transaction),
				 errdetail("Each key that a transaction writes holds a lock until it ends."),
				 errhint("Commit between batches, or raise distsys.max_keys_per_transaction together with max_locks_per_transaction.")));
	xact_mark(&marks, held);
}

int
keylock_room(void)
{
	return Max(guc_max_keys_per_transaction - held, 0);
}

/*
 * Key locks belong to the (sub)transaction and not to the portal that runs the
 * call: a timed wait leaves its lock there, and a release must find it.
 */
static ResourceOwner
own_by_transaction(void)
{
	ResourceOwner owner = CurrentResourceOwner;

	CurrentResourceOwner = CurTransactionResourceOwner;
	return owner;
}

bool
keylock_try(const LOCKTAG *tag, LOCKMODE mode)
{
	ResourceOwner owner;
	LockAcquireResult result;

	reserve(tag, mode);
	owner = own_by_transaction();
	result = LockAcquire(tag, mode, false, true);
	CurrentResourceOwner = owner;
	if (result == LOCKACQUIRE_OK)
		held++;
	return result != LOCKACQUIRE_NOT_AVAIL;
}

void
keylock_release(const LOCKTAG *tag, LOCKMODE mode)
{
	ResourceOwner owner = own_by_transaction();

	(void) LockRelease(tag, mode, false);
	CurrentResourceOwner = owner;
	if (!LockHeldByMe(tag, mode, false))
		held--;
}

/*
 * The lock came at the very moment at which our bound on the wait fired: it is
 * held, and the pending cancel would hit whatever the transaction does next.
 */
static void
forget_late_timeout(void)
{
	if (get_timeout_indicator(LOCK_TIMEOUT, true) && !get_timeout_indicator(STATEMENT_TIMEOUT, false))
		QueryCancelPending = false;
}

/*
 * The caller's lock_timeout may have run out in the moment in which the lock was
 * granted: its error comes now, where the lock is still given back, and not in the next statement.
 */
static void
raise_late_timeout(void)
{
	CHECK_FOR_INTERRUPTS();
}

/*
 * Runs a wait that only an error can end early inside a subtransaction with
 * lock_timeout set to what is left. true: it came to its end.
 */
typedef void (*TimedWait) (void *arg);

static bool
wait_in_subtransaction(TimedWait wait, void *arg, int64 wait_us)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	int			callers_timeout = LockTimeout;
	int64		wait_ms = Max(1, (wait_us + 999) / 1000);
	volatile bool ours = (callers_timeout == 0 || wait_ms < callers_timeout);
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	if (ours)
		LockTimeout = (int) Min(wait_ms, INT_MAX);
	PG_TRY();
	{
		wait(arg);
		LockTimeout = callers_timeout;
		if (ours)
			forget_late_timeout();
		else
			raise_late_timeout();
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		LockTimeout = callers_timeout;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (!ours || error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}

typedef struct LockRequest
{
	const LOCKTAG *tag;
	LOCKMODE	mode;
	bool		session;
} LockRequest;

static void
wait_for_lock(void *arg)
{
	LockRequest *request = (LockRequest *) arg;
	ResourceOwner owner = own_by_transaction();

	(void) LockAcquire(request->tag, request->mode, request->session, false);
	CurrentResourceOwner = owner;
}

static bool
wait_within(LockRequest *request, int64 wait_us)
{
	if (wait_us == 0)
		return false;
	if (wait_us != KEYLOCK_FOR_EVER)
		return wait_in_subtransaction(wait_for_lock, request, wait_us);
	wait_for_lock(request);
	raise_late_timeout();
	return true;
}

bool
keylock_wait(const LOCKTAG *tag, LOCKMODE mode, int64 wait_us)
{
	LockRequest request = {tag, mode, false};

	if (keylock_try(tag, mode))
		return true;
	if (!wait_within(&request, wait_us))
		return false;
	held++;
	return true;
}

bool
keylock_session_wait(const LOCKTAG *tag, LOCKMODE mode, int64 wait_us)
{
	LockRequest request = {tag, mode, true};
	bool		locked = false;

	if (LockAcquire(tag, mode, true, true) != LOCKACQUIRE_NOT_AVAIL)
		return true;
	PG_TRY();
	{
		locked = wait_within(&request, wait_us);
	}
	PG_CATCH();
	{
		/* granted at the very moment of the cancel: no transaction's end gives it back */
		if (LockHeldByMe(tag, mode, false))
			(void) LockRelease(tag, mode, true);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return locked || LockHeldByMe(tag, mode, false);
}

bool
keylock_conflicts(const LOCKTAG *tag, LOCKMODE mode)
{
	VirtualTransactionId *holders = GetLockConflicts(tag, mode, NULL);
	bool		conflicts = VirtualTransactionIdIsValid(*holders);

	/* it has room for every backend there may be, and some ask for each of thousands of keys */
	pfree(holders);
	return conflicts;
}

static void
wait_for_holder(void *arg)
{
	(void) VirtualXactLock(*(VirtualTransactionId *) arg, true);
}

bool
keylock_wait_for_holders(const LOCKTAG *tag, LOCKMODE mode, int64 wait_us)
{
	int64		until = wait_clock() + wait_us;
	int64		slice_us = DeadlockTimeout * MILLISECONDS + HOLDER_LOOK_AGAIN;

	for (;;)
	{
		VirtualTransactionId *holder = GetLockConflicts(tag, mode, NULL);
		int64		left_us = until - wait_clock();

		if (!VirtualTransactionIdIsValid(*holder))
			return true;
		if (left_us <= 0)
			return false;
		(void) wait_in_subtransaction(wait_for_holder, holder, Min(left_us, slice_us));
	}
}

int
keylock_count_holders(const LOCKTAG *tag, LOCKMODE mode)
{
	int			n = 0;

	(void) GetLockConflicts(tag, mode, &n);
	return n;
}

static void
keylock_end(bool committed)
{
	held = 0;
	xact_marks_clear(&marks);
}

static void
keylock_sub_end(bool committed, int nest_level)
{
	int64		before;

	if (xact_marks_sub_end(&marks, committed, nest_level, &before))
		held = (int) before;
}

static const XactActions keylock_actions = {
	.end = keylock_end,
	.sub_end = keylock_sub_end
};

void
keylock_init(void)
{
	xact_register(&keylock_actions);
}
