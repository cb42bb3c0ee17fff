/*
 * limit_test.c: every algorithm behind limit.h, and the log, against models that
 * keep every take ever made, and against what each promises. Prints TAP.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "algo/limit.h"
#include "algo/log.h"

static int	tests = 0;
static int	failures = 0;

static void
ok(bool condition, const char *algorithm, const char *what)
{
	printf("%sok %d - %s: %s\n", condition ? "" : "not ", ++tests, algorithm, what);
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

/* ---- a limit of any algorithm ---- */

typedef struct Limit
{
	LimitRule	rule;
	LimitState	state;
	LimitLog	log;
	int64_t		times[LOG_QUOTA_MAX];
} Limit;

static bool
is_log(const Limit *limit)
{
	return limit->rule.algorithm == LIMIT_SLIDING_LOG;
}

/* Calendar months of these tests have 28, 29, 30 or 31 thousand microseconds. */
static void
set_months(LimitRule *rule, int64_t now)
{
	int64_t		begin = 0;
	int			month = 0;

	while (begin + (28 + month % 4) * 1000 <= now)
		begin += (28 + month++ % 4) * 1000;
	rule->window[0] = begin;
	rule->window[1] = begin + (28 + month % 4) * 1000;
	rule->window[2] = rule->window[1] + (28 + (month + 1) % 4) * 1000;
}

static void
start(Limit *limit, LimitAlgorithm algorithm, bool first_hit, int64_t quota, int64_t period, int64_t now)
{
	memset(limit, 0, sizeof(*limit));
	limit->rule.algorithm = algorithm;
	limit->rule.first_hit = first_hit;
	limit->rule.limit = (BucketLimit) {quota, period, quota};
	limit->rule.origin_us = -12345;
	if (limit_is_bucket(algorithm))
		bucket_limit_reduce(&limit->rule.limit);
	if (algorithm == LIMIT_CALENDAR)
		set_months(&limit->rule, now);
	if (is_log(limit))
		limit->log.at_us = now;
	else
		limit->state = limit_full(&limit->rule, now);
}

/* A copy's log stands in the copy. */
static void
go_to(Limit *limit, int64_t now)
{
	limit->log.times = limit->times;
	if (limit->rule.algorithm == LIMIT_CALENDAR)
		set_months(&limit->rule, now);
	if (is_log(limit))
		log_refill(&limit->rule, &limit->log, now);
	else
		limit_refill(&limit->rule, &limit->state, now);
}

static LimitVerdict
judge(const Limit *limit, int64_t cost)
{
	return is_log(limit) ? log_judge(&limit->rule, &limit->log, cost) : limit_judge(&limit->rule, &limit->state, cost);
}

static void
take(Limit *limit, int64_t cost)
{
	limit->log.times = limit->times;
	if (is_log(limit))
		log_take(&limit->rule, &limit->log, cost);
	else
		limit_take(&limit->rule, &limit->state, cost);
}

static const struct
{
	LimitAlgorithm algorithm;
	bool		first_hit;
	const char *name;
}			algorithms[] = {
	{LIMIT_TOKEN_BUCKET, false, "token_bucket"},
	{LIMIT_GCRA, false, "gcra"},
	{LIMIT_LEAKY_BUCKET, false, "leaky_bucket"},
	{LIMIT_FIXED_WINDOW, false, "fixed_window"},
	{LIMIT_FIXED_WINDOW, true, "fixed_window from the first hit"},
	{LIMIT_SLIDING_WINDOW, false, "sliding_window"},
	{LIMIT_CALENDAR, false, "calendar"},
	{LIMIT_SLIDING_LOG, false, "sliding_window_log"}
};

/* ---- answers are honest ---- */

/* Whatever state a random history leaves: retry_us, next_us and reset_us are the first moment and not a later one. */
static void
check_honesty(int which)
{
	bool		enough = true,
				not_less = true,
				next = true,
				reset = true,
				remaining = true;

	for (int i = 0; i < 20000; i++)
	{
		int64_t		quota = 1 + random_below(20);
		int64_t		period = 1 + random_below(100000);
		int64_t		now = random_below(1000000);
		Limit		limit,
					later;
		LimitVerdict verdict;
		int64_t		cost;

		start(&limit, algorithms[which].algorithm, algorithms[which].first_hit, quota, period, now);
		for (int j = random_below(12); j > 0; j--)
		{
			now += random_below(period / 4 + 2);
			go_to(&limit, now);
			cost = 1 + random_below(quota);
			if (judge(&limit, cost).within)
				take(&limit, cost);
		}
		cost = 1 + random_below(quota);
		verdict = judge(&limit, cost);
		remaining = remaining && verdict.remaining >= 0 && verdict.remaining <= quota && judge(&limit, verdict.remaining).within &&
			(verdict.remaining == quota || !judge(&limit, verdict.remaining + 1).within);
		if (!verdict.within)
		{
			later = limit;
			go_to(&later, now + verdict.retry_us);
			enough = enough && judge(&later, cost).within;
			later = limit;
			go_to(&later, now + verdict.retry_us - 1);
			not_less = not_less && !judge(&later, cost).within;
		}
		later = limit;
		go_to(&later, now + verdict.next_us);
		next = next && (verdict.next_us == 0 ? verdict.remaining == quota : judge(&later, verdict.remaining + 1).within);
		later = limit;
		go_to(&later, now + verdict.reset_us);
		reset = reset && judge(&later, 0).remaining == quota && judge(&later, 0).reset_us == 0;
	}
	ok(enough, algorithms[which].name, "sleeping retry_us is enough");
	ok(not_less, algorithms[which].name, "one microsecond less is not");
	ok(next, algorithms[which].name, "next_us brings one token more");
	ok(reset, algorithms[which].name, "reset_us fills it");
	ok(remaining, algorithms[which].name, "remaining is what can be taken at once");
}

/* ---- bounds, over everything that was admitted ---- */

#define TAKES 3000

static int64_t at[TAKES];
static int64_t costs[TAKES];

static int64_t
taken_between(int n, int64_t from, int64_t to)
{
	int64_t		sum = 0;

	for (int i = n - 1; i >= 0 && at[i] >= from; i--)
		sum += at[i] < to ? costs[i] : 0;
	return sum;
}

/* Did the limit decide as its definition says, from all that was taken so far? */
static bool
by_definition(const Limit *limit, int n, int64_t now, int64_t cost)
{
	int64_t		quota = limit->rule.limit.burst;
	int64_t		period = limit->rule.limit.period_us;
	int64_t		into = (now - limit->rule.origin_us) % period;
	int64_t		begin = now - into;
	int64_t		first = now;

	switch (limit->rule.algorithm)
	{
		case LIMIT_SLIDING_LOG:
			return taken_between(n, now - period + 1, now + 1) + cost <= quota;
		case LIMIT_CALENDAR:
			return taken_between(n, limit->rule.window[0], now + 1) + cost <= quota;
		case LIMIT_SLIDING_WINDOW:
			return (__int128) taken_between(n, begin - period, begin) * (period - into) +
				(__int128) (taken_between(n, begin, now + 1) + cost) * period <= (__int128) quota * period;
		case LIMIT_FIXED_WINDOW:
			if (!limit->rule.first_hit)
				return taken_between(n, begin, now + 1) + cost <= quota;
			for (int i = 0, open = -1; i < n; i++)
			{
				if (open < 0 || at[i] - at[open] >= period)
					open = i;
				first = at[open];
			}
			return n == 0 || now - first >= period || taken_between(n, first, now + 1) + cost <= quota;
		default:
			for (int i = 0; i < n; i++)
			{
				/* the bucket was full at the first take at the latest */
				__int128	sum = cost;

				for (int j = i; j < n; j++)
					sum += costs[j];
				if (sum * limit->rule.limit.period_us > (__int128) quota * limit->rule.limit.period_us + (__int128) limit->rule.limit.quota * (now - at[i]))
					return false;
			}
			return true;
	}
}

static void
check_definition(int which, int64_t quota, int64_t period, int takes)
{
	Limit		limit;
	int64_t		now = 777;
	bool		right = true;
	bool		full_is_full = true;
	int			n = 0;

	start(&limit, algorithms[which].algorithm, algorithms[which].first_hit, quota, period, now);
	for (int i = 0; i < takes; i++)
	{
		int64_t		cost = random_below(4) == 0 ? 1 + random_below(quota) : 1;

		now += random_below(20) == 0 ? random_below(3 * period) : random_below(2 * period / quota + 2);
		go_to(&limit, now);
		right = right && judge(&limit, cost).within == by_definition(&limit, n, now, cost);
		if (!is_log(&limit))
			full_is_full = full_is_full && (!limit_is_full(&limit.rule, &limit.state) || judge(&limit, quota).within);
		if (!judge(&limit, cost).within)
			continue;
		take(&limit, cost);
		at[n] = now;
		costs[n++] = cost;
	}
	ok(right, algorithms[which].name, "admits what its definition admits, no more and no less");
	ok(full_is_full, algorithms[which].name, "what is full holds the quota");
}

/* What is documented: the estimate of two counters can be just under twice the quota in a true window. */
static void
check_documented_excess(void)
{
	Limit		limit;
	int			n = 0;

	start(&limit, LIMIT_SLIDING_WINDOW, false, 100, 1000000, 0);
	limit.rule.origin_us = 0;
	limit.state = limit_full(&limit.rule, 0);
	/* the whole quota at the very end of a window, then as much as the estimate lets through within a period from there */
	for (int64_t now = 999999; now < 1999999; now++)
	{
		go_to(&limit, now);
		while (judge(&limit, 1).within)
		{
			take(&limit, 1);
			n++;
		}
	}
	ok(n > 150 && n < 200, "sliding_window", "a true window holds more than the quota, and less than twice");
}

/* ---- clocks ---- */

static void
check_clock_steps(int which)
{
	const int64_t hour = INT64_C(3600000000);
	Limit		limit;

	start(&limit, algorithms[which].algorithm, algorithms[which].first_hit, 5, 60000000, 10 * hour);
	go_to(&limit, 10 * hour);
	take(&limit, 5);
	go_to(&limit, 10 * hour - 1000);
	ok(!judge(&limit, 1).within, algorithms[which].name, "jitter back earns nothing");
	go_to(&limit, 9 * hour);
	ok(!judge(&limit, 1).within, algorithms[which].name, "an hour back earns nothing");
	go_to(&limit, 9 * hour + 2 * 60000000);
	ok(judge(&limit, 1).within, algorithms[which].name, "and locks nobody out");
	if (judge(&limit, 5).within)
		take(&limit, 5);
	go_to(&limit, 10 * hour + 2 * 60000000);
	take(&limit, 5);
	ok(!judge(&limit, 1).within, algorithms[which].name, "forward again: at most one burst");
}

/* ---- charges, refunds ---- */

static void
check_debt(int which)
{
	Limit		limit;
	bool		charged = true;

	start(&limit, algorithms[which].algorithm, algorithms[which].first_hit, 10, 60000, 100);
	go_to(&limit, 100);
	if (is_log(&limit))
		log_take(&limit.rule, &limit.log, 25);
	else
		charged = limit_charge(&limit.rule, &limit.state, 25);
	ok(charged && judge(&limit, 0).remaining == 0 && !judge(&limit, 1).within, algorithms[which].name, "a charge goes into debt");
	if (is_log(&limit))
		ok(log_refund(&limit.log, 25) == 10, algorithms[which].name, "a refund gives back what counts");
	else
		ok(limit_refund(&limit.rule, &limit.state, 20) == 20 && judge(&limit, 0).remaining == 5 &&
		   limit_refund(&limit.rule, &limit.state, 20) == 5 && limit_is_full(&limit.rule, &limit.state),
		   algorithms[which].name, "a refund gives back, up to the full state");
	if (!is_log(&limit))
		ok(!limit_charge(&limit.rule, &limit.state, INT64_MAX) && limit_is_full(&limit.rule, &limit.state),
		   algorithms[which].name, "a charge out of range changes nothing");
}

/* Whatever is reserved, cancelled and taken: what acts is within the bound. */
static void
check_reservations(LimitAlgorithm algorithm, const char *name)
{
	bool		bound = true,
				order = true;

	for (int round = 0; round < 300; round++)
	{
		Limit		limit;
		int64_t		quota = 1 + random_below(8);
		int64_t		now = 0;
		int			cancels = 0;
		int			n = 0;

		start(&limit, algorithm, false, quota, 1000, 0);
		while (n < 60)
		{
			int64_t		cost = 1 + random_below(quota);
			int64_t		delay;

			now += random_below(600);
			go_to(&limit, now);
			if (n > 0 && random_below(4) == 0)
			{
				int			which = random_below(n);

				if (costs[which] > 0 && at[which] > now)
				{
					(void) limit_cancel(&limit.rule, &limit.state, costs[which], at[which]);
					costs[which] = 0;
					cancels++;
				}
				continue;
			}
			delay = limit_reserve(&limit.rule, &limit.state, cost, 5000);
			if (delay < 0)
				continue;
			at[n] = now + delay;
			order = order && (cancels > 0 || n == 0 || at[n] >= at[n - 1]);
			costs[n++] = cost;
		}
		for (int i = 0; i < n; i++)
			for (int j = 0; j < n; j++)
			{
				int64_t		sum = 0;

				if (at[j] < at[i])
					continue;
				for (int k = 0; k < n; k++)
					sum += at[k] >= at[i] && at[k] <= at[j] ? costs[k] : 0;
				/* times to act are rounded up to microseconds */
				bound = bound && (__int128) sum * limit.rule.limit.period_us <=
					(__int128) quota * limit.rule.limit.period_us + (__int128) limit.rule.limit.quota * (at[j] - at[i] + 1);
			}
	}
	ok(bound, name, "reservations and cancels: what acts is within the bound");
	ok(order, name, "without cancels later reservations act later");
}

static void
check_turns(void)
{
	Limit		limit;
	bool		even = true;

	start(&limit, LIMIT_LEAKY_BUCKET, false, 10, 1000, 0);
	for (int i = 0; i < 10; i++)
	{
		take(&limit, 1);
		even = even && limit_turn(&limit.rule, &limit.state, 1) == i * 100;
	}
	ok(even, "leaky_bucket", "each waits for those before it");
	ok(!judge(&limit, 1).within, "leaky_bucket", "the queue is the bucket");
}

/* ---- changes ---- */

static void
check_conversions(void)
{
	const int	fixed = 7;		/* how many of the algorithms have a fixed state */
	bool		full = true,
				bounded = true,
				same = true,
				back = true;

	for (int i = 0; i < 50000; i++)
	{
		Limit		from,
					to;
		int			a = random_below(fixed),
					b = random_below(fixed);
		LimitChange change = (LimitChange) random_below(4);
		int64_t		now = random_below(1000000);
		int64_t		taken;
		int64_t		left;

		start(&from, algorithms[a].algorithm, algorithms[a].first_hit, 1 + random_below(50), 1 + random_below(100000), now);
		start(&to, algorithms[b].algorithm, algorithms[b].first_hit, 1 + random_below(50), 1 + random_below(100000), now);
		to.state = from.state;
		limit_convert(&from.rule, &to.rule, change, &to.state);
		full = full && limit_is_full(&to.rule, &to.state);

		taken = 1 + random_below(from.rule.limit.burst);
		take(&from, taken);
		to.state = from.state;
		limit_convert(&from.rule, &to.rule, change, &to.state);
		left = judge(&to, 0).remaining;
		bounded = bounded && left <= to.rule.limit.burst && left >= 0 && to.state.at_us == now;
		if (change == BUCKET_AS_IS)
			same = same && left == (from.rule.limit.burst - taken < to.rule.limit.burst ? from.rule.limit.burst - taken : to.rule.limit.burst);
		if (change == BUCKET_PROPORTIONALLY)
		{
			limit_convert(&to.rule, &from.rule, change, &to.state);
			back = back && judge(&from, 0).remaining >= limit_tokens(&from.rule, &to.state);
		}
	}
	ok(full, "conversion", "what is full stays full");
	ok(bounded, "conversion", "never more than the new quota");
	ok(same, "conversion", "as_is keeps the tokens");
	ok(back, "conversion", "there and back gains nothing");
}

int
main(void)
{
	for (int i = 0; i < (int) (sizeof(algorithms) / sizeof(algorithms[0])); i++)
	{
		check_honesty(i);
		check_definition(i, 5, 1000, limit_is_bucket(algorithms[i].algorithm) ? 600 : TAKES);
		check_definition(i, 100, 77777, limit_is_bucket(algorithms[i].algorithm) ? 600 : TAKES);
		check_definition(i, 1, 10, limit_is_bucket(algorithms[i].algorithm) ? 600 : TAKES);
		check_clock_steps(i);
		check_debt(i);
	}
	check_documented_excess();
	check_reservations(LIMIT_TOKEN_BUCKET, "token_bucket");
	check_reservations(LIMIT_LEAKY_BUCKET, "leaky_bucket");
	check_turns();
	check_conversions();
	printf("1..%d\n", tests);
	return failures != 0;
}
