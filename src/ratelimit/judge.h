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
/* Brings it to now by a rule that is not the take's own any more, and carries it over from that rule. */
extern void take_refill_by(RateTake *take, const LimitRule *rule, TimestampTz now);
extern void take_convert(RateTake *take, const LimitRule *stored);
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
