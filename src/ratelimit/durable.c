/*
 * durable.c: durable limits, see durable.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "compat.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "core/clock.h"
#include "ratelimit/durable.h"
#include "ratelimit/judge.h"
#include "store/row.h"

enum
{
	ATTR_POLICY = 1,
	ATTR_KEY,
	ATTR_CREDIT,
	ATTR_UPDATED_AT,
	ATTR_QUOTA,
	ATTR_PERIOD_US,
	ATTR_BURST,
	ATTR_KIND,
	ATTR_WINDOW_STATE,
	ATTR_TIMES,
	ATTR_BLOCKED_UNTIL,
	ATTR_BLOCKED_REASON,
	NATTS = ATTR_BLOCKED_REASON
};

/* kind: the algorithm's number, and whether its windows begin at the first hit */
#define KIND_FIRST_HIT 8

static int16
rule_kind(const LimitRule *rule)
{
	return (int16) rule->algorithm + (rule->first_hit ? KIND_FIRST_HIT : 0);
}

/* ---- reading ---- */

/* The rule by which a row was counted; what the row does not say is as in `like`. */
static void
stored_rule(const Datum *values, const LimitRule *like, LimitRule *rule)
{
	int16		kind = DatumGetInt16(values[ATTR_KIND - 1]);

	*rule = *like;
	rule->algorithm = (LimitAlgorithm) (kind % KIND_FIRST_HIT);
	rule->first_hit = kind >= KIND_FIRST_HIT;
	rule->limit.quota = DatumGetInt64(values[ATTR_QUOTA - 1]);
	rule->limit.period_us = DatumGetInt64(values[ATTR_PERIOD_US - 1]);
	rule->limit.burst = DatumGetInt64(values[ATTR_BURST - 1]);
}

static void
load_log(RateTake *take, Datum times)
{
	ArrayType  *array = DatumGetArrayTypeP(times);

	take_make_log(take);
	take->log.n = at_most(ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)), LOG_QUOTA_MAX);
	memcpy(take->log.times, ARR_DATA_PTR(array), take->log.n * sizeof(int64));
}

/* Brings the stored state (row NULL: a full bucket) to now, over a change of the policy if there was one. */
static void
read_state(Relation rel, RateTake *take, HeapTuple row, TimestampTz now)
{
	const RatePolicy *policy = &take->config;
	LimitState *state = &take->state;
	Datum		values[NATTS];
	bool		nulls[NATTS];
	TimestampTz stored_at;
	LimitRule	stored;

	take->row = row;
	take->stepped = false;
	take->blocked_until = 0;
	if (row == NULL)
	{
		if (policy->rule.algorithm == LIMIT_SLIDING_LOG)
			take_make_log(take);
		take_fill(take, now);
		return;
	}
	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	state->a = DatumGetInt64(values[ATTR_CREDIT - 1]);
	state->b = DatumGetInt64(values[ATTR_WINDOW_STATE - 1]);
	state->at_us = take->log.at_us = stored_at = DatumGetTimestampTz(values[ATTR_UPDATED_AT - 1]);
	if (!nulls[ATTR_TIMES - 1])
		load_log(take, values[ATTR_TIMES - 1]);
	if (!nulls[ATTR_BLOCKED_UNTIL - 1])
		take->blocked_until = DatumGetTimestampTz(values[ATTR_BLOCKED_UNTIL - 1]);
	stored_rule(values, &policy->rule, &stored);
	if (!limit_same(&stored, &policy->rule))
		take_reread(take, now);
	if (!limit_same(&stored, &policy->rule))
	{
		if (policy->rule.algorithm == LIMIT_SLIDING_LOG && take->log.times == NULL)
			take_make_log(take);
		take_carry_over(take, &stored, policy->changed_at, now);
	}
	take_refill(take, now);
	take->stepped = stored_at > state->at_us;
}

static void
judge(Relation rel, RateTake *take, HeapTuple row, TimestampTz now)
{
	rate_policy_set_windows(&take->config, now);
	read_state(rel, take, row, now);
	take_judge(take, now);
}

void
durable_judge_locked(Relation rel, RateTake *take, TimestampTz now)
{
	Datum		key[2] = {take->policy.datum, take->key.datum};

	judge(rel, take, row_read_locked(rel, key), now);
}

void
durable_judge_latest(Relation rel, RateTake *take)
{
	Datum		key[2] = {take->policy.datum, take->key.datum};
	HeapTuple	row = row_read_latest(rel, key);

	judge(rel, take, row, clock_wall());
}

/* ---- writing ---- */

static Datum
log_datum(const LimitLog *log)
{
	Datum	   *times = palloc(Max(log->n, 1) * sizeof(Datum));

	for (int i = 0; i < log->n; i++)
		times[i] = TimestampTzGetDatum(log->times[i]);
	return PointerGetDatum(construct_array(times, log->n, TIMESTAMPTZOID, sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* reason: 0 none. It is written when the block is new; an older block keeps its own. */
static void
write_state(Relation rel, RateTake *take, bool new_block, Datum reason)
{
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS] = {false, false, true, true, true, true, true, true, true, true, true, false};
	const LimitRule *rule = &take->config.rule;
	bool		blocked = take->blocked_until > take->state.at_us;

	values[ATTR_POLICY - 1] = take->policy.datum;
	values[ATTR_KEY - 1] = take->key.datum;
	values[ATTR_CREDIT - 1] = Int64GetDatum(take->state.a);
	values[ATTR_UPDATED_AT - 1] = TimestampTzGetDatum(take->state.at_us);
	values[ATTR_QUOTA - 1] = Int64GetDatum(rule->limit.quota);
	values[ATTR_PERIOD_US - 1] = Int64GetDatum(rule->limit.period_us);
	values[ATTR_BURST - 1] = Int64GetDatum(rule->limit.burst);
	values[ATTR_KIND - 1] = Int16GetDatum(rule_kind(rule));
	values[ATTR_WINDOW_STATE - 1] = Int64GetDatum(take->state.b);
	nulls[ATTR_TIMES - 1] = rule->algorithm != LIMIT_SLIDING_LOG;
	values[ATTR_TIMES - 1] = nulls[ATTR_TIMES - 1] ? (Datum) 0 : log_datum(&take->log);
	nulls[ATTR_BLOCKED_UNTIL - 1] = !blocked;
	values[ATTR_BLOCKED_UNTIL - 1] = TimestampTzGetDatum(take->blocked_until);
	nulls[ATTR_BLOCKED_REASON - 1] = !blocked || reason == (Datum) 0;
	values[ATTR_BLOCKED_REASON - 1] = reason;
	replace[ATTR_BLOCKED_REASON - 1] = new_block || !blocked;
	if (take->row == NULL)
		row_insert(rel, values, nulls);
	else
		row_update(rel, take->row, values, nulls, replace);
}

void
durable_write(Relation rel, RateTake *take, bool give)
{
	if (give && !take_apply(take))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("debt of the limit is out of range")));
	if (take->starts_block)
		take_block(take, take->state.at_us);
	write_state(rel, take, take->starts_block, take->starts_block ? CStringGetTextDatum("limited") : (Datum) 0);
}

void
durable_write_block(Relation rel, RateTake *take, TimestampTz until, Datum reason)
{
	take->blocked_until = until;
	write_state(rel, take, true, reason);
}

/* ---- the view ---- */

/* By the rule that it was counted by last: a tier's may differ from the policy's. false: a calendar whose policy is gone. */
static bool
load_entry(Relation rel, HeapTuple row, RateTake *take, RateEntry *entry, TimestampTz now)
{
	Datum		values[NATTS];
	bool		nulls[NATTS];
	LimitRule	own;

	memset(take, 0, sizeof(*take));
	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	take->policy = arg_name_datum(values[ATTR_POLICY - 1], "policy", NAME_SHORT);
	take->config.rule.origin_us = RATE_GRID_ORIGIN;
	stored_rule(values, &take->config.rule, &own);
	if (own.algorithm == LIMIT_CALENDAR)
	{
		if (!rate_policy_find(&take->policy, &take->config) || take->config.rule.algorithm != LIMIT_CALENDAR)
			return false;
		rate_policy_set_windows(&take->config, now);
		memcpy(own.window, take->config.rule.window, sizeof(own.window));
	}
	take->config.rule = own;
	read_state(rel, take, row, now);
	take->verb = RATE_CHARGE;
	take_judge(take, now);

	entry->policy = values[ATTR_POLICY - 1];
	entry->key = values[ATTR_KEY - 1];
	entry->shared = false;
	entry->rule = &take->config.rule;
	entry->remaining = take->verdict.remaining;
	entry->reset_us = take->verdict.reset_us;
	entry->blocked_until = take->blocked_until > now ? take->blocked_until : 0;
	entry->blocked_reason = nulls[ATTR_BLOCKED_REASON - 1] ? (Datum) 0 : values[ATTR_BLOCKED_REASON - 1];
	entry->used_at = DatumGetTimestampTz(values[ATTR_UPDATED_AT - 1]);
	entry->uses = 0;
	return true;
}

void
durable_list(RateVisit visit, void *arg)
{
	Relation	rel = row_open_read(TABLE_RATE_LIMIT_BUCKET);
	RowScan    *scan = row_scan_begin_above(rel, (Datum) 0);
	TimestampTz now = clock_wall();
	HeapTuple	row;
	RateTake	take;
	RateEntry	entry;

	while ((row = row_scan_next(scan)) != NULL)
	{
		if (load_entry(rel, row, &take, &entry, now))
			visit(&entry, arg);
		if (take.log.times != NULL)
			pfree(take.log.times);
	}
	row_scan_end(scan);
	row_close(rel);
}

/* ---- housekeeping ---- */

/* A window whose end the row does not say is over when it is by every calendar: months and days have no one length. */
static LimitRule
sweepable_rule(const Datum *values)
{
	LimitRule	like = {.origin_us = RATE_GRID_ORIGIN};
	LimitRule	rule;

	stored_rule(values, &like, &rule);
	if (rule.algorithm == LIMIT_CALENDAR)
	{
		rule.algorithm = LIMIT_FIXED_WINDOW;
		rule.first_hit = true;
		rule.limit.period_us += rule.limit.period_us / 10;
	}
	return rule;
}

/* Full by the rule it was stored under: then a change of the policy leaves it full. */
static bool
bucket_dead(Relation rel, HeapTuple row, void *arg)
{
	TimestampTz now = *(TimestampTz *) arg;
	LimitRule	rule;
	LimitState	state;
	Datum		values[NATTS];
	bool		nulls[NATTS];

	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	if (!nulls[ATTR_BLOCKED_UNTIL - 1] && DatumGetTimestampTz(values[ATTR_BLOCKED_UNTIL - 1]) > now)
		return false;
	rule = sweepable_rule(values);
	state.a = DatumGetInt64(values[ATTR_CREDIT - 1]);
	state.b = DatumGetInt64(values[ATTR_WINDOW_STATE - 1]);
	state.at_us = DatumGetTimestampTz(values[ATTR_UPDATED_AT - 1]);
	if (state.at_us > now)
		return false;
	/* no time of a log is later than its last take */
	if (rule.algorithm == LIMIT_SLIDING_LOG)
		return now - state.at_us >= rule.limit.period_us;
	limit_refill(&rule, &state, now);
	return limit_is_full(&rule, &state);
}

static void
bucket_tag(Relation rel, HeapTuple row, LOCKTAG *tag, void *arg)
{
	NameArg		policy = arg_name_datum(row_get(rel, row, ATTR_POLICY, NULL), "policy", NAME_SHORT);
	NameArg		key = arg_name_datum(row_get(rel, row, ATTR_KEY, NULL), "key", NAME_LONG);

	keylock_tag2(tag, KEYLOCK_RATE_BUCKET, policy.data, policy.len, key.data, key.len);
}

void
rate_limit_sweep(JobSlice *slice)
{
	TimestampTz now = clock_wall();
	RowSweep	sweep = {.dead = bucket_dead, .tag = bucket_tag, .arg = &now};
	Relation	rel = row_open_write(TABLE_RATE_LIMIT_BUCKET, "rate_limit_sweep()");

	sweep_slice(rel, &sweep, slice);
	row_close(rel);
}
