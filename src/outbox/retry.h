/*
 * retry.h: events that wait for another attempt, with a copy of the event.
 */
#ifndef DISTSYS_RETRY_H
#define DISTSYS_RETRY_H

#include "core/arg.h"
#include "outbox/event.h"

typedef struct RetryEntry
{
	OutboxEvent event;
	int32		attempts;		/* made so far */
	TimestampTz next_at;
} RetryEntry;

/* All under the group's key lock. */
extern void retry_put(const NameArg *group, const OutboxEvent *event, int32 attempts, TimestampTz next_at, Datum reason);
extern bool retry_read(const NameArg *topic, const NameArg *group, int64 position, OutboxEvent *event);
extern void retry_delete(const NameArg *topic, const NameArg *group, int64 position);
extern void retry_delete_all(const NameArg *topic, const NameArg *group);
/* Up to max entries that are due and for which skip(position, arg) is false, in the order of positions. */
extern int	retry_due(const NameArg *topic, const NameArg *group, TimestampTz now, int max,
					  bool (*skip) (int64 position, void *arg), void *arg, RetryEntry *entries);

#endif							/* DISTSYS_RETRY_H */
