/*
 * window.c: counting windows, see window.h.
 *
 * The sliding window admits a cost when
 *     before * (period - elapsed) / period + current + cost <= quota
 * compared in 128 bits without the division.
 */
#include "algo/window.h"

/* As for buckets: a clock that reads earlier than this before the state was set back by somebody. */
#define CLOCK_STEP_US 1000000

typedef __int128 int128_t;

static int64_t
div_up(int128_t a, int64_t b)
{
	return (int64_t) (a / b + (a % b > 0));
}

/* Begin of the grid's window that holds t. */
static int64_t
grid_begin(const LimitRule *rule, int64_t t)
{
	int64_t		into = (t - rule->origin_us) % rule->limit.period_us;

	return t - (into < 0 ? into + rule->limit.period_us : into);
}

/* Begin of the window that holds t, for algorithms that keep it in the state. */
static int64_t
window_begin(const LimitRule *rule, int64_t t)
{
	if (rule->algorithm == LIMIT_CALENDAR)
		return rule->window[t >= rule->window[1]];
	return rule->first_hit ? t : grid_begin(rule, t);
}

static int64_t
window_end(const LimitRule *rule, const LimitState *state)
{
	if (rule->algorithm == LIMIT_CALENDAR)
		return rule->window[state->b >= rule->window[1] ? 2 : 1];
	if (rule->algorithm == LIMIT_SLIDING_WINDOW)
		return grid_begin(rule, state->at_us) + rule->limit.period_us;
	return state->b + rule->limit.period_us;
}

LimitState
window_full(const LimitRule *rule, int64_t now_us)
{
	LimitState	state = {0, 0, now_us};

	if (rule->algorithm != LIMIT_SLIDING_WINDOW)
		state.b = window_begin(rule, now_us);
	return state;
}

/* The clock was set back: what was taken counts on from there. */
static void
step_back(const LimitRule *rule, LimitState *state, int64_t now_us)
{
	if (rule->algorithm == LIMIT_FIXED_WINDOW && rule->first_hit)
		state->b -= state->at_us - now_us;
	else if (rule->algorithm != LIMIT_SLIDING_WINDOW)
		state->b = window_begin(rule, now_us);
	state->at_us = now_us;
}

static void
slide(const LimitRule *rule, LimitState *state, int64_t now_us)
{
	int64_t		windows = (grid_begin(rule, now_us) - grid_begin(rule, state->at_us)) / rule->limit.period_us;

	if (windows == 0)
		return;
	state->b = windows == 1 ? state->a : 0;
	state->a = 0;
}

static void
open_next(const LimitRule *rule, LimitState *state, int64_t now_us)
{
	bool		over = rule->first_hit ?
		state->a <= 0 || now_us - state->b >= rule->limit.period_us : window_begin(rule, now_us) > state->b;

	if (over)
	{
		state->a = 0;
		state->b = window_begin(rule, now_us);
	}
}

void
window_refill(const LimitRule *rule, LimitState *state, int64_t now_us)
{
	if (now_us < state->at_us)
	{
		if (state->at_us - now_us > CLOCK_STEP_US)
			step_back(rule, state, now_us);
		return;
	}
	if (rule->algorithm == LIMIT_SLIDING_WINDOW)
		slide(rule, state, now_us);
	else
		open_next(rule, state, now_us);
	state->at_us = now_us;
}

bool
window_is_full(const LimitRule *rule, const LimitState *state)
{
	return state->a <= 0 && (rule->algorithm != LIMIT_SLIDING_WINDOW || state->b <= 0);
}

/* ---- sliding ---- */

/* How long until the count of the window before has faded so far that the cost fits beside `current`; from `elapsed` on. */
static int64_t
until_faded(const LimitRule *rule, int64_t before, int64_t current, int64_t elapsed, int64_t cost)
{
	int64_t		period = rule->limit.period_us;
	int128_t	room = (int128_t) (rule->limit.burst - current - cost) * period;
	int128_t	seen = (int128_t) before * (period - elapsed);

	return seen <= room ? 0 : div_up(seen - room, before);
}

static int64_t
sliding_retry(const LimitRule *rule, const LimitState *state, int64_t cost)
{
	int64_t		left = window_end(rule, state) - state->at_us;

	if (state->a <= rule->limit.burst - cost)
		return until_faded(rule, state->b, state->a, rule->limit.period_us - left, cost);
	return left + until_faded(rule, state->a, 0, 0, cost);
}

/* What is left, in units of token x microsecond. */
static int128_t
sliding_room(const LimitRule *rule, const LimitState *state)
{
	int64_t		left = window_end(rule, state) - state->at_us;

	return (int128_t) (rule->limit.burst - state->a) * rule->limit.period_us - (int128_t) state->b * left;
}

int64_t
window_tokens(const LimitRule *rule, const LimitState *state)
{
	int128_t	room;

	if (rule->algorithm != LIMIT_SLIDING_WINDOW)
		return rule->limit.burst - state->a;
	room = sliding_room(rule, state);
	return (int64_t) (room / rule->limit.period_us - (room % rule->limit.period_us < 0));
}

static LimitVerdict
judge_sliding(const LimitRule *rule, const LimitState *state, int64_t cost)
{
	int64_t		period = rule->limit.period_us;
	int64_t		quota = rule->limit.burst;
	int64_t		left = window_end(rule, state) - state->at_us;
	int64_t		tokens = window_tokens(rule, state);
	LimitVerdict verdict;

	verdict.within = tokens >= cost;
	verdict.remaining = tokens > 0 ? tokens : 0;
	verdict.retry_us = verdict.within ? 0 : sliding_retry(rule, state, cost);
	verdict.reset_us = state->a > 0 ? left + period : state->b > 0 ? left : 0;
	verdict.next_us = verdict.remaining >= quota ? 0 : sliding_retry(rule, state, verdict.remaining + 1);
	return verdict;
}

LimitVerdict
window_judge(const LimitRule *rule, const LimitState *state, int64_t cost)
{
	int64_t		left;
	LimitVerdict verdict;

	if (rule->algorithm == LIMIT_SLIDING_WINDOW)
		return judge_sliding(rule, state, cost);
	left = state->a > 0 ? window_end(rule, state) - state->at_us : 0;
	verdict.within = cost <= rule->limit.burst - state->a;
	verdict.remaining = state->a < rule->limit.burst ? rule->limit.burst - state->a : 0;
	verdict.retry_us = verdict.within ? 0 : left;
	verdict.reset_us = left;
	verdict.next_us = left;
	return verdict;
}
