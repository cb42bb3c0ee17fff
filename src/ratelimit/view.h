/*
 * view.h: what the views rate_limits and rate_limit_hot_keys show.
 */
#ifndef DISTSYS_RATE_VIEW_H
#define DISTSYS_RATE_VIEW_H

#include "ratelimit/limiter.h"

/* One limit in use, as the view rate_limits shows it. */
typedef struct RateEntry
{
	Datum		policy;			/* text */
	Datum		key;			/* text; 0: not known by name */
	bool		shared;
	const LimitRule *rule;		/* by which it was counted last */
	int64		remaining;
	int64		reset_us;
	TimestampTz blocked_until;	/* wall clock; 0: not */
	Datum		blocked_reason;	/* text; 0: none */
	TimestampTz used_at;		/* wall clock */
	int64		uses;			/* shared: about how often in the last minutes */
} RateEntry;

typedef void (*RateVisit) (const RateEntry *entry, void *arg);

/* The name of an algorithm. */
extern const char *algorithm_name(LimitAlgorithm algorithm);

#endif							/* DISTSYS_RATE_VIEW_H */
