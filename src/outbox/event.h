/*
 * event.h: one event, wherever it is stored.
 */
#ifndef DISTSYS_EVENT_H
#define DISTSYS_EVENT_H

#include "core/arg.h"
#include "store/row.h"
#include "store/sequencer.h"

/* A NULL column is nulls[i]; index by EVENT_* - 1. Datums point into memory of the current context. */
typedef struct OutboxEvent
{
	Datum		values[EVENT_NATTS];
	bool		nulls[EVENT_NATTS];
} OutboxEvent;

extern int64 event_position(const OutboxEvent *event);
/* From a row whose columns `first` .. `first` + EVENT_NATTS - 1 are the event's. */
extern void event_from_row(Relation rel, HeapTuple row, int first, OutboxEvent *event);
/* The columns of row type outbox_event, which begin those of outbox_delivery too. */
#define EVENT_NOUT 9
extern void event_columns(const OutboxEvent *event, Datum *values, bool *nulls);
/*
 * Tables that keep a copy of an event begin with (topic, group_name, position);
 * EVENT_ID and what follows stand from column `rest` on.
 */
#define COPY_TOPIC 1
#define COPY_GROUP 2
#define COPY_POSITION 3
extern void event_to_copy(const OutboxEvent *event, const NameArg *group, int rest, Datum *values, bool *nulls);
extern void event_from_copy(Relation rel, HeapTuple row, int rest, OutboxEvent *event);
/* Reads one event of the log; false: it is gone. What is read is durable. */
extern bool event_read(Datum topic, int64 position, OutboxEvent *event);
/* Is the event newer than the caller's own snapshot? Then its rows could not be read either. */
extern bool event_hidden_from_caller(Datum topic, int64 position);

#endif							/* DISTSYS_EVENT_H */
