/*
 * metrics.c: what is counted of rate limits, see metrics.h.
 */
#include "postgres.h"

#include "core/stats.h"
#include "ratelimit/metrics.h"

/* What is counted. */
typedef enum Metric
{
	METRIC_ALLOWED,
	METRIC_LIMITED,
	METRIC_SHADOW,
	METRIC_BLOCKED,
	METRIC_CONTENDED,
	METRIC_UNAVAILABLE,
	NMETRICS
} Metric;

static const char *const metric_names[NMETRICS] = {"allowed", "limited", "shadow", "blocked", "contended", "unavailable"};

static Metric
metric_of(const RateTake *take)
{
	switch (take->reason)
	{
		case RATE_CONTENDED:
			return METRIC_CONTENDED;
		case RATE_UNAVAILABLE:
			return METRIC_UNAVAILABLE;
		case RATE_BLOCKED:
			return METRIC_BLOCKED;
		case RATE_SHADOWED:
			return METRIC_SHADOW;
		default:
			return take->within ? METRIC_ALLOWED : METRIC_LIMITED;
	}
}

/* The counters of the policies that this session used last, by their names' length and ends. */
#define COUNTED_POLICIES 64

typedef struct PolicyCounters
{
	int			len;
	char		policy[NAME_SHORT];
	StatsCounter *counters[NMETRICS];
} PolicyCounters;

static StatsCounter *
counter_of(const NameArg *policy, Metric metric)
{
	static PolicyCounters counted[COUNTED_POLICIES];
	uint32		place = policy->len * 31 + (unsigned char) policy->data[0] * 7 + (unsigned char) policy->data[policy->len - 1];
	PolicyCounters *found = &counted[place % COUNTED_POLICIES];

	if (found->len != policy->len || memcmp(found->policy, policy->data, policy->len) != 0)
	{
		memset(found, 0, sizeof(*found));
		found->len = policy->len;
		memcpy(found->policy, policy->data, policy->len);
	}
	if (found->counters[metric] == NULL)
		found->counters[metric] = stats_counter("rate_limit", name_cstring(*policy), metric_names[metric]);
	return found->counters[metric];
}

/* A limit that had the cost in a call that another refused was neither taken from nor did it limit anything. */
void
metrics_count(const RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		const RateTake *take = &takes[i];
		if (take->allowed || !take->within)
			stats_count(counter_of(&take->policy, metric_of(take)), 1);
	}
}
