/*
 * limit.c: one face for every algorithm, see limit.h.
 */
#include "algo/limit.h"
#include "algo/window.h"

typedef __int128 int128_t;

static BucketState
as_bucket(const LimitState *state)
{
	BucketState bucket = {state->a, state->at_us};

	return bucket;
}

static void
set_bucket(LimitState *state, BucketState bucket)
{
	state->a = bucket.credit;
	state->at_us = bucket.at_us;
}

bool
limit_is_bucket(LimitAlgorithm algorithm)
{
	return algorithm == LIMIT_TOKEN_BUCKET || algorithm == LIMIT_GCRA || algorithm == LIMIT_LEAKY_BUCKET;
}

bool
limit_fits(const LimitRule *rule)
{
	if (limit_is_bucket(rule->algorithm))
		return bucket_limit_fits(&rule->limit);
	return rule->limit.burst >= 1 && rule->limit.burst <= LIMIT_COUNT_MAX && rule->limit.period_us >= 1;
}

bool
limit_same(const LimitRule *x, const LimitRule *y)
{
	return x->limit.quota == y->limit.quota && x->limit.period_us == y->limit.period_us && x->limit.burst == y->limit.burst &&
		x->first_hit == y->first_hit &&
		(x->algorithm == y->algorithm || (limit_is_bucket(x->algorithm) && limit_is_bucket(y->algorithm)));
}

LimitState
limit_full(const LimitRule *rule, int64_t now_us)
{
	LimitState	state = {0, 0, now_us};

	if (!limit_is_bucket(rule->algorithm))
		return window_full(rule, now_us);
	set_bucket(&state, bucket_full(&rule->limit, now_us));
	return state;
}

void
limit_refill(const LimitRule *rule, LimitState *state, int64_t now_us)
{
	BucketState bucket;

	if (!limit_is_bucket(rule->algorithm))
	{
		window_refill(rule, state, now_us);
		return;
	}
	bucket = as_bucket(state);
	bucket_refill(&rule->limit, &bucket, now_us);
	set_bucket(state, bucket);
}

bool
limit_is_full(const LimitRule *rule, const LimitState *state)
{
	if (limit_is_bucket(rule->algorithm))
		return state->a >= rule->limit.burst * rule->limit.period_us;
	return window_is_full(rule, state);
}

LimitVerdict
limit_judge(const LimitRule *rule, const LimitState *state, int64_t cost)
{
	BucketState bucket;

	if (!limit_is_bucket(rule->algorithm))
		return window_judge(rule, state, cost);
	bucket = as_bucket(state);
	return bucket_judge(&rule->limit, &bucket, cost);
}

void
limit_take(const LimitRule *rule, LimitState *state, int64_t cost)
{
	state->a += limit_is_bucket(rule->algorithm) ? -cost * rule->limit.period_us : cost;
}

bool
limit_charge(const LimitRule *rule, LimitState *state, int64_t cost)
{
	BucketState bucket;

	if (!limit_is_bucket(rule->algorithm))
	{
		if (cost > LIMIT_COUNT_MAX - state->a)
			return false;
		state->a += cost;
		return true;
	}
	bucket = as_bucket(state);
	if (!bucket_charge(&rule->limit, &bucket, cost))
		return false;
	set_bucket(state, bucket);
	return true;
}

int64_t
limit_refund(const LimitRule *rule, LimitState *state, int64_t cost)
{
	BucketState bucket;
	int64_t		given;

	if (!limit_is_bucket(rule->algorithm))
	{
		given = state->a <= 0 ? 0 : cost < state->a ? cost : state->a;
		state->a -= given;
		return given;
	}
	bucket = as_bucket(state);
	given = bucket_refund(&rule->limit, &bucket, cost);
	set_bucket(state, bucket);
	return given;
}

/* ---- turns and reservations: buckets ---- */

/* Microseconds until so many units have come in, rounded up. */
static int64_t
us_for(const LimitRule *rule, int128_t units)
{
	if (units <= 0)
		return 0;
	return (int64_t) ((units + rule->limit.quota - 1) / rule->limit.quota);
}

int64_t
limit_turn(const LimitRule *rule, const LimitState *state, int64_t cost)
{
	int128_t	capacity = (int128_t) rule->limit.burst * rule->limit.period_us;

	if (rule->algorithm != LIMIT_LEAKY_BUCKET)
		return 0;
	return us_for(rule, capacity - state->a - (int128_t) cost * rule->limit.period_us);
}

/* The units that are missing before what is taken next with this cost may act. */
static int128_t
units_ahead(const LimitRule *rule, const LimitState *state, int64_t cost)
{
	if (rule->algorithm == LIMIT_LEAKY_BUCKET)
		return (int128_t) rule->limit.burst * rule->limit.period_us - state->a;
	return (int128_t) cost * rule->limit.period_us - state->a;
}

int64_t
limit_reserve(const LimitRule *rule, LimitState *state, int64_t cost, int64_t max_delay_us)
{
	int64_t		delay = us_for(rule, units_ahead(rule, state, cost));

	/* a leaky bucket's queue is the bucket; the others promise what will come in */
	if (delay > max_delay_us || (rule->algorithm == LIMIT_LEAKY_BUCKET && !limit_judge(rule, state, cost).within))
		return -1;
	return limit_charge(rule, state, cost) ? delay : -1;
}

int64_t
limit_cancel(const LimitRule *rule, LimitState *state, int64_t cost, int64_t act_at_us)
{
	int128_t	promised = units_ahead(rule, state, 0) - (int128_t) (act_at_us - state->at_us) * rule->limit.quota;

	if (rule->algorithm == LIMIT_LEAKY_BUCKET)
		promised -= (int128_t) cost * rule->limit.period_us;
	if (act_at_us <= state->at_us || promised > 0)
		return 0;
	return limit_refund(rule, state, cost);
}

/* ---- a change of the rule ---- */

int64_t
limit_tokens(const LimitRule *rule, const LimitState *state)
{
	int64_t		period = rule->limit.period_us;
	int128_t	units;

	if (!limit_is_bucket(rule->algorithm))
		return window_tokens(rule, state);
	units = state->a;
	return (int64_t) (units / period - (units % period < 0));
}

int64_t
limit_convert_tokens(int64_t tokens, int64_t from_burst, int64_t to_burst, LimitChange change)
{
	int128_t	converted = tokens;
	int128_t	low = -(int128_t) LIMIT_COUNT_MAX;

	switch (tokens >= from_burst ? BUCKET_RESET : change)
	{
		case BUCKET_RESET:
			converted = to_burst;
			break;
		case BUCKET_PROPORTIONALLY:
			converted = (int128_t) tokens * to_burst;
			converted = converted / from_burst - (converted % from_burst < 0);
			break;
		case BUCKET_AS_IS:
			break;
		case BUCKET_ADDITIVE:
			converted = (int128_t) tokens + to_burst - from_burst;
			if (tokens >= 0)
				low = 0;
			break;
	}
	return converted < low ? (int64_t) low : converted > to_burst ? to_burst : (int64_t) converted;
}

LimitState
limit_of_tokens(const LimitRule *rule, int64_t tokens, int64_t now_us)
{
	LimitState	state = limit_full(rule, now_us);

	if (tokens < rule->limit.burst)
		(void) limit_charge(rule, &state, rule->limit.burst - tokens);
	return state;
}

void
limit_convert(const LimitRule *from, const LimitRule *to, LimitChange change, LimitState *state)
{
	LimitState	old = *state;

	if (limit_is_full(from, &old))
		*state = limit_full(to, old.at_us);
	else if (limit_is_bucket(from->algorithm) && limit_is_bucket(to->algorithm))
	{
		BucketState bucket = as_bucket(&old);

		bucket_convert(&from->limit, &to->limit, change, &bucket);
		set_bucket(state, bucket);
	}
	else
	{
		*state = limit_of_tokens(to, limit_convert_tokens(limit_tokens(from, &old), from->limit.burst, to->limit.burst, change), old.at_us);
		/* a window that is under way stays that window */
		if (from->first_hit && to->first_hit)
			state->b = old.b;
	}
}
