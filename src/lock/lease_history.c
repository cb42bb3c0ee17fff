/*
 * lease_history.c: a ring of rows, see lease_history.h.
 *
 * Event number n has place n mod HISTORY_PLACES and is written over what was there, so the table does not grow. An event
 * commits or rolls back with what it tells about. Numbers are drawn without a flush: a crash may leave a place as it was.
 * It stands in nobody's way: where open transactions have all places, or this one may lock no more keys, a line is left out.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "core/counter.h"
#include "core/keylock.h"
#include "lock/lease_history.h"
#include "store/table_view.h"

/* A day with a takeover every minute and a half; 200 kB. */
#define HISTORY_PLACES 1000

enum
{
	ATTR_PLACE = 1,
	ATTR_NUMBER,
	ATTR_AT,
	ATTR_DOMAIN,
	ATTR_NAME,
	ATTR_EVENT,
	ATTR_OWNER,
	ATTR_ROLE,
	ATTR_TOKEN,
	ATTR_REASON,
	NATTS = ATTR_REASON
};

/* The next number whose place nobody is writing, locked. 0: they are all taken, or this transaction may lock no more. */
static int64
draw_place(Datum *place)
{
	for (int i = 0; i < HISTORY_PLACES && keylock_room() > 0; i++)
	{
		XLogRecPtr	lsn;
		int64		number = counter_draw(catalog_relid(SEQUENCE_LEASE_EVENT), 1, &lsn);
		LOCKTAG		tag;

		*place = Int32GetDatum((int32) (number % HISTORY_PLACES));
		keylock_tag(&tag, KEYLOCK_LEASE_EVENT, (const char *) place, sizeof(*place));
		if (keylock_try(&tag, ExclusiveLock))
			return number;
	}
	return 0;
}

void
lease_history_add(const LeaseKind *kind, const NameArg *name, const char *event, const Lease *lease, const char *reason)
{
	Relation	rel = row_open_write(TABLE_LEASE_EVENT, "lease history");
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS];
	HeapTuple	row;
	int64		number;

	number = draw_place(&values[ATTR_PLACE - 1]);
	if (number == 0)
	{
		row_close_unwritten(rel);
		return;
	}
	values[ATTR_NUMBER - 1] = Int64GetDatum(number);
	values[ATTR_AT - 1] = TimestampTzGetDatum(clock_wall());
	values[ATTR_DOMAIN - 1] = CStringGetTextDatum(kind->domain);
	values[ATTR_NAME - 1] = name->datum;
	values[ATTR_EVENT - 1] = CStringGetTextDatum(event);
	values[ATTR_OWNER - 1] = lease->owner;
	values[ATTR_ROLE - 1] = ObjectIdGetDatum(lease->role);
	values[ATTR_TOKEN - 1] = Int64GetDatum(lease->token);
	nulls[ATTR_REASON - 1] = reason == NULL;
	values[ATTR_REASON - 1] = reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason);
	memset(replace, true, sizeof(replace));
	row = row_read_locked(rel, &values[ATTR_PLACE - 1]);
	if (row == NULL)
		row_insert(rel, values, nulls);
	else
		row_update(rel, row, values, nulls, replace);
	row_close(rel);
}

static void
view_columns(Relation rel, HeapTuple row, Datum *values, bool *nulls)
{
	Datum		in[NATTS];
	bool		in_nulls[NATTS];

	heap_deform_tuple(row, RelationGetDescr(rel), in, in_nulls);
	values[0] = in[ATTR_NUMBER - 1];
	values[1] = in[ATTR_AT - 1];
	values[2] = in[ATTR_DOMAIN - 1];
	values[3] = in[ATTR_NAME - 1];
	values[4] = in[ATTR_EVENT - 1];
	values[5] = in[ATTR_OWNER - 1];
	values[6] = in[ATTR_TOKEN - 1];
	nulls[6] = !has_privs_of_role(GetUserId(), DatumGetObjectId(in[ATTR_ROLE - 1]));
	values[7] = in[ATTR_REASON - 1];
	nulls[7] = in_nulls[ATTR_REASON - 1];
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__lease_history);

/* Rows (number, at, domain, name, event, owner, token, reason); the token for roles with the rights of the holder's. */
Datum
distsys__lease_history(PG_FUNCTION_ARGS)
{
	return table_view(fcinfo, TABLE_LEASE_EVENT, view_columns);
}
