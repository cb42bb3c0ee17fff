/*
 * fence.c: fencing tokens at the resource.
 *
 * One row per resource in fence: the highest token that passed. The highest
 * token shares the resource (RowShare on the key lock, kept to the end of the transaction), a higher one
 * takes it alone (Exclusive): so guarded writes commit in the order of their
 * tokens. A lower one is refused and holds nothing.
 *
 * In REPEATABLE READ and SERIALIZABLE the snapshot has to show what those before have written: all who passed with a
 * lower token. Who records a token has waited for them, so for the others it is enough to see that record; he himself asks
 * who they were (last_writer.h), and without shared memory whether there was a wait. Else 40001 (distsys.stale_snapshot).
 *
 * Rollback takes back the record together with the guarded writes. A recorded
 * token survives a crash (xact_require_durable). Standby: reading only.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "utils/snapmgr.h"

#include "core/clock.h"
#include "core/guc.h"
#include "core/keylock.h"
#include "core/refusal.h"
#include "core/shmem.h"
#include "core/stats.h"
#include "core/xact.h"
#include "lock/fence.h"
#include "lock/last_writer.h"
#include "store/row.h"
#include "store/token.h"

enum
{
	ATTR_RESOURCE = 1,
	ATTR_TOKEN,
	ATTR_PASSED_AT,
	NATTS = ATTR_PASSED_AT
};

static int64
token_of(Relation rel, HeapTuple row)
{
	return row == NULL ? 0 : DatumGetInt64(row_get(rel, row, ATTR_TOKEN, NULL));
}

/* ---- snapshots that are older than the writes of lower tokens ---- */

static void
report_stale_snapshot(const NameArg *resource, const char *detail)
{
	last_writer_report_stale("fence", resource, detail, "Retry the transaction, or use READ COMMITTED.");
}

static bool
snapshots_matter(void)
{
	return IsolationUsesXactSnapshot() && guc_stale_snapshot != STALE_SNAPSHOT_OFF;
}

/* row: the record of the token that passes, or of the highest before it; NULL: none. */
static bool
check_record_seen(const NameArg *resource, HeapTuple row)
{
	if (row == NULL || !row_written_after_snapshot(row))
		return true;
	report_stale_snapshot(resource, "A token was recorded for it since the transaction's snapshot was taken.");
	return false;
}

/* The resource is ours alone, and those with lower tokens have ended. */
static void
check_writes_seen(const LOCKTAG *tag, const NameArg *resource, HeapTuple row, bool waited)
{
	if (!snapshots_matter() || !check_record_seen(resource, row))
		return;
	if (last_writer_unseen(tag, GetTransactionSnapshot()))
		report_stale_snapshot(resource, "A transaction with a lower token has written and committed since the transaction's snapshot was taken.");
	else if (waited && !shmem_available())
		report_stale_snapshot(resource, "It had to be waited for after the transaction's snapshot was taken.");
}

/* ---- passing ---- */

/* token is the highest seen as far as we know: shares the resource. false: a higher one has come in between. */
static bool
share(Relation rel, const LOCKTAG *tag, const NameArg *resource, int64 token, int64 *highest)
{
	HeapTuple	row;

	last_writer_reserve(tag, RowShareLock);
	(void) keylock_wait(tag, RowShareLock, KEYLOCK_FOR_EVER);
	row = row_read_latest(rel, &resource->datum);
	*highest = token_of(rel, row);
	if (*highest > token)
	{
		keylock_release(tag, RowShareLock);
		return false;
	}
	if (snapshots_matter())
		(void) check_record_seen(resource, row);
	return true;
}

/* token is higher than any seen: waits for the guarded writes of lower ones, then records it. */
static bool
advance(Relation rel, const LOCKTAG *tag, const NameArg *resource, int64 token, int64 *highest)
{
	HeapTuple	row;
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS] = {false, true, true};
	bool		waited;

	last_writer_reserve(tag, ExclusiveLock);
	waited = !keylock_try(tag, ExclusiveLock);
	if (waited)
		(void) keylock_wait(tag, ExclusiveLock, KEYLOCK_FOR_EVER);
	row = row_read_locked(rel, &resource->datum);
	*highest = token_of(rel, row);
	if (*highest > token)
	{
		keylock_release(tag, ExclusiveLock);
		return false;
	}
	check_writes_seen(tag, resource, row, waited);
	if (*highest == token)
		return true;

	values[ATTR_RESOURCE - 1] = resource->datum;
	values[ATTR_TOKEN - 1] = Int64GetDatum(token);
	values[ATTR_PASSED_AT - 1] = TimestampTzGetDatum(clock_wall());
	if (row == NULL)
		row_insert(rel, values, nulls);
	else
		row_update(rel, row, values, nulls, replace);
	*highest = token;
	xact_require_durable(false);
	return true;
}

bool
fence_pass(const NameArg *resource, int64 token, int64 *highest)
{
	Relation	rel = row_open_write(TABLE_FENCE, "fence_pass()");
	LOCKTAG		tag;
	bool		passed = false;

	keylock_tag(&tag, KEYLOCK_FENCE, resource->data, resource->len);
	*highest = token_of(rel, row_read_latest(rel, &resource->datum));
	if (token == *highest)
		passed = share(rel, &tag, resource, token, highest);
	else if (token > *highest)
		passed = advance(rel, &tag, resource, token, highest);

	if (passed)
		row_close(rel);
	else
		row_close_unwritten(rel);
	stats_add("fence", "", passed ? "passed" : "stale", 1);
	return passed;
}

int64
fence_current(const NameArg *resource)
{
	Relation	rel = row_open_read(TABLE_FENCE);
	int64		token = token_of(rel, row_read_latest(rel, &resource->datum));

	row_close(rel);
	return token;
}

/* ---- SQL ---- */

static int64
arg_fencing_token(FunctionCallInfo fcinfo, int argno)
{
	return arg_int64(fcinfo, argno, "token", 1, TOKEN_LIMIT - 1);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_fence_pass);

Datum
distsys_fence_pass(PG_FUNCTION_ARGS)
{
	NameArg		resource = arg_name(fcinfo, 0, "resource", NAME_LONG);
	int64		highest;

	PG_RETURN_BOOL(fence_pass(&resource, arg_fencing_token(fcinfo, 1), &highest));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_fence_assert);

Datum
distsys_fence_assert(PG_FUNCTION_ARGS)
{
	NameArg		resource = arg_name(fcinfo, 0, "resource", NAME_LONG);
	int64		token = arg_fencing_token(fcinfo, 1);
	int64		highest;

	if (!fence_pass(&resource, token, &highest))
		ereport(ERROR,
				(errcode_sd(ERRCODE_SD_FENCING_TOKEN_STALE),
				 errmsg("fencing token is stale for resource \"%s\"", name_cstring(resource)),
				 errdetail("The token is %lld, the highest seen is %lld.", (long long) token, (long long) highest),
				 errhint("Another holder has taken over; stop the work.")));
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_fence_current);

Datum
distsys_fence_current(PG_FUNCTION_ARGS)
{
	NameArg		resource = arg_name(fcinfo, 0, "resource", NAME_LONG);
	int64		token = fence_current(&resource);

	if (token == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(token);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_token_epoch);

Datum
distsys_token_epoch(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(token_epoch());
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_token_epoch_bump);

Datum
distsys_token_epoch_bump(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(token_epoch_bump());
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_token_advance);

Datum
distsys_token_advance(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(token_advance(arg_int64(fcinfo, 0, "min_token", 0, TOKEN_LIMIT - 1)));
}
