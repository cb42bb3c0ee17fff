/*
 * durable.h: the state of a limit as a row of rate_limit_bucket, one per
 * (policy, key); no row is a full bucket. The row says by which rule its
 * state was counted, so that a change of the policy can carry it over.
 */
#ifndef DISTSYS_RATE_DURABLE_H
#define DISTSYS_RATE_DURABLE_H

#include "utils/rel.h"

#include "ratelimit/limiter.h"
#include "ratelimit/view.h"
#include "store/sweep.h"

/* Fills the answer of `take` from the newest state, at `now`. The key lock is held in Exclusive mode. */
extern void durable_judge_locked(Relation rel, RateTake *take, TimestampTz now);
/* The same from what is committed, without a lock. */
extern void durable_judge_latest(Relation rel, RateTake *take);
/* Applies the request when `give`, and writes the state that was judged under the lock. 22003 a charge out of range. */
extern void durable_write(Relation rel, RateTake *take, bool give);
/* Sets or lifts (until = 0) the block of a key whose state was judged under the lock. reason may be 0. */
extern void durable_write_block(Relation rel, RateTake *take, TimestampTz until, Datum reason);

/* Visits every limit that has a row, in order of policy and key. */
extern void durable_list(RateVisit visit, void *arg);

/* Job: removes buckets that are full, also those of dropped policies. */
extern void rate_limit_sweep(JobSlice *slice);

#endif							/* DISTSYS_RATE_DURABLE_H */
