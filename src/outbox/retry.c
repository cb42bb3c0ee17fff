/*
 * retry.c: table outbox_retry, one row per (topic, group, position), see
 * retry.h. A row stays while the event is in flight again and goes when that is acknowledged.
 */
#include "postgres.h"

#include "compat.h"

#include "outbox/retry.h"
#include "store/row.h"

/* Key, state, then a copy of the event's columns without topic and position. */
enum
{
	ATTR_ATTEMPTS = COPY_POSITION + 1,
	ATTR_NEXT_AT,
	ATTR_REASON,
	ATTR_EVENT,					/* EVENT_ID and what follows */
	NATTS = ATTR_EVENT + EVENT_NATTS - EVENT_ID
};

static HeapTuple
read_locked(Relation rel, Datum topic, const NameArg *group, int64 position)
{
	Datum		key[3] = {topic, group->datum, Int64GetDatum(position)};

	return row_read_locked(rel, key);
}

void
retry_put(const NameArg *group, const OutboxEvent *event, int32 attempts, TimestampTz next_at, Datum reason)
{
	Relation	rel = row_open_write(TABLE_OUTBOX_RETRY, "outbox_nack()");
	HeapTuple	old = read_locked(rel, event->values[EVENT_TOPIC - 1], group, event_position(event));
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS] = {false, false, false, true, true, true};

	event_to_copy(event, group, ATTR_EVENT, values, nulls);
	values[ATTR_ATTEMPTS - 1] = Int32GetDatum(attempts);
	values[ATTR_NEXT_AT - 1] = TimestampTzGetDatum(next_at);
	values[ATTR_REASON - 1] = reason;
	nulls[ATTR_REASON - 1] = reason == (Datum) 0;
	if (old == NULL)
		row_insert(rel, values, nulls);
	else
		row_update(rel, old, values, nulls, replace);
	row_close(rel);
}

bool
retry_read(const NameArg *topic, const NameArg *group, int64 position, OutboxEvent *event)
{
	Relation	rel = row_open_read(TABLE_OUTBOX_RETRY);
	HeapTuple	row = read_locked(rel, topic->datum, group, position);

	if (row != NULL)
		event_from_copy(rel, row, ATTR_EVENT, event);
	row_close(rel);
	return row != NULL;
}

void
retry_delete(const NameArg *topic, const NameArg *group, int64 position)
{
	Relation	rel = row_open_write(TABLE_OUTBOX_RETRY, "outbox_ack()");
	HeapTuple	row = read_locked(rel, topic->datum, group, position);

	if (row != NULL)
		row_delete(rel, row);
	row_close(rel);
}

void
retry_delete_all(const NameArg *topic, const NameArg *group)
{
	Datum		prefix[2] = {topic->datum, group->datum};

	row_delete_all(TABLE_OUTBOX_RETRY, "outbox_seek()", 2, prefix);
}

int
retry_due(const NameArg *topic, const NameArg *group, TimestampTz now, int max,
		  bool (*skip) (int64 position, void *arg), void *arg, RetryEntry *entries)
{
	Relation	rel = row_open_read(TABLE_OUTBOX_RETRY);
	Datum		prefix[2] = {topic->datum, group->datum};
	RowScan    *scan = row_scan_begin(rel, 2, prefix, NULL);
	HeapTuple	row;
	int			n = 0;

	while (n < max && (row = row_scan_next(scan)) != NULL)
	{
		RetryEntry *entry = &entries[n];

		entry->next_at = DatumGetTimestampTz(row_get(rel, row, ATTR_NEXT_AT, NULL));
		if (entry->next_at > now || skip(DatumGetInt64(row_get(rel, row, COPY_POSITION, NULL)), arg))
			continue;
		entry->attempts = DatumGetInt32(row_get(rel, row, ATTR_ATTEMPTS, NULL));
		event_from_copy(rel, heap_copytuple(row), ATTR_EVENT, &entry->event);	/* outlives the scan */
		n++;
	}
	row_scan_end(scan);
	row_close(rel);
	return n;
}
