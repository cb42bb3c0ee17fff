/*
 * judge.h: what a request meets in a state, the same for every storage.
 *
 * A storage loads take->state (or take->log) and take->blocked_until, brings
 * them to now by take->config.rule, calls take_judge(), and when the whole
 * call is allowed take_apply(); then it stores the state. All but take_make_log() are pure: no
 * error, no allocation, so they may run under an LWLock.
 */
#ifndef DISTSYS_RATE_JUDGE_H
#define DISTSYS_RATE_JUDGE_H

#include "ratelimit/limiter.h"

/* A full state at now. */
extern void take_fill(RateTake *take, TimestampTz now);
/* Brings it to now. */
extern void take_refill(RateTake *take, TimestampTz now);
/*
 * Brings it by the rule that it was counted by to the moment at which that changed, on the clock of the state, and carries it
 * over. As the policy's on_change says when its own change is the first since; a tier or an override carries over proportionally.
 */
extern void take_carry_over(RateTake *take, const LimitRule *stored, TimestampTz changed_at, TimestampTz now);
/* An empty log with room; allocates when there was none. A take whose rule, stored or its own, is a log's has one before all others. */
extern void take_make_log(RateTake *take);
/* Is it no different from one that nobody has used? */
extern bool take_is_full(const RateTake *take, TimestampTz now);
/* Fills in the answer, but for `allowed`. Times to wait are from `now`, decided_at is the state's. */
extern void take_judge(RateTake *take, TimestampTz now);
/* Changes the state as judged. false: a charge out of range, nothing is changed. */
extern bool take_apply(RateTake *take);
/* Sets blocked_until when starts_block. */
extern void take_block(RateTake *take, TimestampTz now);

#endif							/* DISTSYS_RATE_JUDGE_H */
