/*
 * dead_letter.c: table outbox_dead_letter, one row per (topic, group,
 * position), see dead_letter.h; outbox_redrive.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "compat.h"
#include "utils/array.h"
#include "utils/uuid.h"

#include "core/clock.h"
#include "core/keylock.h"
#include "core/stats.h"
#include "outbox/dead_letter.h"
#include "outbox/group.h"
#include "outbox/retry.h"
#include "store/row.h"

enum
{
	ATTR_ATTEMPTS = COPY_POSITION + 1,
	ATTR_DIED_AT,
	ATTR_REASON,
	ATTR_EVENT,					/* EVENT_ID and what follows */
	NATTS = ATTR_EVENT + EVENT_NATTS - EVENT_ID
};

void
dead_letter_put(const NameArg *group, const OutboxEvent *event, int32 attempts, Datum reason)
{
	Relation	rel = row_open_write(TABLE_OUTBOX_DEAD_LETTER, "outbox_reject()");
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	HeapTuple	old;

	event_to_copy(event, group, ATTR_EVENT, values, nulls);
	values[ATTR_ATTEMPTS - 1] = Int32GetDatum(attempts);
	values[ATTR_DIED_AT - 1] = TimestampTzGetDatum(clock_wall());
	values[ATTR_REASON - 1] = reason;
	nulls[ATTR_REASON - 1] = reason == (Datum) 0;
	/* after a seek back the same event can die again */
	old = row_read_locked(rel, values);
	if (old != NULL)
		row_delete(rel, old);
	row_insert(rel, values, nulls);
	row_close(rel);
	stats_add("outbox", name_cstring(arg_name_datum(values[COPY_TOPIC - 1], "topic", NAME_SHORT)), "dead", 1);
}

void
dead_letter_delete_all(const NameArg *topic, const NameArg *group)
{
	Datum		prefix[2] = {topic->datum, group->datum};

	row_delete_all(TABLE_OUTBOX_DEAD_LETTER, "outbox_group_drop()", 2, prefix);
}

/* ---- redrive ---- */

/* ids uuid[] or NULL: all */
static Datum *
arg_ids(FunctionCallInfo fcinfo, int argno, int *n)
{
	Datum	   *ids;
	bool	   *nulls;
	ArrayType  *array;

	*n = 0;
	if (PG_ARGISNULL(argno))
		return NULL;
	array = PG_GETARG_ARRAYTYPE_P(argno);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("ids must have one dimension")));
	deconstruct_array(array, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &ids, &nulls, n);
	for (int i = 0; i < *n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("ids must not contain null")));
	}
	return ids;
}

static bool
wanted(Datum id, const Datum *ids, int n)
{
	if (ids == NULL)
		return true;
	for (int i = 0; i < n; i++)
	{
		if (memcmp(DatumGetPointer(id), DatumGetPointer(ids[i]), UUID_LEN) == 0)
			return true;
	}
	return false;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_redrive);

/*
 * Moves dead letters to retry, due now, with no attempt counted; works when
 * retention has removed the event itself. After a seek back the group gets the event anyway, or has it in flight: then
 * the dead letter just goes, or the event would be delivered twice.
 */
Datum
distsys_outbox_redrive(PG_FUNCTION_ARGS)
{
	NameArg		topic = arg_name(fcinfo, 0, "topic", NAME_SHORT);
	NameArg		group = arg_name(fcinfo, 1, "group_name", NAME_SHORT);
	int			nids;
	Datum	   *ids = arg_ids(fcinfo, 2, &nids);
	int32		max_rows = arg_int32(fcinfo, 3, "max_rows", 1, PG_INT32_MAX);
	Datum		prefix[2] = {topic.datum, group.datum};
	GroupConfig config;
	Relation	rel = row_open_write(TABLE_OUTBOX_DEAD_LETTER, "outbox_redrive()");
	Relation	cursors = row_open_read(TABLE_OUTBOX_CURSOR);
	Cursor		cursor;
	LOCKTAG		tag;
	RowScan    *scan;
	HeapTuple	row;
	int32		moved = 0;

	group_get(&topic, &group, &config);
	group_tag(&tag, &topic, &group);
	(void) keylock_wait(&tag, ExclusiveLock, KEYLOCK_FOR_EVER);
	(void) cursor_read_locked(cursors, &topic, &group, &cursor);
	row_close(cursors);
	scan = row_scan_begin(rel, 2, prefix, NULL);
	while (moved < max_rows && (row = row_scan_next(scan)) != NULL)
	{
		OutboxEvent event;

		event_from_copy(rel, row, ATTR_EVENT, &event);
		if (!wanted(event.values[EVENT_ID - 1], ids, nids))
			continue;
		if (event_position(&event) <= cursor.fetched &&
			!deliveries_have(cursor.in_flight, cursor.nin_flight, event_position(&event)))
			retry_put(&group, &event, 0, clock_wall(), (Datum) 0);
		row_delete(rel, row);
		moved++;
	}
	row_scan_end(scan);
	row_close(rel);
	PG_RETURN_INT32(moved);
}
