/*
 * answer.h: rows of type rate_limit_result.
 */
#ifndef DISTSYS_RATE_ANSWER_H
#define DISTSYS_RATE_ANSWER_H

#include "fmgr.h"

#include "ratelimit/limiter.h"

/* The word of a reason. */
extern const char *answer_reason(RateReason reason);
extern Datum answer_row(const RateTake *take);
/* One row per take, for functions that return a set of them. */
extern void answer_set(FunctionCallInfo fcinfo, const RateTake *takes, int n);

#endif							/* DISTSYS_RATE_ANSWER_H */
