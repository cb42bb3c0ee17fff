/*
 * lease_sql.c: the SQL functions of leases: arguments in, rows out.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "core/guc.h"
#include "core/result.h"
#include "lock/lease.h"
#include "store/row.h"

#define TTL_MIN (100 * MILLISECONDS)
#define TTL_HINT "A bare number is seconds; write '30 s' or make_interval(secs => 30). The limit is distsys.lease_max_ttl."

static const char *const modes[] = {"exclusive", "shared", NULL};
static const char *const reasons[] = {
	[LEASE_OK] = "ok",
	[LEASE_HELD] = "held",
	[LEASE_PINNED] = "pinned",
	[LEASE_TIMEOUT] = "timeout"
};

/* Row type distsys.lease */
enum
{
	OUT_ACQUIRED,
	OUT_REASON,
	OUT_NAME,
	OUT_OWNER,
	OUT_MODE,
	OUT_TOKEN,
	OUT_ACQUIRED_AT,
	OUT_EXPIRES_AT,
	OUT_TTL_REMAINING,
	OUT_RETRY_AFTER,
	OUT_DATA,
	NOUT
};

static int64
arg_ttl(FunctionCallInfo fcinfo, int argno)
{
	return arg_interval(fcinfo, argno, "ttl", TTL_MIN, (int64) guc_lease_max_ttl * MILLISECONDS, TTL_HINT);
}

/* Fills what a holder and a bystander may both know; the token only for roles that have the holder's rights. */
static void
describe(const NameArg *name, const Lease *lease, bool show_token, Datum *values, bool *nulls)
{
	memset(nulls, true, NOUT * sizeof(bool));
	values[OUT_NAME] = name->datum;
	nulls[OUT_NAME] = false;
	if (lease->owner == (Datum) 0)
		return;
	values[OUT_OWNER] = lease->owner;
	values[OUT_MODE] = CStringGetTextDatum("exclusive");
	values[OUT_TOKEN] = Int64GetDatum(lease->token);
	values[OUT_ACQUIRED_AT] = TimestampTzGetDatum(lease->acquired_at);
	values[OUT_EXPIRES_AT] = TimestampTzGetDatum(lease->expires_at);
	values[OUT_TTL_REMAINING] = interval_datum(lease->left_us);
	nulls[OUT_OWNER] = nulls[OUT_MODE] = false;
	nulls[OUT_ACQUIRED_AT] = nulls[OUT_EXPIRES_AT] = nulls[OUT_TTL_REMAINING] = false;
	nulls[OUT_TOKEN] = !show_token;
}

static Datum
lease_row(const NameArg *name, const Lease *lease, LeaseReason reason)
{
	Datum		values[NOUT] = {0};
	bool		nulls[NOUT];
	bool		acquired = reason == LEASE_OK;

	describe(name, lease, acquired, values, nulls);
	values[OUT_ACQUIRED] = BoolGetDatum(acquired);
	values[OUT_REASON] = CStringGetTextDatum(reasons[reason]);
	nulls[OUT_ACQUIRED] = nulls[OUT_REASON] = false;
	if (!acquired && lease->owner != (Datum) 0 && lease->live)
	{
		values[OUT_RETRY_AFTER] = interval_datum(lease->left_us);
		nulls[OUT_RETRY_AFTER] = false;
	}
	return result_row(catalog_type(TYPE_LEASE), values, nulls);
}

/* Drivers open transactions that nobody sees; until its COMMIT no one else sees the grant, and its ttl runs. */
static void
notice_in_transaction(const NameArg *name)
{
	if (!guc_notice_in_transaction || !IsTransactionBlock())
		return;
	ereport(NOTICE,
			(errmsg("lease \"%s\" takes effect at commit", name_cstring(*name)),
			 errhint("Acquire leases in autocommit mode; set distsys.notice_in_transaction = off when this is meant.")));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_acquire);

Datum
distsys_lease_acquire(PG_FUNCTION_ARGS)
{
	LeaseRequest request;
	int64		wait_us;
	Lease		lease;
	LeaseReason reason;
	bool		again;

	request.name = arg_name(fcinfo, 0, "name", NAME_LONG);
	request.owner = arg_name(fcinfo, 1, "owner", NAME_LONG);
	request.ttl_us = arg_ttl(fcinfo, 2);
	wait_us = arg_function_wait(fcinfo, 3, NULL);
	if (arg_word(fcinfo, 4, "mode", modes) != 0)
		arg_not_built("mode 'shared'", "Use mode 'exclusive'.");
	request.request_id = PG_ARGISNULL(5) ? NULL : PG_GETARG_UUID_P(5);
	if (!PG_ARGISNULL(6))
		arg_not_built("data", "Leave data null.");
	if (arg_interval(fcinfo, 7, "min_hold", 0, request.ttl_us, "min_hold must not be longer than ttl.") != 0)
		arg_not_built("min_hold", "Leave min_hold at '0'.");
	if (!PG_ARGISNULL(8))
		arg_not_built("session_id", "Leave session_id null.");

	reason = lease_acquire(&request, wait_us, &lease, &again);
	if (reason == LEASE_OK && !again)
		notice_in_transaction(&request.name);
	PG_RETURN_DATUM(lease_row(&request.name, &lease, reason));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_renew);

Datum
distsys_lease_renew(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int64		token = arg_token(fcinfo, 1);
	int64		ttl_us = PG_ARGISNULL(2) ? 0 : arg_ttl(fcinfo, 2);
	Lease		lease;

	lease_renew(&name, token, ttl_us, &lease);
	PG_RETURN_DATUM(lease_row(&name, &lease, LEASE_OK));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_release);

Datum
distsys_lease_release(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);

	PG_RETURN_BOOL(lease_release(&name, arg_token(fcinfo, 1)));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_assert);

Datum
distsys_lease_assert(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int64		token = arg_token(fcinfo, 1);

	lease_assert(&name, token, arg_interval(fcinfo, 2, "min_remaining", 0, PG_INT64_MAX, NULL));
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_get);

/* Zero rows or one; acquired says whether the lease is live. */
Datum
distsys_lease_get(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	Lease		lease;
	Datum		values[NOUT] = {0};
	bool		nulls[NOUT];

	result_begin_set(fcinfo);
	if (!lease_read(&name, &lease))
		return (Datum) 0;
	describe(&name, &lease, has_privs_of_role(GetUserId(), lease.role), values, nulls);
	values[OUT_ACQUIRED] = BoolGetDatum(lease.live);
	values[OUT_REASON] = CStringGetTextDatum(lease.live ? "held" : "free");
	nulls[OUT_ACQUIRED] = nulls[OUT_REASON] = false;
	result_put(fcinfo, values, nulls);
	return (Datum) 0;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__leases);

/* Rows of the view leases. */
Datum
distsys__leases(PG_FUNCTION_ARGS)
{
	Relation	rel = row_open_read(TABLE_LEASE);
	RowScan    *scan = row_scan_begin(rel, 0, NULL, NULL);
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "distsys leases", ALLOCSET_SMALL_SIZES);
	HeapTuple	row;

	result_begin_set(fcinfo);
	while ((row = row_scan_next(scan)) != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(per_row);
		ClockReading now = clock_read();
		Lease		lease;
		Datum		values[9];
		bool		nulls[9] = {false};

		lease_from_row(rel, row, &now, &lease);
		values[0] = lease.name;
		values[1] = lease.owner;
		values[2] = ObjectIdGetDatum(lease.role);
		values[3] = CStringGetTextDatum("exclusive");
		values[4] = BoolGetDatum(lease.live);
		values[5] = TimestampTzGetDatum(lease.acquired_at);
		values[6] = TimestampTzGetDatum(lease.expires_at);
		values[7] = interval_datum(lease.left_us);
		values[8] = Int64GetDatum(lease.token);
		nulls[8] = !has_privs_of_role(GetUserId(), lease.role);
		result_put(fcinfo, values, nulls);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(per_row);
	}
	row_scan_end(scan);
	row_close(rel);
	return (Datum) 0;
}
