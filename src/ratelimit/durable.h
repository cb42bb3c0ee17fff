/*
 * durable.h: the state of a limit as a row of rate_limit_bucket, one per
 * (policy, key); no row is a full bucket. The row says by which limit its
 * credit was counted, so that a change of the policy can carry it over.
 */
#ifndef DISTSYS_RATE_DURABLE_H
#define DISTSYS_RATE_DURABLE_H

#include "utils/rel.h"

#include "ratelimit/limiter.h"
#include "store/sweep.h"

/* Fills the answer of `take` from the newest state, at `now`. The key lock is held in Exclusive mode. */
extern void durable_judge_locked(Relation rel, RateTake *take, TimestampTz now);
/* The same from what is committed, without a lock. */
extern void durable_judge_latest(Relation rel, RateTake *take);
/* Takes `cost` from the state that was judged under the lock, and writes it. */
extern void durable_write(Relation rel, RateTake *take, int64 cost);

/* Job: removes buckets that are full, also those of dropped policies. */
extern void rate_limit_sweep(JobSlice *slice);

#endif							/* DISTSYS_RATE_DURABLE_H */
