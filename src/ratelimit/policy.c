/*
 * policy.c: rate limit policies: an ordinary table, cached, see policy.h.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/builtins.h"

#include "algo/log.h"
#include "ratelimit/policy_row.h"
#include "ratelimit/view.h"

const char *const policy_algorithms[] = {"token_bucket", "gcra", "sliding_window_log", "sliding_window",
"fixed_window", "leaky_bucket", "calendar", NULL};
const char *const policy_storages[] = {"durable", "shared", NULL};
const char *const policy_on_aborts[] = {"refund", "keep", NULL};
const char *const policy_on_restarts[] = {"snapshot", "full", "empty", NULL};
const char *const policy_on_errors[] = {"open", "closed", NULL};
const char *const policy_in_transactions[] = {"allow", "forbid", NULL};
const char *const policy_modes[] = {"enforce", "shadow", "disabled", NULL};
const char *const policy_anchors[] = {"epoch", "first_hit", NULL};
const char *const policy_changes[] = {"reset", "proportionally", "as_is", "additive", NULL};

const ConfigKind policy_kind = {
	.table = TABLE_RATE_LIMIT_POLICY,
	.key = "rate_limit_policy",
	.label = "rate limit policy",
	.function = "rate_limit",
	.create_rest = ", quota => 100, period => '1 min'"
};

static ConfigCache *cache = NULL;

const char *
algorithm_name(LimitAlgorithm algorithm)
{
	return policy_algorithms[algorithm];
}

int
policy_word(Datum value, const char *const *words)
{
	char	   *word = TextDatumGetCString(value);
	int			i;

	for (i = 0; words[i] != NULL && strcmp(word, words[i]) != 0; i++)
		;
	pfree(word);
	return words[i] == NULL ? 0 : i;	/* the table's CHECK knows the words */
}

/* The rule as it is computed with. */
static void
set_limit(RatePolicy *policy, int64 quota, int64 period_us, int64 burst)
{
	policy->rule.limit.quota = policy->quota = quota;
	policy->rule.limit.period_us = policy->period_us = period_us;
	policy->rule.limit.burst = burst;
	if (limit_is_bucket(policy->rule.algorithm))
		bucket_limit_reduce(&policy->rule.limit);
	else
		policy->rule.limit.burst = quota;
}

static int
column_word(Relation rel, HeapTuple tuple, int column, const char *const *words)
{
	bool		isnull;
	Datum		value = row_get(rel, tuple, column, &isnull);

	return isnull ? -1 : policy_word(value, words);
}

static void
load_shared_options(RatePolicy *policy, Relation rel, HeapTuple tuple)
{
	policy->shared = column_word(rel, tuple, ATTR_STORAGE, policy_storages) == 1;
	/* not said: a durable take is part of its transaction, a shared one is not */
	policy->refund = !policy->shared || column_word(rel, tuple, ATTR_ON_ABORT, policy_on_aborts) == 0;
	policy->closed = column_word(rel, tuple, ATTR_ON_ERROR, policy_on_errors) == 1;
	policy->on_restart = (RateRestart) column_word(rel, tuple, ATTR_ON_RESTART, policy_on_restarts);
}

static void
load(void *entry, Relation rel, HeapTuple tuple)
{
	RatePolicy *policy = (RatePolicy *) entry;
	bool		no_burst;
	bool		no_block;
	Datum		burst = row_get(rel, tuple, ATTR_BURST, &no_burst);
	Datum		block = row_get(rel, tuple, ATTR_BLOCK_FOR, &no_block);
	Datum		period = row_get(rel, tuple, ATTR_PERIOD, NULL);
	int64		quota = DatumGetInt64(row_get(rel, tuple, ATTR_QUOTA, NULL));
	bool		calendar;

	policy->rule.algorithm = (LimitAlgorithm) column_word(rel, tuple, ATTR_ALGORITHM, policy_algorithms);
	policy->rule.first_hit = column_word(rel, tuple, ATTR_ANCHOR, policy_anchors) == 1;
	policy->rule.origin_us = RATE_GRID_ORIGIN;
	calendar = policy->rule.algorithm == LIMIT_CALENDAR;
	if (calendar)
		policy->unit = (CalendarUnit) column_word(rel, tuple, ATTR_CALENDAR_UNIT, calendar_units);
	set_limit(policy, quota,
			  calendar ? calendar_length(policy->unit) : interval_to_us(DatumGetIntervalP(period), "period", 1, PERIOD_MAX, NULL),
			  no_burst ? quota : DatumGetInt64(burst));
	policy->mode = (RateMode) column_word(rel, tuple, ATTR_MODE, policy_modes);
	policy->forbid_transaction = column_word(rel, tuple, ATTR_IN_TRANSACTION, policy_in_transactions) == 1;
	policy->on_change = (LimitChange) column_word(rel, tuple, ATTR_ON_CHANGE, policy_changes);
	policy->changed_at = DatumGetTimestampTz(row_get(rel, tuple, ATTR_CHANGED_AT, NULL));
	policy->block_us = no_block ? 0 : interval_to_us(DatumGetIntervalP(block), "block_for", 1, PERIOD_MAX, NULL);
	text_to_cstring_buffer(DatumGetTextPP(row_get(rel, tuple, ATTR_TIME_ZONE, NULL)),
						   policy->time_zone, sizeof(policy->time_zone));
	text_to_cstring_buffer(DatumGetTextPP(row_get(rel, tuple, ATTR_QUOTA_UNIT, NULL)),
						   policy->quota_unit, sizeof(policy->quota_unit));
	load_shared_options(policy, rel, tuple);
}

bool
rate_policy_find(const NameArg *name, RatePolicy *policy)
{
	if (cache == NULL)
		cache = config_cache_create(TABLE_RATE_LIMIT_POLICY, sizeof(RatePolicy), load);
	return config_get(cache, name, NULL, policy);
}

void
rate_policy_get(const NameArg *name, RatePolicy *policy)
{
	if (!rate_policy_find(name, policy))
		config_raise_unknown(&policy_kind, name);
}

void
rate_policy_adjust(RatePolicy *policy, int64 quota, int64 period_us, int64 burst, const NameArg *name)
{
	bool		calendar = policy->rule.algorithm == LIMIT_CALENDAR;
	int64		own_burst = policy->rule.limit.burst;

	/* a burst that followed the quota follows it still */
	if (burst == 0)
		burst = quota == 0 || own_burst != policy->quota ? own_burst : quota;
	set_limit(policy, quota == 0 ? policy->quota : quota,
			  period_us == 0 || calendar ? policy->period_us : period_us, burst);
	if (!limit_fits(&policy->rule) || (policy->rule.algorithm == LIMIT_SLIDING_LOG && policy->quota > LOG_QUOTA_MAX))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("a tier or an override puts rate limit policy \"%s\" out of range", name_cstring(*name)),
				 errdetail("quota %lld, burst %lld, period %lld us.", (long long) policy->quota, (long long) burst, (long long) policy->period_us)));
}

void
rate_policy_set_windows(RatePolicy *policy, TimestampTz now)
{
	LimitRule  *rule = &policy->rule;

	if (rule->algorithm == LIMIT_CALENDAR && (now < rule->window[0] || now >= rule->window[1]))
		calendar_windows(policy->unit, policy->time_zone, now, rule->window);
}
