/*
 * durable.c: durable buckets, see durable.h.
 */
#include "postgres.h"

#include "compat.h"

#include "core/clock.h"
#include "ratelimit/durable.h"
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
	NATTS = ATTR_BURST
};

static bool
same_limit(const BucketLimit *a, const BucketLimit *b)
{
	return a->quota == b->quota && a->period_us == b->period_us && a->burst == b->burst;
}

/* The policy may have been altered since it was read, by somebody who then took from this bucket. */
static void
reread_limit(RateTake *take)
{
	RatePolicy	fresh;

	rate_policy_get(&take->policy, &fresh);
	take->config.limit = fresh.limit;
	take->config.quota = fresh.quota;
	take->config.period_us = fresh.period_us;
	take->config.on_change = fresh.on_change;
	take->config.changed_at = fresh.changed_at;
}

/* Brings the stored state (row NULL: a full bucket) to now, over a change of the policy if there was one. */
static void
read_state(Relation rel, RateTake *take, HeapTuple row, TimestampTz now)
{
	const RatePolicy *policy = &take->config;
	BucketState *state = &take->state;
	Datum		values[NATTS];
	bool		nulls[NATTS];
	TimestampTz stored_at;
	BucketLimit stored;

	take->row = row;
	take->stepped = false;
	if (row == NULL)
	{
		*state = bucket_full(&policy->limit, now);
		return;
	}
	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	state->credit = DatumGetInt64(values[ATTR_CREDIT - 1]);
	state->at_us = stored_at = DatumGetTimestampTz(values[ATTR_UPDATED_AT - 1]);
	stored.quota = DatumGetInt64(values[ATTR_QUOTA - 1]);
	stored.period_us = DatumGetInt64(values[ATTR_PERIOD_US - 1]);
	stored.burst = DatumGetInt64(values[ATTR_BURST - 1]);
	if (!same_limit(&stored, &policy->limit))
		reread_limit(take);
	if (!same_limit(&stored, &policy->limit))
	{
		bucket_refill(&stored, state, Min(Max(policy->changed_at, state->at_us), now));
		bucket_convert(&stored, &policy->limit, policy->on_change, state);
	}
	bucket_refill(&policy->limit, state, now);
	take->stepped = stored_at > state->at_us;
}

/* The limiter's clock never runs backwards: decided_at is the state's time. The times to wait are from `now`. */
static void
judge(Relation rel, RateTake *take, HeapTuple row, TimestampTz now)
{
	BucketVerdict *verdict = &take->verdict;
	int64		lag;

	read_state(rel, take, row, now);
	lag = take->state.at_us - now;
	take->decided_at = take->state.at_us;
	take->never = take->cost > take->config.limit.burst;
	*verdict = bucket_judge(&take->config.limit, &take->state, take->never ? 0 : take->cost);
	verdict->retry_us += verdict->retry_us > 0 ? lag : 0;
	verdict->reset_us += verdict->reset_us > 0 ? lag : 0;
	verdict->next_us += verdict->next_us > 0 ? lag : 0;
	take->within = verdict->within && !take->never;
	take->reason = take->never ? RATE_COST_EXCEEDS_LIMIT : take->within ? RATE_OK : RATE_LIMITED;
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

void
durable_write(Relation rel, RateTake *take, int64 cost)
{
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS] = {false, false, true, true, true, true, true};
	const BucketLimit *limit = &take->config.limit;

	bucket_take(limit, &take->state, cost);
	values[ATTR_POLICY - 1] = take->policy.datum;
	values[ATTR_KEY - 1] = take->key.datum;
	values[ATTR_CREDIT - 1] = Int64GetDatum(take->state.credit);
	values[ATTR_UPDATED_AT - 1] = TimestampTzGetDatum(take->state.at_us);
	values[ATTR_QUOTA - 1] = Int64GetDatum(limit->quota);
	values[ATTR_PERIOD_US - 1] = Int64GetDatum(limit->period_us);
	values[ATTR_BURST - 1] = Int64GetDatum(limit->burst);
	if (take->row == NULL)
		row_insert(rel, values, nulls);
	else
		row_update(rel, take->row, values, nulls, replace);
	if (cost > 0)
		take->verdict = bucket_judge(limit, &take->state, 0);
}

/* ---- housekeeping ---- */

/* Full by the limit it was stored under: then a change of the policy leaves it full. */
static bool
bucket_dead(Relation rel, HeapTuple row, void *arg)
{
	TimestampTz now = *(TimestampTz *) arg;
	BucketLimit limit;
	BucketState state;
	Datum		values[NATTS];
	bool		nulls[NATTS];

	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	limit.quota = DatumGetInt64(values[ATTR_QUOTA - 1]);
	limit.period_us = DatumGetInt64(values[ATTR_PERIOD_US - 1]);
	limit.burst = DatumGetInt64(values[ATTR_BURST - 1]);
	state.credit = DatumGetInt64(values[ATTR_CREDIT - 1]);
	state.at_us = DatumGetTimestampTz(values[ATTR_UPDATED_AT - 1]);
	if (state.at_us > now)
		return false;
	bucket_refill(&limit, &state, now);
	return state.credit == limit.burst * limit.period_us;
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
