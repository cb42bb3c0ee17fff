/*
 * metrics.h: decisions counted per policy, for the view distsys.stats.
 */
#ifndef DISTSYS_RATE_METRICS_H
#define DISTSYS_RATE_METRICS_H

#include "ratelimit/limiter.h"

extern void metrics_count(const RateTake *takes, int n);

#endif							/* DISTSYS_RATE_METRICS_H */
