/*
 * bucket.c: token bucket arithmetic, see bucket.h.
 */
#include "algo/bucket.h"

/* A clock that reads earlier than this before the state was set back by somebody. */
#define CLOCK_STEP_US 1000000

typedef __int128 int128_t;

static int64_t
capacity(const BucketLimit *limit)
{
	return limit->burst * limit->period_us;
}

static int64_t
div_up(int64_t a, int64_t b)
{
	return a / b + (a % b != 0);
}

/* The deepest debt: from there to the full bucket is still a number. */
static int64_t
deepest(const BucketLimit *limit)
{
	return capacity(limit) - INT64_MAX;
}

static int64_t
clamp(int128_t value, int64_t low, int64_t high)
{
	return value < low ? low : value > high ? high : (int64_t) value;
}

static int128_t
div_down(int128_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

void
bucket_limit_reduce(BucketLimit *limit)
{
	int64_t		a = limit->quota;
	int64_t		b = limit->period_us;

	while (b != 0)
	{
		int64_t		rest = a % b;

		a = b;
		b = rest;
	}
	limit->quota /= a;
	limit->period_us /= a;
}

bool
bucket_limit_fits(const BucketLimit *limit)
{
	int64_t		ignored;

	return limit->quota >= 1 && limit->period_us >= 1 && limit->burst >= 1 &&
		!__builtin_mul_overflow(limit->burst, limit->period_us, &ignored);
}

BucketState
bucket_full(const BucketLimit *limit, int64_t now_us)
{
	BucketState state = {capacity(limit), now_us};

	return state;
}

void
bucket_refill(const BucketLimit *limit, BucketState *state, int64_t now_us)
{
	int64_t		to_full = div_up(capacity(limit) - state->credit, limit->quota);
	int64_t		elapsed;

	if (now_us <= state->at_us)
	{
		/* the same instant, or jitter: nothing has been earned yet; a step back: earn from now on */
		if (state->at_us - now_us > CLOCK_STEP_US)
			state->at_us = now_us;
		return;
	}
	elapsed = now_us - state->at_us;
	/* elapsed * quota cannot overflow below to_full */
	if (elapsed >= to_full)
		state->credit = capacity(limit);
	else
		state->credit += elapsed * limit->quota;
	state->at_us = now_us;
}

BucketVerdict
bucket_judge(const BucketLimit *limit, const BucketState *state, int64_t cost)
{
	int64_t		need = cost * limit->period_us;
	BucketVerdict verdict;

	verdict.within = state->credit >= need;
	verdict.remaining = state->credit > 0 ? state->credit / limit->period_us : 0;
	verdict.retry_us = verdict.within ? 0 : div_up(need - state->credit, limit->quota);
	verdict.reset_us = div_up(capacity(limit) - state->credit, limit->quota);
	verdict.next_us = verdict.remaining >= limit->burst ? 0 :
		div_up((verdict.remaining + 1) * limit->period_us - state->credit, limit->quota);
	return verdict;
}

void
bucket_take(const BucketLimit *limit, BucketState *state, int64_t cost)
{
	state->credit -= cost * limit->period_us;
}

bool
bucket_charge(const BucketLimit *limit, BucketState *state, int64_t cost)
{
	int128_t	left = state->credit - (int128_t) cost * limit->period_us;

	if (left < deepest(limit))
		return false;
	state->credit = (int64_t) left;
	return true;
}

int64_t
bucket_refund(const BucketLimit *limit, BucketState *state, int64_t cost)
{
	int128_t	credit = state->credit + (int128_t) cost * limit->period_us;
	int64_t		before = state->credit;

	state->credit = clamp(credit, before, capacity(limit));
	return (state->credit - before) / limit->period_us;
}

void
bucket_convert(const BucketLimit *from, const BucketLimit *to, BucketChange change, BucketState *state)
{
	int64_t		full = capacity(to);
	int64_t		low = deepest(to);
	int128_t	same_tokens = div_down((int128_t) state->credit * to->period_us, from->period_us);

	if (state->credit >= capacity(from))
		change = BUCKET_RESET;
	switch (change)
	{
		case BUCKET_RESET:
			state->credit = full;
			break;
		case BUCKET_PROPORTIONALLY:
			state->credit = clamp(div_down((int128_t) state->credit * full, capacity(from)), low, full);
			break;
		case BUCKET_AS_IS:
			state->credit = clamp(same_tokens, low, full);
			break;
		case BUCKET_ADDITIVE:
			/* a smaller burst takes away what there is; it makes no debt and forgives none */
			if (state->credit >= 0)
				low = 0;
			same_tokens += (int128_t) (to->burst - from->burst) * to->period_us;
			state->credit = clamp(same_tokens, low, full);
			break;
	}
}
