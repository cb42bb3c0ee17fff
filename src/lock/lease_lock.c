/*
 * lease_lock.c: CALL lease_lock(): acquires a lease in short transactions of its own.
 *
 * Between attempts there is neither a lock (but INTENT) nor a snapshot, so that nobody's vacuum or CREATE INDEX CONCURRENTLY
 * waits for the waiting. The grant is committed on return. A cancel while it waits leaves the queue; one that comes after
 * the commit leaves a grant that ends by its ttl.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "compat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "core/call.h"
#include "core/refusal.h"
#include "core/wait.h"
#include "core/waitlist.h"
#include "lock/lease_arg.h"

/* Nobody but ourselves would end this wait. */
static void
check_not_own(const LeaseRequest *request, const LeaseAnswer *answer)
{
	if (answer->reason != LEASE_HELD || answer->lease.owner == (Datum) 0 ||
		!lease_granted_here(answer->lease.token) ||
		!DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, answer->lease.owner, request->owner.datum)))
		return;
	ereport(ERROR,
			(errcode_sd(ERRCODE_SD_WOULD_DEADLOCK),
			 errmsg("lease \"%s\" is held by the same owner in this session", name_cstring(request->name)),
			 errdetail("To wait for it without an end would be to wait for oneself."),
			 errhint("Leases are not re-entrant: release it first, or go on with the token you have. Behind a transaction pooler give each client an owner of its own.")));
}

/* One attempt in a transaction of its own; *queued: refused, and it has a new place in the queue. */
static bool
lock_once(const LeaseRequest *request, LeaseAnswer *answer, bool for_ever, bool *queued)
{
	int			obstacle;
	bool		acquired;

	PushActiveSnapshot(GetTransactionSnapshot());
	acquired = lease_try(&lease_kind, request, 1, answer, &obstacle);
	if (!acquired && for_ever)
		check_not_own(request, answer);
	PopActiveSnapshot();
	*queued = !acquired && lease_queue(&lease_kind, request);
	call_commit();
	return acquired;
}

/* wait_us < 0: for as long as it takes. Between attempts there is no transaction's lock or snapshot. */
static bool
lock_until(const LeaseRequest *request, int64 wait_us, LeaseAnswer *answer)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext attempt = AllocSetContextCreate(caller, "distsys lease_lock", ALLOCSET_SMALL_SIZES);
	int64		begun = wait_clock();
	int64		waited_us = 0;
	int64		poll_us = 0;
	bool		acquired;

	for (;;)
	{
		int64		left_us;
		bool		queued;

		MemoryContextReset(attempt);
		MemoryContextSwitchTo(attempt);
		acquired = lock_once(request, answer, wait_us < 0, &queued);
		MemoryContextSwitchTo(caller);
		left_us = wait_us < 0 ? PG_INT64_MAX : wait_us - (wait_clock() - begun);
		if (acquired || left_us <= 0)
			break;
		lease_begin_waiting(&lease_kind, request);
		if (!queued)
			lease_sleep(answer, left_us, &poll_us);
		waited_us = at_least(wait_clock() - begun, 1);
	}
	lease_count(&lease_kind, acquired, acquired ? LEASE_OK : wait_us > 0 ? LEASE_TIMEOUT : answer->reason, waited_us);
	return acquired;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_lock);

Datum
distsys_lease_lock(PG_FUNCTION_ARGS)
{
	LeaseRequest request = {0};
	LeaseAnswer answer;
	int64		wait_us;
	bool		acquired = false;
	Datum		values[3] = {0};
	bool		nulls[3];

	call_check(fcinfo, "lease_lock()");
	request.role = GetUserId();
	request.name = arg_name(fcinfo, 0, "name", NAME_LONG);
	request.owner = arg_name(fcinfo, 1, "owner", NAME_LONG);
	request.ttl_us = lease_arg_ttl(fcinfo, 2);
	wait_us = PG_ARGISNULL(3) ? -1 :
		arg_interval(fcinfo, 3, "wait", 0, PG_INT64_MAX / 2, "Zero means: do not wait; null means: for as long as it takes.");

	call_begin();
	PG_TRY();
	{
		acquired = lock_until(&request, wait_us, &answer);
	}
	PG_CATCH();
	{
		lease_end_waiting(false);
		PG_RE_THROW();
	}
	PG_END_TRY();
	lease_end_waiting(acquired);
	call_end();

	memset(nulls, !acquired, sizeof(nulls));
	if (acquired)
	{
		/* the caller does not know when the wait ended, and the commit has taken its time too */
		ClockReading now = clock_read();
		int64		left_us = at_least(deadline_left(&answer.lease.deadline, &now), 0);

		values[0] = Int64GetDatum(answer.lease.token);
		values[1] = TimestampTzGetDatum(answer.lease.expires_at);
		values[2] = interval_datum(left_us);
	}
	return call_result(fcinfo, values, nulls);
}
