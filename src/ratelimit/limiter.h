/*
 * limiter.h: takes from rate limits, one or several at once.
 */
#ifndef DISTSYS_LIMITER_H
#define DISTSYS_LIMITER_H

#include "access/htup.h"

#include "core/keylock.h"
#include "ratelimit/policy.h"

typedef enum RateReason
{
	RATE_OK,
	RATE_LIMITED,
	RATE_COST_EXCEEDS_LIMIT,
	RATE_CONTENDED,				/* another transaction holds the bucket for too long */
	RATE_SHADOWED,				/* would have been limited */
	RATE_IS_DISABLED
} RateReason;

/* One limit of a call: the first group is the request, the rest the answer. */
typedef struct RateTake
{
	NameArg		policy;
	NameArg		key;
	int64		cost;

	bool		allowed;		/* the verdict of the whole call */
	bool		within;			/* this limit's own */
	RateReason	reason;
	BucketVerdict verdict;		/* after the take, when it was applied */
	bool		never;			/* more than the bucket holds: retrying cannot help */
	TimestampTz decided_at;		/* read under the lock; never earlier than the take before */
	RatePolicy	config;

	/* internal */
	LOCKTAG		tag;
	int			ord;
	bool		locked;			/* holds the key lock and has not written */
	bool		stepped;		/* the clock was set back since the row was written */
	HeapTuple	row;
	BucketState state;
} RateTake;

/* All or nothing. Answers stay in the order of the request. 25001, 22023 (the same limit twice), 42704. */
extern void limiter_take(RateTake *takes, int n);
/* Looks only: no lock, nothing written, works on a standby. */
extern void limiter_peek(RateTake *takes, int n);
/* The bucket is full again; false: it was. */
extern bool limiter_reset(const NameArg *policy, const NameArg *key);

#endif							/* DISTSYS_LIMITER_H */
