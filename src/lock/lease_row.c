/*
 * lease_row.c: rows of leases: what they say, how they are read and when they go.
 *
 * Reading takes no lock and works on a standby. The sweep removes a row under
 * the NAME lock that every grant takes, so a name that is pinned or being granted is skipped.
 */
#include "postgres.h"

#include "compat.h"

#include "lock/lease_row.h"
#include "store/token.h"

/* Two clocks that are read one after the other, and slewed, tell the same time. */
#define CLOCK_AGREES (100 * MILLISECONDS)

/* A dead row is kept this long: the next acquire of the name updates it in place. */
#define SWEEP_AFTER (60 * SECONDS)

void
lease_from_row(Relation rel, HeapTuple row, const ClockReading *now, Lease *lease)
{
	Datum		values[NATTS];
	bool		nulls[NATTS];

	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	lease->name = values[ATTR_NAME - 1];
	lease->owner = values[ATTR_OWNER - 1];
	lease->role = DatumGetObjectId(values[ATTR_ROLE - 1]);
	lease->token = DatumGetInt64(values[ATTR_TOKEN - 1]);
	lease->ttl_us = DatumGetInt64(values[ATTR_TTL_US - 1]);
	lease->acquired_at = DatumGetTimestampTz(values[ATTR_ACQUIRED_AT - 1]);
	lease->deadline.wall = DatumGetTimestampTz(values[ATTR_EXPIRES_AT - 1]);
	lease->deadline.boot = DatumGetInt64(values[ATTR_EXPIRES_BOOT - 1]);
	lease->deadline.id = DatumGetInt64(values[ATTR_CLOCK_ID - 1]);
	lease->grant_xid = DatumGetInt64(values[ATTR_GRANT_XID - 1]);
	lease->has_request = !nulls[ATTR_REQUEST_ID - 1];
	if (lease->has_request)
		lease->request_id = *DatumGetUUIDP(values[ATTR_REQUEST_ID - 1]);

	lease->left_us = deadline_left(&lease->deadline, now);
	lease->live = !DatumGetBool(values[ATTR_RELEASED - 1]) && lease->left_us > 0 &&
		lease->token >= token_lease_floor();
	if (!lease->live)
		lease->left_us = 0;
	lease->expires_at = lease->deadline.wall;
	/* somebody has set the wall clock since */
	if (lease->live && llabs(now->wall + lease->left_us - lease->deadline.wall) > CLOCK_AGREES)
		lease->expires_at = now->wall + lease->left_us;
}

void
lease_row_key(const NameArg *name, Datum *key)
{
	key[0] = name->datum;
	key[1] = Int32GetDatum(EXCLUSIVE_SLOT);
}

void
lease_name_tag(LOCKTAG *tag, const NameArg *name)
{
	keylock_tag(tag, KEYLOCK_LEASE_NAME, name->data, name->len);
}

bool
lease_read_latest(Relation rel, const NameArg *name, Lease *lease)
{
	Datum		key[2];
	HeapTuple	row;
	ClockReading now;

	lease_row_key(name, key);
	row = row_read_latest(rel, key);
	if (row == NULL)
		return false;
	now = clock_read();
	lease_from_row(rel, row, &now, lease);
	return true;
}

bool
lease_read(const NameArg *name, Lease *lease)
{
	Relation	rel = row_open_read(TABLE_LEASE);
	bool		found = lease_read_latest(rel, name, lease);

	row_close(rel);
	return found;
}

void
lease_deadline_values(const Deadline *deadline, Datum *values)
{
	values[ATTR_EXPIRES_AT - 1] = TimestampTzGetDatum(deadline->wall);
	values[ATTR_EXPIRES_BOOT - 1] = Int64GetDatum(deadline->boot);
	values[ATTR_CLOCK_ID - 1] = Int64GetDatum(deadline->id);
}

/* ---- housekeeping ---- */

static bool
lease_dead(Relation rel, HeapTuple row, void *arg)
{
	ClockReading now = clock_read();
	Lease		lease;

	lease_from_row(rel, row, &now, &lease);
	/* by both measures, so that a stepped clock removes nothing early */
	return !lease.live && lease.acquired_at + lease.ttl_us + SWEEP_AFTER < now.wall &&
		lease.deadline.wall + SWEEP_AFTER < now.wall;
}

static void
lease_row_tag(Relation rel, HeapTuple row, LOCKTAG *tag, void *arg)
{
	NameArg		name = arg_name_datum(row_get(rel, row, ATTR_NAME, NULL), "name", NAME_LONG);

	lease_name_tag(tag, &name);
}

void
lease_sweep(JobSlice *slice)
{
	static const RowSweep sweep = {.dead = lease_dead, .tag = lease_row_tag};
	Relation	rel = row_open_write(TABLE_LEASE, "lease_sweep()");

	sweep_slice(rel, &sweep, slice);
	row_close(rel);
}
