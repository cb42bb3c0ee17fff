/*
 * advisory_xact.c: locks that fall with their (sub)transaction.
 *
 * In REPEATABLE READ and SERIALIZABLE a lock guards what the snapshot shows, so one whose last exclusive holder the
 * snapshot does not see is 40001 (distsys.stale_snapshot). last_writer.h knows him, when preloaded; otherwise, and
 * for holders that came by pg_advisory_xact_lock, only a wait gives him away.
 *
 * A prepared transaction keeps its locks to COMMIT or ROLLBACK PREPARED. Error, cancel, savepoint rollback: what
 * was locked since falls. Standby: 25006.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "utils/snapmgr.h"

#include "core/guc.h"
#include "core/shmem.h"
#include "core/wait.h"
#include "lock/advisory.h"
#include "lock/held_name.h"
#include "lock/last_writer.h"

/* ---- snapshots that are older than the lock ---- */

static void
report_stale_snapshot(const NameArg *name, const char *detail)
{
	last_writer_report_stale("lock", name, detail, "Take the lock before BEGIN, or use READ COMMITTED; a retry alone may not help.");
}

/* Does the map of last writers know every holder of these locks? */
static bool
all_holders_known(void)
{
	return shmem_available() && guc_advisory_keyspace == ADVISORY_KEYSPACE_PRIVATE;
}

static void
check_snapshot(const NameArg *name, const LOCKTAG *tag, bool waited)
{
	if (!IsolationUsesXactSnapshot() || guc_stale_snapshot == STALE_SNAPSHOT_OFF)
		return;
	if (last_writer_unseen(tag, GetTransactionSnapshot()))
		report_stale_snapshot(name, "A transaction that held it has written and committed since the transaction's snapshot was taken.");
	else if (waited && !all_holders_known())
		report_stale_snapshot(name, "The lock had to be waited for after the transaction's snapshot was taken.");
}

/* ---- one name ---- */

/* A standby's locks are its own: nobody on the primary would be kept out. */
static void
check_command(const char *command)
{
	PreventCommandDuringRecovery(command);
	PreventCommandIfParallelMode(command);
}

/* Takes the lock; *waited: not at once. false: the wait has elapsed. */
static bool
take(const NameArg *name, const LOCKTAG *tag, LOCKMODE mode, int64 wait_us, bool *waited)
{
	if (mode == ExclusiveLock)
		last_writer_reserve(tag, mode);
	held_name_note(tag, name);
	*waited = !keylock_try(tag, mode);
	return !*waited || keylock_wait(tag, mode, wait_us);
}

static bool
xact_lock(const NameArg *name, LOCKMODE mode, int64 wait_us)
{
	LOCKTAG		tag;
	bool		waited;

	lock_xact_tag(&tag, name);
	if (!take(name, &tag, mode, wait_us, &waited))
		return false;
	check_snapshot(name, &tag, waited);
	return true;
}

/* ---- several names ---- */

typedef struct Wanted
{
	LOCKTAG		tag;
	const NameArg *name;
	bool		waited;
} Wanted;

static int
compare_tags(const void *a, const void *b)
{
	return memcmp(&((const Wanted *) a)->tag, &((const Wanted *) b)->tag, sizeof(LOCKTAG));
}

/* The tags of the names, each once, in the order in which everybody takes them. */
static Wanted *
sort_wanted(const NameArg *names, int n, int *nwanted)
{
	Wanted	   *wanted = palloc(sizeof(Wanted) * n);
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		lock_xact_tag(&wanted[i].tag, &names[i]);
		wanted[i].name = &names[i];
	}
	qsort(wanted, n, sizeof(Wanted), compare_tags);
	for (int i = 0; i < n; i++)
	{
		if (kept == 0 || compare_tags(&wanted[kept - 1], &wanted[i]) != 0)
			wanted[kept++] = wanted[i];
	}
	*nwanted = kept;
	return wanted;
}

static int64
wait_left(int64 until, int64 wait_us)
{
	return wait_us <= 0 ? wait_us : at_least(until - wait_clock(), 0);
}

/* All of them or, when the wait has elapsed, none that was not held before. */
static bool
xact_lock_all(const NameArg *names, int n, int64 wait_us)
{
	int64		until = wait_clock() + Max(wait_us, 0);
	int			nwanted;
	Wanted	   *wanted = sort_wanted(names, n, &nwanted);

	for (int i = 0; i < nwanted; i++)
	{
		if (take(wanted[i].name, &wanted[i].tag, ExclusiveLock, wait_left(until, wait_us), &wanted[i].waited))
			continue;
		while (--i >= 0)
			keylock_release(&wanted[i].tag, ExclusiveLock);
		return false;
	}
	for (int i = 0; i < nwanted; i++)
		check_snapshot(wanted[i].name, &wanted[i].tag, wanted[i].waited);
	return true;
}

/* ---- SQL ---- */

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_xact_lock);

Datum
distsys_xact_lock(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int64		wait_us = lock_arg_wait(fcinfo, 1);

	check_command("xact_lock()");
	PG_RETURN_BOOL(xact_lock(&name, ExclusiveLock, wait_us));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_xact_lock_shared);

Datum
distsys_xact_lock_shared(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int64		wait_us = lock_arg_wait(fcinfo, 1);

	check_command("xact_lock_shared()");
	PG_RETURN_BOOL(xact_lock(&name, ShareLock, wait_us));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_xact_lock_all);

Datum
distsys_xact_lock_all(PG_FUNCTION_ARGS)
{
	int			n;
	NameArg    *names = arg_name_array(fcinfo, 0, "names", NAME_LONG, false, &n);
	int64		wait_us = lock_arg_wait(fcinfo, 1);

	check_command("xact_lock_all()");
	PG_RETURN_BOOL(xact_lock_all(names, n, wait_us));
}
