/*
 * lease_row.c: rows of leases: what they say, how they are read and when they go.
 *
 * Reading takes no lock and works on a standby. The sweep removes a row under
 * the NAME lock that every grant takes, so a name that is pinned or being granted is skipped.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/builtins.h"

#include "lock/lease_pin.h"
#include "lock/lease_row.h"
#include "store/token.h"

/* Two clocks that are read one after the other, and slewed, tell the same time. */
#define CLOCK_AGREES (100 * MILLISECONDS)

/* A dead row is kept this long: the next acquire of the name updates it in place. */
#define SWEEP_AFTER (60 * SECONDS)

const LeaseKind lease_kind = {
	.table = TABLE_LEASE,
	.name_space = KEYLOCK_LEASE_NAME,
	.grant_space = KEYLOCK_LEASE_GRANT,
	.domain = "lease",
	.acquire_call = "lease_acquire()",
	.set_data_call = "lease_set_data()",
	.noun = "lease",
	.token_noun = "token"
};

/* ---- what a row says ---- */

static void
read_columns(const Datum *values, const bool *nulls, Lease *lease)
{
	lease->name = values[ATTR_NAME - 1];
	lease->slot = DatumGetInt64(values[ATTR_SLOT - 1]);
	lease->owner = values[ATTR_OWNER - 1];
	lease->role = DatumGetObjectId(values[ATTR_ROLE - 1]);
	lease->shared = lease->slot != EXCLUSIVE_SLOT;
	lease->token = DatumGetInt64(values[ATTR_TOKEN - 1]);
	lease->ttl_us = DatumGetInt64(values[ATTR_TTL_US - 1]);
	lease->acquired_at = DatumGetTimestampTz(values[ATTR_ACQUIRED_AT - 1]);
	lease->deadline.wall = DatumGetTimestampTz(values[ATTR_EXPIRES_AT - 1]);
	lease->deadline.boot = DatumGetInt64(values[ATTR_EXPIRES_BOOT - 1]);
	lease->deadline.id = DatumGetInt64(values[ATTR_CLOCK_ID - 1]);
	lease->grant_xid = DatumGetInt64(values[ATTR_GRANT_XID - 1]);
	lease->released = DatumGetBool(values[ATTR_RELEASED - 1]);
	lease->broken = DatumGetBool(values[ATTR_BROKEN - 1]);
	lease->has_hold = !nulls[ATTR_MIN_HOLD_UNTIL - 1];
	if (lease->has_hold)
	{
		lease->hold.wall = DatumGetTimestampTz(values[ATTR_MIN_HOLD_UNTIL - 1]);
		lease->hold.boot = DatumGetInt64(values[ATTR_MIN_HOLD_BOOT - 1]);
		lease->hold.id = lease->deadline.id;
	}
	lease->has_request = !nulls[ATTR_REQUEST_ID - 1];
	if (lease->has_request)
		lease->request_id = *DatumGetUUIDP(values[ATTR_REQUEST_ID - 1]);
	lease->data = nulls[ATTR_DATA - 1] ? (Datum) 0 : PointerGetDatum(PG_DETOAST_DATUM(values[ATTR_DATA - 1]));
	lease->has_session = !nulls[ATTR_SESSION_ID - 1];
	if (lease->has_session)
		lease->session_id = *DatumGetUUIDP(values[ATTR_SESSION_ID - 1]);
	lease->step_down = !nulls[ATTR_STEP_DOWN - 1];
	lease->successor = nulls[ATTR_SUCCESSOR - 1] ? (Datum) 0 : values[ATTR_SUCCESSOR - 1];
}

static void
judge(const ClockReading *now, Lease *lease)
{
	bool		of_this_database = lease->token >= token_lease_floor();
	int64		left_us = deadline_left(&lease->deadline, now);

	/* a renewal that the promoted server never received may have prolonged it */
	if (!lease->broken)
		left_us = at_least(left_us, token_promoted_left(now, lease->ttl_us));
	lease->live = !lease->released && left_us > 0 && of_this_database;
	lease->left_us = lease->live ? left_us : 0;
	lease->hold_left_us = lease->has_hold && of_this_database ? at_least(deadline_left(&lease->hold, now), 0) : 0;
	lease->expires_at = lease->deadline.wall;
	/* somebody has set the wall clock since, or it lasts longer after a promotion */
	if (lease->live && llabs(now->wall + left_us - lease->deadline.wall) > CLOCK_AGREES)
		lease->expires_at = now->wall + left_us;
}

void
lease_from_row(Relation rel, HeapTuple row, const ClockReading *now, Lease *lease)
{
	Datum		values[NATTS_MAX];
	bool		nulls[NATTS_MAX];

	Assert(RelationGetNumberOfAttributes(rel) <= NATTS_MAX);
	memset(nulls, true, sizeof(nulls));
	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	memset(lease, 0, sizeof(*lease));
	read_columns(values, nulls, lease);
	judge(now, lease);
}

/* ---- names of locks ---- */

void
lease_name_tag(const LeaseKind *kind, LOCKTAG *tag, const NameArg *name)
{
	keylock_tag(tag, kind->name_space, name->data, name->len);
}

void
lease_intent_tag(const LeaseKind *kind, LOCKTAG *tag, const NameArg *name)
{
	keylock_tag2(tag, KEYLOCK_LEASE_INTENT, kind->domain, strlen(kind->domain), name->data, name->len);
}

void
lease_grant_tag(const LeaseKind *kind, LOCKTAG *tag, const NameArg *name, int64 token)
{
	keylock_tag_num(tag, kind->grant_space, name->data, name->len, token);
}

void
lease_slot_tag(const LeaseKind *kind, LOCKTAG *tag, const NameArg *name, int64 slot)
{
	keylock_tag_num(tag, kind->grant_space, name->data, name->len, slot);
}

/* ---- reading ---- */

static void
make_key(const NameArg *name, int64 slot, Datum *key)
{
	key[0] = name->datum;
	key[1] = Int64GetDatum(slot);
}

HeapTuple
lease_read_locked(Relation rel, const NameArg *name, int64 slot, Lease *lease, ClockReading *now)
{
	Datum		key[2];
	HeapTuple	row;

	memset(lease, 0, sizeof(*lease));
	make_key(name, slot, key);
	row = row_read_locked(rel, key);
	*now = clock_read();
	if (row != NULL)
		lease_from_row(rel, row, now, lease);
	return row;
}

HeapTuple
lease_read_latest(Relation rel, const NameArg *name, int64 slot, Lease *lease)
{
	Datum		key[2];
	HeapTuple	row;
	ClockReading now;

	memset(lease, 0, sizeof(*lease));
	make_key(name, slot, key);
	row = row_read_latest(rel, key);
	if (row == NULL)
		return NULL;
	now = clock_read();
	lease_from_row(rel, row, &now, lease);
	return row;
}

RowScan *
lease_scan_shared(Relation rel, const NameArg *name)
{
	int64		after = EXCLUSIVE_SLOT;

	return row_scan_begin(rel, 1, &name->datum, &after);
}

HeapTuple
lease_find(Relation rel, const NameArg *name, int64 token, Lease *lease)
{
	HeapTuple	row = lease_read_latest(rel, name, EXCLUSIVE_SLOT, lease);
	HeapTuple	found = NULL;
	RowScan    *scan;

	if (row != NULL && lease->token == token)
		return row;
	scan = lease_scan_shared(rel, name);
	while (found == NULL && (row = row_scan_next(scan)) != NULL)
	{
		if (DatumGetInt64(row_get(rel, row, ATTR_TOKEN, NULL)) == token)
			found = heap_copytuple(row);
	}
	row_scan_end(scan);
	if (found != NULL)
	{
		ClockReading now = clock_read();

		lease_from_row(rel, found, &now, lease);
	}
	return found;
}

Lease *
lease_read(const LeaseKind *kind, const NameArg *name, int *n)
{
	Relation	rel = row_open_read(kind->table);
	RowScan    *scan = row_scan_begin(rel, 1, &name->datum, NULL);
	Lease	   *leases = palloc(sizeof(Lease));
	int			size = 1;
	HeapTuple	row;

	*n = 0;
	while ((row = row_scan_next(scan)) != NULL)
	{
		ClockReading now = clock_read();

		if (*n == size)
			leases = repalloc(leases, (size *= 2) * sizeof(Lease));
		lease_from_row(rel, heap_copytuple(row), &now, &leases[(*n)++]);
	}
	row_scan_end(scan);
	row_close(rel);
	return leases;
}

/* ---- changing ---- */

void
lease_change_set(LeaseChange *change, int attnum, Datum value)
{
	change->values[attnum - 1] = value;
	change->nulls[attnum - 1] = false;
	change->replace[attnum - 1] = true;
}

void
lease_change_null(LeaseChange *change, int attnum)
{
	change->nulls[attnum - 1] = true;
	change->replace[attnum - 1] = true;
}

void
lease_change_deadline(LeaseChange *change, const Lease *lease, const ClockReading *now, const Deadline *deadline)
{
	lease_change_set(change, ATTR_EXPIRES_AT, TimestampTzGetDatum(deadline->wall));
	lease_change_set(change, ATTR_EXPIRES_BOOT, Int64GetDatum(deadline->boot));
	lease_change_set(change, ATTR_CLOCK_ID, Int64GetDatum(deadline->id));
	if (lease->has_hold && lease->hold.id != deadline->id)
	{
		Deadline	hold = deadline_after(now, Max(lease->hold_left_us, 0));

		lease_change_set(change, ATTR_MIN_HOLD_UNTIL, TimestampTzGetDatum(hold.wall));
		lease_change_set(change, ATTR_MIN_HOLD_BOOT, Int64GetDatum(hold.boot));
	}
}

void
lease_grant_columns(const Lease *lease, const pg_uuid_t *request_id, const pg_uuid_t *session_id, LeaseChange *change)
{
	memset(change, 0, sizeof(*change));
	memset(change->nulls, true, sizeof(change->nulls));
	memset(change->replace, true, sizeof(change->replace));
	lease_change_set(change, ATTR_NAME, lease->name);
	lease_change_set(change, ATTR_SLOT, Int64GetDatum(lease->slot));
	lease_change_set(change, ATTR_OWNER, lease->owner);
	lease_change_set(change, ATTR_ROLE, ObjectIdGetDatum(lease->role));
	lease_change_set(change, ATTR_MODE, CStringGetTextDatum(lease->shared ? "shared" : "exclusive"));
	lease_change_set(change, ATTR_TOKEN, Int64GetDatum(lease->token));
	lease_change_set(change, ATTR_TTL_US, Int64GetDatum(lease->ttl_us));
	lease_change_set(change, ATTR_ACQUIRED_AT, TimestampTzGetDatum(lease->acquired_at));
	lease_change_set(change, ATTR_EXPIRES_AT, TimestampTzGetDatum(lease->deadline.wall));
	lease_change_set(change, ATTR_EXPIRES_BOOT, Int64GetDatum(lease->deadline.boot));
	lease_change_set(change, ATTR_CLOCK_ID, Int64GetDatum(lease->deadline.id));
	lease_change_set(change, ATTR_GRANT_XID, Int64GetDatum(lease->grant_xid));
	lease_change_set(change, ATTR_RELEASED, BoolGetDatum(false));
	lease_change_set(change, ATTR_BROKEN, BoolGetDatum(false));
	if (lease->has_hold)
	{
		lease_change_set(change, ATTR_MIN_HOLD_UNTIL, TimestampTzGetDatum(lease->hold.wall));
		lease_change_set(change, ATTR_MIN_HOLD_BOOT, Int64GetDatum(lease->hold.boot));
	}
	if (request_id != NULL)
		lease_change_set(change, ATTR_REQUEST_ID, UUIDPGetDatum(request_id));
	if (lease->data != (Datum) 0)
		lease_change_set(change, ATTR_DATA, lease->data);
	if (session_id != NULL)
		lease_change_set(change, ATTR_SESSION_ID, UUIDPGetDatum(session_id));
}

/* ---- housekeeping ---- */

static bool
lease_dead(Relation rel, HeapTuple row, void *arg)
{
	ClockReading now = clock_read();
	Lease		lease;

	lease_from_row(rel, row, &now, &lease);
	/* by both measures, so that a stepped clock removes nothing early */
	return !lease.live && lease.hold_left_us == 0 && lease.acquired_at + lease.ttl_us + SWEEP_AFTER < now.wall &&
		lease.deadline.wall + SWEEP_AFTER < now.wall;
}

static void
lease_row_tag(Relation rel, HeapTuple row, LOCKTAG *tag, void *arg)
{
	NameArg		name = arg_name_datum(row_get(rel, row, ATTR_NAME, NULL), "name", NAME_LONG);

	lease_name_tag((const LeaseKind *) arg, tag, &name);
}

void
lease_sweep_kind(const LeaseKind *kind, JobSlice *slice)
{
	RowSweep	sweep = {.dead = lease_dead, .tag = lease_row_tag, .arg = (void *) kind};
	Relation	rel = row_open_write(kind->table, psprintf("%s_sweep()", kind->domain));

	sweep_slice(rel, &sweep, slice);
	row_close(rel);
}

void
lease_sweep(JobSlice *slice)
{
	/* after a promotion the worker is the first to see it: the delay of new grants counts from here */
	(void) token_epoch();
	lease_sweep_kind(&lease_kind, slice);
}

void
lease_init(void)
{
	token_register_ttl(TABLE_LEASE, ATTR_TTL_US);
	lease_pin_init();
}
