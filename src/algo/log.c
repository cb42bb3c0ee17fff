/*
 * log.c: the sliding window log, see log.h.
 */
#include <string.h>

#include "algo/log.h"

/* As for buckets: a clock that reads earlier than this before the state was set back by somebody. */
#define CLOCK_STEP_US 1000000

static void
drop_oldest(LimitLog *log, int count)
{
	log->n -= count;
	memmove(log->times, log->times + count, log->n * sizeof(int64_t));
}

void
log_refill(const LimitRule *rule, LimitLog *log, int64_t now_us)
{
	int			old = 0;

	if (now_us < log->at_us)
	{
		if (log->at_us - now_us <= CLOCK_STEP_US)
			return;
		for (int i = 0; i < log->n; i++)
			log->times[i] -= log->at_us - now_us;
	}
	log->at_us = now_us;
	while (old < log->n && now_us - log->times[old] >= rule->limit.period_us)
		old++;
	if (old > 0)
		drop_oldest(log, old);
}

/* When `count` tokens are left, or more. */
static int64_t
until_left(const LimitRule *rule, const LimitLog *log, int64_t count)
{
	int64_t		must_go = log->n - (rule->limit.burst - count);

	return must_go <= 0 ? 0 : log->times[must_go - 1] + rule->limit.period_us - log->at_us;
}

LimitVerdict
log_judge(const LimitRule *rule, const LimitLog *log, int64_t cost)
{
	int64_t		left = rule->limit.burst - log->n;
	LimitVerdict verdict;

	verdict.within = cost <= left;
	verdict.remaining = left > 0 ? left : 0;
	verdict.retry_us = until_left(rule, log, cost);
	verdict.reset_us = until_left(rule, log, rule->limit.burst);
	verdict.next_us = left >= rule->limit.burst ? 0 : until_left(rule, log, verdict.remaining + 1);
	return verdict;
}

void
log_take(const LimitRule *rule, LimitLog *log, int64_t cost)
{
	int64_t		quota = rule->limit.burst;
	int			count = (int) (cost < quota ? cost : quota);

	if (log->n + count > quota)
		drop_oldest(log, (int) (log->n + count - quota));
	for (int i = 0; i < count; i++)
		log->times[log->n++] = log->at_us;
}

int64_t
log_refund(LimitLog *log, int64_t cost)
{
	int			count = (int) (cost < log->n ? cost : log->n);

	log->n -= count;
	return count;
}

void
log_refund_at(LimitLog *log, int64_t cost, int64_t at_us)
{
	int			first = 0;
	int			end;

	while (first < log->n && log->times[first] < at_us)
		first++;
	for (end = first; end < log->n && log->times[end] == at_us && end - first < cost; end++)
		;
	memmove(log->times + first, log->times + end, (log->n - end) * sizeof(int64_t));
	log->n -= end - first;
}

void
log_set(LimitLog *log, int64_t n)
{
	if (n > LOG_QUOTA_MAX)
		n = LOG_QUOTA_MAX;
	if (n < 0)
		n = 0;
	if (log->n > n)
		drop_oldest(log, (int) (log->n - n));
	while (log->n < n)
		log->times[log->n++] = log->at_us;
}
