/*
 * log.h: the sliding window log: the time of every token taken in the last
 * period, oldest first. Exact: no stretch of one period holds more than the quota.
 *
 * Only the newest `quota` times matter, so no log is longer than that. The
 * caller's array has room for LOG_QUOTA_MAX times. rule->limit.burst is the quota.
 *
 * Plain C: no server header.
 */
#ifndef DISTSYS_LOG_H
#define DISTSYS_LOG_H

#include "algo/limit.h"

/* A take writes the whole log: 8 bytes a token. */
#define LOG_QUOTA_MAX 1000

typedef struct LimitLog
{
	int			n;
	int64_t    *times;			/* ascending */
	int64_t		at_us;			/* when it was right */
} LimitLog;

/* Drops what is older than the period. A clock that went back moves the log along. */
extern void log_refill(const LimitRule *rule, LimitLog *log, int64_t now_us);
extern LimitVerdict log_judge(const LimitRule *rule, const LimitLog *log, int64_t cost);
/* Takes any cost: beyond the quota it counts as the quota. */
extern void log_take(const LimitRule *rule, LimitLog *log, int64_t cost);
/* Takes the newest back. */
extern int64_t log_refund(LimitLog *log, int64_t cost);
/* Takes back what was taken at that very time. */
extern void log_refund_at(LimitLog *log, int64_t cost, int64_t at_us);
/* Sets how many tokens count as taken: the newest stay, what is missing was taken just now. */
extern void log_set(LimitLog *log, int64_t n);

#endif							/* DISTSYS_LOG_H */
