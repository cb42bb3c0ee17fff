/*
 * limiter.c: durable token buckets.
 *
 * One row per (policy, key) in rate_limit_bucket; no row is a full bucket.
 * Writers hold the key lock in Exclusive mode to the end of the transaction; a call that refuses
 * gives it back at once and has written nothing: no WAL, no dead tuple.
 *
 * Several limits: locks in the order of their tags, all judged by one reading
 * of the clock, then all applied or none. A lock that is not to be had within
 * distsys.rate_limit_wait refuses the call as contended, unless what is committed
 * refuses it anyway: an open transaction can only have taken more.
 *
 * Rollback gives the tokens back (the row's version dies). Crash: a take
 * survives as any committed row does. Standby: peek only.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "utils/builtins.h"

#include "core/clock.h"
#include "core/guc.h"
#include "core/keylock.h"
#include "core/stats.h"
#include "ratelimit/limiter.h"
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

/*
 * Keys that were refused last time, by hash: for these the unlocked read
 * comes first, since it most likely settles the call. A hint only.
 */
#define REFUSED_HINTS 256

static uint32 refused_hints[REFUSED_HINTS];

static uint32 *
refused_hint(const RateTake *take)
{
	return &refused_hints[take->tag.locktag_field3 & (REFUSED_HINTS - 1)];
}

/* ---- the state of one bucket ---- */

static bool
same_limit(const BucketLimit *a, const BucketLimit *b)
{
	return a->quota == b->quota && a->period_us == b->period_us && a->burst == b->burst;
}

/* Brings the stored state (row NULL: a full bucket) to now, over a change of the policy if there was one. */
static BucketState
current_state(Relation rel, HeapTuple row, const RatePolicy *policy, TimestampTz now)
{
	Datum		values[NATTS];
	bool		nulls[NATTS];
	BucketState state;
	BucketLimit stored;

	if (row == NULL)
		return bucket_full(&policy->limit, now);
	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	state.credit = DatumGetInt64(values[ATTR_CREDIT - 1]);
	state.at_us = DatumGetTimestampTz(values[ATTR_UPDATED_AT - 1]);
	stored.quota = DatumGetInt64(values[ATTR_QUOTA - 1]);
	stored.period_us = DatumGetInt64(values[ATTR_PERIOD_US - 1]);
	stored.burst = DatumGetInt64(values[ATTR_BURST - 1]);
	if (!same_limit(&stored, &policy->limit))
	{
		bucket_refill(&stored, &state, Min(Max(policy->changed_at, state.at_us), now));
		bucket_convert(&stored, &policy->limit, policy->on_change, &state);
	}
	bucket_refill(&policy->limit, &state, now);
	return state;
}

static void
judge(Relation rel, RateTake *take, HeapTuple row, TimestampTz now)
{
	take->row = row;
	take->decided_at = now;
	take->state = current_state(rel, row, &take->config, now);
	take->verdict = bucket_judge(&take->config.limit, &take->state, take->cost);
	take->within = take->verdict.within;
	take->reason = take->within ? RATE_OK : RATE_LIMITED;
}

static void
judge_latest(Relation rel, RateTake *take)
{
	Datum		key[2] = {take->policy.datum, take->key.datum};
	HeapTuple	row = row_read_latest(rel, key);

	judge(rel, take, row, clock_wall());
}

static void
write_bucket(Relation rel, RateTake *take)
{
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS] = {false, false, true, true, true, true, true};
	const BucketLimit *limit = &take->config.limit;

	bucket_take(limit, &take->state, take->cost);
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
	take->verdict = bucket_judge(limit, &take->state, 0);
}

/* ---- one call over several limits ---- */

/* Is there anything to lock, judge and write? */
static bool
has_state(const RateTake *take)
{
	return take->reason != RATE_IS_DISABLED && take->reason != RATE_COST_EXCEEDS_LIMIT;
}

/* Does this limit refuse the whole call? */
static bool
refuses(const RateTake *take)
{
	return !take->within && take->config.mode == RATE_ENFORCE;
}

static void
prepare(RateTake *take, int ord)
{
	rate_policy_get(&take->policy, &take->config);
	take->ord = ord;
	take->never = false;
	take->row = NULL;
	take->reason = RATE_OK;
	take->within = true;
	take->decided_at = clock_wall();
	keylock_tag2(&take->tag, KEYLOCK_RATE_BUCKET, take->policy.data, take->policy.len, take->key.data, take->key.len);
	if (take->config.mode == RATE_DISABLED)
	{
		BucketState full = bucket_full(&take->config.limit, take->decided_at);

		take->reason = RATE_IS_DISABLED;
		take->verdict = bucket_judge(&take->config.limit, &full, 0);
	}
	else if (take->cost > take->config.limit.burst)
	{
		take->reason = RATE_COST_EXCEEDS_LIMIT;
		take->within = false;
		take->never = true;
	}
}

static void
prepare_all(RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
		prepare(&takes[i], i);
}

static int
compare_tags(const void *a, const void *b)
{
	return memcmp(&((const RateTake *) a)->tag, &((const RateTake *) b)->tag, sizeof(LOCKTAG));
}

static int
compare_ords(const void *a, const void *b)
{
	return ((const RateTake *) a)->ord - ((const RateTake *) b)->ord;
}

static bool
same_name(const NameArg *a, const NameArg *b)
{
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static void
check_distinct(const RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		for (int j = i + 1; j < n; j++)
		{
			if (same_name(&takes[i].policy, &takes[j].policy) && same_name(&takes[i].key, &takes[j].key))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("limit \"%s\" is named twice for the same key", name_cstring(takes[i].policy)),
						 errhint("Add up the costs.")));
		}
	}
}

/* No limit of the call may be inside a transaction block when its policy forbids that: a rollback would undo the take. */
static void
check_transaction(const RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (takes[i].config.forbid_transaction && IsTransactionBlock())
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("rate limit policy \"%s\" forbids transaction blocks", name_cstring(takes[i].policy)),
					 errhint("Take the limit as its own statement before BEGIN.")));
	}
}

/* The call's verdict on every row, and the words for it. */
static void
conclude(RateTake *takes, int n)
{
	bool		allowed = true;

	for (int i = 0; i < n; i++)
		allowed = allowed && !refuses(&takes[i]);
	for (int i = 0; i < n; i++)
	{
		takes[i].allowed = allowed;
		if (!takes[i].within && takes[i].config.mode == RATE_SHADOW)
			takes[i].reason = RATE_SHADOWED;
	}
}

/* Takes the lock of one limit within the time that is left. false: the call is settled, refused. */
static bool
lock_bucket(Relation rel, RateTake *take, TimestampTz until)
{
	if (keylock_try(&take->tag, ExclusiveLock))
		return true;
	judge_latest(rel, take);
	if (refuses(take))
		return false;
	if (keylock_wait(&take->tag, ExclusiveLock, Max(0, until - GetCurrentTimestamp())))
		return true;
	take->reason = RATE_CONTENDED;
	take->within = false;
	return false;
}

static void
unlock_buckets(RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (has_state(&takes[i]) && takes[i].cost > 0)
			keylock_release(&takes[i].tag, ExclusiveLock);
	}
}

/* Locks all, judges all. Returns how many of the sorted takes hold their lock; *settled: refused without judging. */
static int
lock_and_judge(Relation rel, RateTake *takes, int n, bool *settled)
{
	TimestampTz until = GetCurrentTimestamp() + (int64) guc_rate_limit_wait * MILLISECONDS;
	TimestampTz now;

	*settled = false;
	for (int i = 0; i < n; i++)
	{
		if (has_state(&takes[i]) && takes[i].cost > 0 && !lock_bucket(rel, &takes[i], until))
		{
			*settled = true;
			return i;
		}
	}
	now = clock_wall();
	for (int i = 0; i < n; i++)
	{
		Datum		key[2] = {takes[i].policy.datum, takes[i].key.datum};

		if (!has_state(&takes[i]))
			continue;
		if (takes[i].cost > 0)
			judge(rel, &takes[i], row_read_locked(rel, key), now);
		else
			judge_latest(rel, &takes[i]);
	}
	return n;
}

/* Writes what each limit gives. A shadowed limit is taken from like an enforced one: not when it would refuse. */
static bool
apply(Relation rel, RateTake *takes, int n)
{
	bool		written = false;

	for (int i = 0; i < n; i++)
	{
		if (!has_state(&takes[i]) || takes[i].cost == 0)
			continue;
		if (takes[i].within)
		{
			write_bucket(rel, &takes[i]);
			written = true;
		}
		else
			keylock_release(&takes[i].tag, ExclusiveLock);
	}
	return written;
}

/* The unlocked read that settles most calls of a key that was refused before. */
static bool
refused_at_a_glance(Relation rel, RateTake *take)
{
	if (*refused_hint(take) != take->tag.locktag_field2)
		return false;
	judge_latest(rel, take);
	return refuses(take);
}

static void
remember_refusals(RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		uint32	   *hint = refused_hint(&takes[i]);

		if (takes[i].reason == RATE_LIMITED)
			*hint = takes[i].tag.locktag_field2;
		else if (*hint == takes[i].tag.locktag_field2)
			*hint = 0;
	}
}

static void
count(const RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		const char *metric = takes[i].reason == RATE_CONTENDED ? "contended" :
			takes[i].within ? "allowed" : "limited";

		stats_add("rate_limit", name_cstring(takes[i].policy), metric, 1);
	}
}

static void
take_sorted(Relation rel, RateTake *takes, int n, bool *written)
{
	bool		settled;
	int			locked;

	*written = false;
	for (int i = 0; i < n; i++)
	{
		if (!has_state(&takes[i]) && refuses(&takes[i]))
			return;				/* a cost that can never be had: nothing to ask */
	}
	if (n == 1 && has_state(takes) && takes->cost > 0 && refused_at_a_glance(rel, takes))
		return;

	locked = lock_and_judge(rel, takes, n, &settled);
	conclude(takes, n);
	if (settled || !takes[0].allowed)
		unlock_buckets(takes, locked);
	else
		*written = apply(rel, takes, n);
}

void
limiter_take(RateTake *takes, int n)
{
	Relation	rel;
	bool		written;

	prepare_all(takes, n);
	check_distinct(takes, n);
	check_transaction(takes, n);
	rel = row_open_write(TABLE_RATE_LIMIT_BUCKET, "rate_limit_take()");
	if (n > 1)
		qsort(takes, n, sizeof(RateTake), compare_tags);
	take_sorted(rel, takes, n, &written);
	conclude(takes, n);
	if (n > 1)
		qsort(takes, n, sizeof(RateTake), compare_ords);
	if (written)
		row_close(rel);
	else
		row_close_unwritten(rel);
	remember_refusals(takes, n);
	count(takes, n);
}

void
limiter_peek(RateTake *takes, int n)
{
	Relation	rel = row_open_read(TABLE_RATE_LIMIT_BUCKET);

	prepare_all(takes, n);
	for (int i = 0; i < n; i++)
	{
		if (has_state(&takes[i]))
			judge_latest(rel, &takes[i]);
	}
	conclude(takes, n);
	row_close(rel);
}

bool
limiter_reset(const NameArg *policy, const NameArg *key)
{
	Relation	rel = row_open_write(TABLE_RATE_LIMIT_BUCKET, "rate_limit_reset()");
	RateTake	take = {.policy = *policy, .key = *key};
	Datum		values[2] = {policy->datum, key->datum};
	HeapTuple	row;

	prepare(&take, 0);
	(void) keylock_wait(&take.tag, ExclusiveLock, KEYLOCK_FOR_EVER);
	row = row_read_locked(rel, values);
	if (row != NULL)
		row_delete(rel, row);
	else
		keylock_release(&take.tag, ExclusiveLock);
	row_close(rel);
	return row != NULL;
}

/* ---- housekeeping ---- */

/* Full by the limit it was stored under: then it is full by any that it is converted to. */
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
