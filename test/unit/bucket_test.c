/*
 * bucket_test.c: the token bucket against a model in wider integers, and
 * against the bound it promises. Prints TAP.
 */
#include <stdio.h>
#include <stdlib.h>

#include "algo/bucket.h"

static int	tests = 0;
static int	failures = 0;

static void
ok(bool condition, const char *what)
{
	printf("%sok %d - %s\n", condition ? "" : "not ", ++tests, what);
	failures += !condition;
}

static uint64_t seed = 88172645463325252ULL;

static int64_t
random_below(int64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (int64_t) (seed % (uint64_t) n);
}

/* A saturating client with random steps: admitted <= burst + quota * t / period. */
static void
check_bound(BucketLimit limit, const char *what)
{
	BucketState state = bucket_full(&limit, 0);
	__int128	admitted = 0;
	int64_t		now = 0;
	bool		upper = true;

	for (int i = 0; i < 20000; i++)
	{
		now += random_below(limit.period_us / limit.quota * 3 + 3);
		bucket_refill(&limit, &state, now);
		while (bucket_judge(&limit, &state, 1).within)
		{
			bucket_take(&limit, &state, 1);
			admitted++;
		}
		/* admitted * period <= burst * period + quota * now < (admitted + 1) * period */
		upper = upper && admitted * limit.period_us <= (__int128) limit.burst * limit.period_us + (__int128) limit.quota * now;
	}
	ok(upper, what);
}

/* A client that always has demand and never lets the bucket fill: exactly floor(burst + quota * t / period). */
static void
check_exact(BucketLimit limit, const char *what)
{
	BucketState state = bucket_full(&limit, 0);
	__int128	admitted = limit.burst;
	int64_t		now = 0;
	bool		exact = true;

	bucket_take(&limit, &state, limit.burst);
	for (int i = 0; i < 5000; i++)
	{
		now += random_below((limit.burst - 1) * limit.period_us / limit.quota);
		bucket_refill(&limit, &state, now);
		while (bucket_judge(&limit, &state, 1).within)
		{
			bucket_take(&limit, &state, 1);
			admitted++;
		}
		exact = exact && admitted == limit.burst + (__int128) limit.quota * now / limit.period_us;
	}
	ok(exact, what);
}

static void
check_retry_is_honest(void)
{
	bool		enough = true,
				not_less = true;

	for (int i = 0; i < 100000; i++)
	{
		BucketLimit limit = {1 + random_below(1000), 1 + random_below(100000000), 1 + random_below(1000)};
		BucketState state = {random_below(limit.burst * limit.period_us + 1), 0};
		int64_t		cost = 1 + random_below(limit.burst);
		BucketVerdict verdict = bucket_judge(&limit, &state, cost);
		BucketState later = state;

		if (verdict.within)
			continue;
		bucket_refill(&limit, &later, verdict.retry_us);
		enough = enough && bucket_judge(&limit, &later, cost).within;
		later = state;
		bucket_refill(&limit, &later, verdict.retry_us - 1);
		not_less = not_less && !bucket_judge(&limit, &later, cost).within;
	}
	ok(enough, "sleeping retry_us is enough");
	ok(not_less, "one microsecond less is not");
}

static void
check_times(void)
{
	bool		next = true,
				reset = true;

	for (int i = 0; i < 100000; i++)
	{
		BucketLimit limit = {1 + random_below(1000), 1 + random_below(100000000), 1 + random_below(1000)};
		BucketState state = {random_below(limit.burst * limit.period_us + 1), 0};
		BucketVerdict verdict = bucket_judge(&limit, &state, 0);
		BucketState later = state;

		bucket_refill(&limit, &later, verdict.next_us);
		next = next && (verdict.next_us == 0 ? verdict.remaining == limit.burst :
						bucket_judge(&limit, &later, 0).remaining > verdict.remaining);
		later = state;
		bucket_refill(&limit, &later, verdict.reset_us);
		reset = reset && later.credit == limit.burst * limit.period_us;
	}
	ok(next, "next_us brings one token more");
	ok(reset, "reset_us fills the bucket");
}

static void
check_edges(void)
{
	BucketLimit huge = {1, INT64_C(2592000000000), INT64_C(3558399)};
	BucketLimit too_big = {1, INT64_C(2592000000000), INT64_C(3558400)};
	BucketLimit fast = {INT64_MAX, 1, 5};
	BucketLimit limit = {5, 60000000, 5};
	BucketState state;

	ok(bucket_limit_fits(&huge), "burst * period just fits");
	ok(!bucket_limit_fits(&too_big), "burst * period just does not");
	state = bucket_full(&huge, 0);
	state.credit = 0;
	bucket_refill(&huge, &state, INT64_MAX);
	ok(state.credit == huge.burst * huge.period_us, "a long idle time fills and does not overflow");
	state = bucket_full(&fast, 0);
	state.credit = 0;
	bucket_refill(&fast, &state, 1);
	ok(state.credit == 5, "an absurd quota does not overflow");

	state = bucket_full(&limit, 0);
	ok(bucket_judge(&limit, &state, 0).within, "cost 0 is always there");
	bucket_take(&limit, &state, 5);
	ok(bucket_judge(&limit, &state, 1).retry_us == 12000000, "5 a minute: 12 s to the next");
}

static void
check_reduction(void)
{
	BucketLimit month = {10000000, INT64_C(2592000000000), 10000000};
	BucketLimit odd = {7, 1000000, 100};
	BucketLimit most = {INT64_MAX, INT64_MAX, 1};
	bool		same = true;

	ok(!bucket_limit_fits(&month), "10 million a month does not fit as it is written");
	bucket_limit_reduce(&month);
	ok(month.quota == 1 && month.period_us == 259200 && bucket_limit_fits(&month), "reduced it does");
	bucket_limit_reduce(&odd);
	ok(odd.quota == 7 && odd.period_us == 1000000 && odd.burst == 100, "nothing in common: as it was");
	bucket_limit_reduce(&most);
	ok(most.quota == 1 && most.period_us == 1, "the largest numbers");

	/* the same verdicts as without */
	for (int i = 0; i < 20000; i++)
	{
		int64_t		factor = 1 + random_below(50);
		BucketLimit plain = {factor * (1 + random_below(100)), factor * (1 + random_below(1000000)), 1 + random_below(1000)};
		BucketLimit reduced = plain;
		BucketState a = bucket_full(&plain, 0);
		BucketState b;
		int64_t		now = 0;

		bucket_limit_reduce(&reduced);
		b = bucket_full(&reduced, 0);
		for (int j = 0; j < 20; j++)
		{
			int64_t		cost = random_below(plain.burst + 1);
			BucketVerdict va,
						vb;

			now += random_below(plain.period_us);
			bucket_refill(&plain, &a, now);
			bucket_refill(&reduced, &b, now);
			va = bucket_judge(&plain, &a, cost);
			vb = bucket_judge(&reduced, &b, cost);
			same = same && va.within == vb.within && va.remaining == vb.remaining && va.retry_us == vb.retry_us &&
				va.reset_us == vb.reset_us && va.next_us == vb.next_us;
			if (va.within)
			{
				bucket_take(&plain, &a, cost);
				bucket_take(&reduced, &b, cost);
			}
		}
	}
	ok(same, "and the same verdicts");
}

/* Against rational arithmetic done the long way: credit in 128 bits, no clamp before the multiplication. */
static void
check_model(void)
{
	bool		same = true;

	for (int i = 0; i < 3000; i++)
	{
		BucketLimit limit = {1 + random_below(i % 3 == 0 ? 2000000 : 1000), 1 + random_below(i % 2 == 0 ? INT64_C(31622400000000) : 1000000),
		1 + random_below(i % 5 == 0 ? 250000 : 50)};
		__int128	full = (__int128) limit.burst * limit.period_us;
		__int128	credit = full;
		BucketState state = bucket_full(&limit, 0);
		int64_t		now = 0;

		if (!bucket_limit_fits(&limit))
			continue;
		for (int j = 0; j < 50; j++)
		{
			int64_t		step = random_below(j % 7 == 0 ? INT64_C(63072000000000) : limit.period_us / limit.quota * 4 + 4);
			int64_t		cost = random_below(limit.burst + 1);
			BucketVerdict verdict;

			now += step;
			credit += (__int128) step * limit.quota;
			credit = credit > full ? full : credit;
			bucket_refill(&limit, &state, now);
			verdict = bucket_judge(&limit, &state, cost);
			same = same && state.credit == credit && state.at_us == now &&
				verdict.within == (credit >= (__int128) cost * limit.period_us) &&
				verdict.remaining == credit / limit.period_us;
			if (verdict.within)
			{
				bucket_take(&limit, &state, cost);
				credit -= (__int128) cost * limit.period_us;
			}
		}
	}
	ok(same, "random limits, steps and costs: as the model in 128 bits");
}

static void
check_clock_steps(void)
{
	BucketLimit limit = {5, 60000000, 5};
	BucketState state = bucket_full(&limit, INT64_C(7200000000));
	int64_t		credit;

	bucket_take(&limit, &state, 5);
	credit = state.credit;
	bucket_refill(&limit, &state, INT64_C(7200000000) - 1000);
	ok(state.credit == credit && state.at_us == INT64_C(7200000000), "jitter back earns nothing and loses nothing");
	bucket_refill(&limit, &state, INT64_C(3600000000));
	ok(state.credit == credit, "an hour back earns nothing");
	bucket_refill(&limit, &state, INT64_C(3600000000) + 12000000);
	ok(bucket_judge(&limit, &state, 1).within, "and locks nobody out: the next token comes in time");
	bucket_refill(&limit, &state, INT64_C(7200000000));
	ok(state.credit == limit.burst * limit.period_us, "forward again: at most one burst");
}

static void
check_conversion(void)
{
	BucketLimit from = {10, 1000, 10};
	BucketLimit to = {40, 2000, 20};
	BucketState half = {5 * 1000, 0};
	BucketState state;

	state = half;
	bucket_convert(&from, &to, BUCKET_RESET, &state);
	ok(state.credit == 20 * 2000, "reset: full");
	state = half;
	bucket_convert(&from, &to, BUCKET_PROPORTIONALLY, &state);
	ok(state.credit == 10 * 2000, "proportionally: half stays half");
	state = half;
	bucket_convert(&from, &to, BUCKET_AS_IS, &state);
	ok(state.credit == 5 * 2000, "as_is: the same tokens");
	state = half;
	bucket_convert(&from, &to, BUCKET_ADDITIVE, &state);
	ok(state.credit == 15 * 2000, "additive: and the growth of the burst");
	state.credit = 19 * 2000;
	bucket_convert(&to, &from, BUCKET_AS_IS, &state);
	ok(state.credit == 10 * 1000, "as_is into a smaller bucket: full");
	state.credit = 10 * 1000;
	bucket_convert(&from, &to, BUCKET_AS_IS, &state);
	ok(state.credit == 20 * 2000, "a full bucket stays full, as if nobody had used it");
	state.credit = 5 * 2000;
	bucket_convert(&to, &from, BUCKET_ADDITIVE, &state);
	ok(state.credit == 0, "additive into a smaller bucket: not below empty");
}

int
main(void)
{
	check_bound((BucketLimit) {5, 60000000, 5}, "5 a minute: within burst + rate * t");
	check_bound((BucketLimit) {700000, 1000000, 700000}, "700,000 a second: within burst + rate * t");
	check_bound((BucketLimit) {7, 1000000, 1}, "7 a second, burst 1: within burst + rate * t");
	check_exact((BucketLimit) {7, 1000000, 100}, "7 a second: exact, no drift");
	check_exact((BucketLimit) {400000, 1000000, 50000}, "400,000 a second: exact, no drift");
	check_exact((BucketLimit) {3, 86400000000, 1000}, "3 a day: exact, no drift");
	check_retry_is_honest();
	check_times();
	check_edges();
	check_reduction();
	check_model();
	check_clock_steps();
	check_conversion();
	printf("1..%d\n", tests);
	return failures != 0;
}
