/*
 * lease_view.c: who has leases and who waits for them.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "core/result.h"
#include "core/waitlist.h"
#include "lock/lease_row.h"
#include "store/table_view.h"

static void
lease_columns(Relation rel, HeapTuple row, Datum *values, bool *nulls)
{
	ClockReading now = clock_read();
	Lease		lease;

	lease_from_row(rel, row, &now, &lease);
	values[0] = lease.name;
	values[1] = lease.owner;
	values[2] = ObjectIdGetDatum(lease.role);
	values[3] = CStringGetTextDatum(lease.shared ? "shared" : "exclusive");
	values[4] = BoolGetDatum(lease.live);
	values[5] = TimestampTzGetDatum(lease.acquired_at);
	values[6] = TimestampTzGetDatum(lease.expires_at);
	values[7] = interval_datum(lease.left_us);
	values[8] = Int64GetDatum(lease.token);
	nulls[8] = !has_privs_of_role(GetUserId(), lease.role);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__leases);

/* Rows of the view leases. */
Datum
distsys__leases(PG_FUNCTION_ARGS)
{
	return table_view(fcinfo, TABLE_LEASE, lease_columns);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__waiters);

/* Rows (name, owner, position, waited, pid) of those who wait in a key lock space; none without shared memory. */
Datum
distsys__waiters(PG_FUNCTION_ARGS)
{
	int32		space = arg_int32(fcinfo, 0, "space", KEYLOCK_XACT, PG_INT32_MAX);
	int			n;
	WaitlistEntry *entries = waitlist_entries(space, &n);
	TimestampTz now = GetCurrentTimestamp();

	result_begin_set(fcinfo);
	for (int i = 0; i < n; i++)
	{
		Datum		values[5];
		bool		nulls[5] = {false};

		values[0] = CStringGetTextDatum(entries[i].name);
		values[1] = CStringGetTextDatum(entries[i].owner);
		values[2] = Int32GetDatum(entries[i].position);
		values[3] = interval_datum(Max(now - entries[i].since, 0));
		values[4] = Int32GetDatum(entries[i].pid);
		result_put(fcinfo, values, nulls);
	}
	return (Datum) 0;
}
