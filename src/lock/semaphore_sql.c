/*
 * semaphore_sql.c: the SQL functions of permits: arguments in, rows out.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "core/guc.h"
#include "core/result.h"
#include "lock/lease_arg.h"
#include "lock/semaphore_row.h"
#include "store/table_view.h"

static const char *const reasons[] = {
	[SEMAPHORE_OK] = "ok",
	[SEMAPHORE_NO_PERMIT] = "no_permit",
	[SEMAPHORE_QUEUE_FULL] = "queue_full",
	[SEMAPHORE_TIMEOUT] = "timeout",
	[SEMAPHORE_FAILOVER_DELAY] = "failover_delay"
};

/* Row type distsys.semaphore_grant */
enum
{
	OUT_ACQUIRED,
	OUT_REASON,
	OUT_TOKEN,
	OUT_SLOTS,
	OUT_EXPIRES_AT,
	OUT_TTL_REMAINING,
	OUT_RETRY_AFTER,
	OUT_RETRY_AFTER_S,
	NOUT
};

static Datum
slots_datum(const SemaphoreGrant *grant)
{
	Datum	   *slots = palloc(grant->nslots * sizeof(Datum));

	for (int i = 0; i < grant->nslots; i++)
		slots[i] = Int32GetDatum(grant->slots[i]);
	return PointerGetDatum(construct_array(slots, grant->nslots, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

static Datum
grant_row(const SemaphoreGrant *grant, SemaphoreReason reason)
{
	Datum		values[NOUT] = {0};
	bool		nulls[NOUT];

	memset(nulls, true, sizeof(nulls));
	values[OUT_ACQUIRED] = BoolGetDatum(reason == SEMAPHORE_OK);
	values[OUT_REASON] = CStringGetTextDatum(reasons[reason]);
	nulls[OUT_ACQUIRED] = nulls[OUT_REASON] = false;
	if (reason == SEMAPHORE_OK)
	{
		values[OUT_TOKEN] = Int64GetDatum(grant->token);
		values[OUT_SLOTS] = slots_datum(grant);
		values[OUT_EXPIRES_AT] = TimestampTzGetDatum(grant->expires_at);
		values[OUT_TTL_REMAINING] = interval_datum(grant->left_us);
		nulls[OUT_TOKEN] = nulls[OUT_SLOTS] = nulls[OUT_EXPIRES_AT] = nulls[OUT_TTL_REMAINING] = false;
	}
	else if (grant->retry_us >= 0)
	{
		values[OUT_RETRY_AFTER] = interval_datum(grant->retry_us);
		values[OUT_RETRY_AFTER_S] = Int32GetDatum(seconds_up(grant->retry_us));
		nulls[OUT_RETRY_AFTER] = nulls[OUT_RETRY_AFTER_S] = false;
	}
	return result_row(catalog_type(TYPE_SEMAPHORE_GRANT), values, nulls);
}

/* Drivers open transactions that nobody sees; until its COMMIT the permit's time runs, and a rollback takes it back. */
static void
notice_in_transaction(const NameArg *name)
{
	if (!guc_notice_in_transaction || !IsTransactionBlock())
		return;
	ereport(NOTICE,
			(errmsg("permit of semaphore \"%s\" takes effect at commit", name_cstring(*name)),
			 errhint("Acquire permits in autocommit mode; set distsys.notice_in_transaction = off when this is meant.")));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_semaphore_acquire);

Datum
distsys_semaphore_acquire(PG_FUNCTION_ARGS)
{
	SemaphoreRequest request;
	int64		wait_us;
	SemaphoreGrant grant;
	SemaphoreReason reason;
	bool		again;

	request.name = arg_name(fcinfo, 0, "name", NAME_LONG);
	request.owner = arg_name(fcinfo, 1, "owner", NAME_LONG);
	request.ttl_us = lease_arg_ttl(fcinfo, 2);
	request.permits = arg_int32(fcinfo, 3, "permits", 1, SEMAPHORE_MAX_PERMITS);
	wait_us = arg_function_wait(fcinfo, 4, NULL);
	request.request_id = lease_arg_uuid(fcinfo, 5);

	reason = semaphore_acquire(&request, wait_us, &grant, &again);
	if (reason == SEMAPHORE_OK && !again)
		notice_in_transaction(&request.name);
	PG_RETURN_DATUM(grant_row(&grant, reason));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_semaphore_renew);

Datum
distsys_semaphore_renew(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int64		token = arg_token(fcinfo, 1);
	int64		ttl_us = lease_arg_optional_ttl(fcinfo, 2);
	SemaphoreGrant grant;

	semaphore_renew(&name, token, ttl_us, &grant);
	PG_RETURN_DATUM(grant_row(&grant, SEMAPHORE_OK));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_semaphore_release);

Datum
distsys_semaphore_release(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);

	PG_RETURN_BOOL(semaphore_release(&name, arg_token(fcinfo, 1)));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_semaphore_assert);

Datum
distsys_semaphore_assert(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);

	semaphore_assert(&name, arg_token(fcinfo, 1));
	PG_RETURN_BOOL(true);
}

static void
permit_columns(Relation rel, HeapTuple row, Datum *values, bool *nulls)
{
	ClockReading now = clock_read();
	Permit		permit;

	permit_from_row(rel, row, &now, &permit);
	values[0] = permit.name;
	values[1] = Int32GetDatum(permit.slot);
	values[2] = permit.owner;
	values[3] = ObjectIdGetDatum(permit.role);
	values[4] = BoolGetDatum(permit.live);
	values[5] = TimestampTzGetDatum(permit.acquired_at);
	values[6] = TimestampTzGetDatum(permit.expires_at);
	values[7] = interval_datum(permit.left_us);
	values[8] = Int64GetDatum(permit.token);
	nulls[8] = !has_privs_of_role(GetUserId(), permit.role);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__semaphore_permits);

/* Rows of the view semaphore_permits. */
Datum
distsys__semaphore_permits(PG_FUNCTION_ARGS)
{
	return table_view(fcinfo, TABLE_SEMAPHORE_PERMIT, permit_columns);
}
