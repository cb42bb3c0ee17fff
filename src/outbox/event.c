/*
 * event.c: reading events, see event.h; outbox_read, the reader without state.
 */
#include "postgres.h"

#include "compat.h"

#include "core/result.h"
#include "outbox/event.h"
#include "outbox/topic.h"

int64
event_position(const OutboxEvent *event)
{
	return DatumGetInt64(event->values[EVENT_POSITION - 1]);
}

void
event_from_row(Relation rel, HeapTuple row, int first, OutboxEvent *event)
{
	for (int i = 0; i < EVENT_NATTS; i++)
		event->values[i] = row_get(rel, row, first + i, &event->nulls[i]);
}

void
event_columns(const OutboxEvent *event, Datum *values, bool *nulls)
{
	static const int order[EVENT_NOUT] = {EVENT_POSITION, EVENT_TOPIC, EVENT_ID, EVENT_TYPE, EVENT_KEY,
	EVENT_PAYLOAD, EVENT_BODY, EVENT_HEADERS, EVENT_OCCURRED_AT};

	for (int i = 0; i < EVENT_NOUT; i++)
	{
		values[i] = event->values[order[i] - 1];
		nulls[i] = event->nulls[order[i] - 1];
	}
}

void
event_to_copy(const OutboxEvent *event, const NameArg *group, int rest, Datum *values, bool *nulls)
{
	values[COPY_TOPIC - 1] = event->values[EVENT_TOPIC - 1];
	values[COPY_GROUP - 1] = group->datum;
	values[COPY_POSITION - 1] = event->values[EVENT_POSITION - 1];
	for (int column = EVENT_ID; column <= EVENT_NATTS; column++)
	{
		values[rest + column - EVENT_ID - 1] = event->values[column - 1];
		nulls[rest + column - EVENT_ID - 1] = event->nulls[column - 1];
	}
}

void
event_from_copy(Relation rel, HeapTuple row, int rest, OutboxEvent *event)
{
	event->values[EVENT_TOPIC - 1] = row_get(rel, row, COPY_TOPIC, &event->nulls[EVENT_TOPIC - 1]);
	event->values[EVENT_POSITION - 1] = row_get(rel, row, COPY_POSITION, &event->nulls[EVENT_POSITION - 1]);
	for (int column = EVENT_ID; column <= EVENT_NATTS; column++)
		event->values[column - 1] = row_get(rel, row, rest + column - EVENT_ID, &event->nulls[column - 1]);
}

bool
event_read(Datum topic, int64 position, OutboxEvent *event)
{
	Relation	rel = row_open_read(TABLE_OUTBOX_EVENT);
	Datum		key[2] = {topic, Int64GetDatum(position)};
	HeapTuple	row = row_read_latest(rel, key);

	if (row != NULL)
	{
		row_make_durable(row);
		event_from_row(rel, row, 1, event);
	}
	row_close(rel);
	return row != NULL;
}

bool
event_hidden_from_caller(Datum topic, int64 position)
{
	Relation	rel = row_open_read(TABLE_OUTBOX_EVENT);
	int64		after = position - 1;
	RowScan    *scan = row_scan_begin(rel, 1, &topic, &after);
	HeapTuple	row = row_scan_next(scan);
	bool		hidden = row != NULL && DatumGetInt64(row_get(rel, row, EVENT_POSITION, NULL)) == position &&
		!row_scan_caller_sees(scan);

	row_scan_end(scan);
	row_close(rel);
	return hidden;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_read);

/*
 * Settled events of a topic after a position. Stops at the first one that the
 * caller's own snapshot does not see: its rows could not be read either.
 */
Datum
distsys_outbox_read(PG_FUNCTION_ARGS)
{
	NameArg		topic = arg_name(fcinfo, 0, "topic", NAME_SHORT);
	int64		after = arg_int64(fcinfo, 1, "after", 0, PG_INT64_MAX);
	int32		left = arg_int32(fcinfo, 2, "max_events", 1, PG_INT32_MAX);
	int64		bound;
	int64		start;
	Relation	rel;
	RowScan    *scan;
	HeapTuple	row;

	topic_check(&topic);
	result_begin_set(fcinfo);
	bound = sequencer_settle();
	rel = row_open_read(TABLE_OUTBOX_EVENT);
	start = at_least(after, topic_removed_through(&topic));
	scan = row_scan_begin(rel, 1, &topic.datum, &start);
	/* after the snapshot: what it does not see any more is told about here */
	(void) topic_check_retained(&topic, after);
	while (left-- > 0 && (row = row_scan_next(scan)) != NULL)
	{
		OutboxEvent event;
		Datum		values[EVENT_NOUT];
		bool		nulls[EVENT_NOUT];

		event_from_row(rel, row, 1, &event);
		if (event_position(&event) > bound || !row_scan_caller_sees(scan))
			break;
		row_make_durable(row);
		event_columns(&event, values, nulls);
		result_put(fcinfo, values, nulls);
	}
	row_scan_end(scan);
	row_close(rel);
	return (Datum) 0;
}
