/*
 * retention.c: removes old events, see retention.h.
 *
 * Events go from the front of their topic, in the order of positions, and
 * outbox_retained learns how far; a reader that is behind is told. A group
 * that is behind keeps what it has not settled. This is the one place that removes
 * events: a ring of tables that are truncated can take its place.
 */
#include "postgres.h"

#include "compat.h"

#include "core/clock.h"
#include "outbox/group.h"
#include "outbox/retention.h"
#include "outbox/topic.h"
#include "store/row.h"
#include "store/sequencer.h"

/* What may be removed of one topic. */
typedef struct Horizon
{
	TimestampTz before;			/* events that happened before this */
	int64		below;			/* and whose position is lower */
} Horizon;

/* Nothing above the settled bound: an event below it may still appear, and would count as removed. */
static Horizon
horizon_of(const NameArg *topic, TimestampTz now, int64 settled)
{
	Horizon		horizon = {.before = DT_NOEND, .below = settled + 1};
	int64		retention_us;

	if (topic_retention(topic, &retention_us))
	{
		horizon.before = now - retention_us;
		horizon.below = at_most(horizon.below, cursor_lowest(topic));
	}
	else						/* only what its drop gave up: else the topic's row has yet to come, from a dump or a publisher of rows */
		horizon.below = at_most(horizon.below, topic_removed_through(topic) + 1);
	return horizon;
}

/* Removes up to max events of a topic; returns how many. */
static int64
trim_topic(Relation rel, const NameArg *topic, TimestampTz now, int64 settled, int64 max)
{
	Horizon		horizon;
	RowScan    *scan;
	HeapTuple	row;
	int64		removed = 0;
	int64		through = 0;

	if (!topic_try_lock(topic))
		return 0;				/* an open transaction configures or seeks: next time */
	horizon = horizon_of(topic, now, settled);
	scan = row_scan_begin(rel, 1, &topic->datum, NULL);
	while (removed < max && (row = row_scan_next(scan)) != NULL)
	{
		int64		position = DatumGetInt64(row_get(rel, row, EVENT_POSITION, NULL));

		if (position >= horizon.below ||
			DatumGetTimestampTz(row_get(rel, row, EVENT_OCCURRED_AT, NULL)) >= horizon.before)
			break;
		through = position;
		row_delete(rel, row);
		removed++;
	}
	row_scan_end(scan);
	if (removed > 0)
		topic_set_removed_through(topic, through);
	else
		topic_unlock(topic);	/* or there would be as many locks as topics */
	return removed;
}

/* The first topic in the event log after `after` (NULL: the first of all); false: there is none. Skips from topic to topic. */
static bool
next_topic(Relation rel, const NameArg *after, NameArg *next)
{
	RowScan    *scan = row_scan_begin_above(rel, after == NULL ? (Datum) 0 : after->datum);
	HeapTuple	row = row_scan_next(scan);

	if (row != NULL)
	{
		row = heap_copytuple(row);
		*next = arg_name_datum(row_get(rel, row, EVENT_TOPIC, NULL), "topic", NAME_SHORT);
	}
	row_scan_end(scan);
	return row != NULL;
}

void
outbox_retention(JobSlice *slice)
{
	Relation	rel = row_open_write(TABLE_OUTBOX_EVENT, "outbox_retention()");
	TimestampTz now = clock_wall();
	int64		settled = sequencer_settle();
	NameArg		topic;
	bool		found = next_topic(rel, NULL, &topic);

	slice->rows_removed = 0;
	while (found && slice->rows_removed < slice->max_rows)
	{
		slice->rows_removed += trim_topic(rel, &topic, now, settled, slice->max_rows - slice->rows_removed);
		found = next_topic(rel, &topic, &topic);
	}
	row_close(rel);
	slice->block = 0;
	slice->more = slice->rows_removed >= slice->max_rows;
}

void
outbox_settle(JobSlice *slice)
{
	slice->rows_removed = 0;
	slice->more = false;
	slice->block = 0;
	sequencer_record(sequencer_settle());
}
