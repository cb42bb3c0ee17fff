/*
 * judge.c: what a request meets in a state, see judge.h.
 */
#include "postgres.h"

#include "ratelimit/judge.h"

/* A change of a policy is known to everybody when it has committed: so long after its moment keys are still counted by the old rule. */
#define CHANGE_ARRIVES_US SECONDS

static bool
uses_log(const RateTake *take)
{
	return take->config.rule.algorithm == LIMIT_SLIDING_LOG;
}

static LimitVerdict
judge_cost(const RateTake *take, int64 cost)
{
	return uses_log(take) ? log_judge(&take->config.rule, &take->log, cost) :
		limit_judge(&take->config.rule, &take->state, cost);
}

void
take_fill(RateTake *take, TimestampTz now)
{
	if (uses_log(take))
	{
		take->log.n = 0;
		take->log.at_us = take->state.at_us = now;
	}
	else
		take->state = limit_full(&take->config.rule, now);
}

void
take_refill(RateTake *take, TimestampTz now)
{
	if (uses_log(take))
	{
		log_refill(&take->config.rule, &take->log, now);
		take->state.at_us = take->log.at_us;
	}
	else
		limit_refill(&take->config.rule, &take->state, now);
}

void
take_make_log(RateTake *take)
{
	if (take->log.times == NULL)
		take->log.times = palloc(LOG_QUOTA_MAX * sizeof(int64));
	take->log.n = 0;
}

static void
refill_by(RateTake *take, const LimitRule *rule, TimestampTz now)
{
	LimitRule	own = take->config.rule;

	take->config.rule = *rule;
	take_refill(take, now);
	take->config.rule = own;
}

static void
convert(RateTake *take, const LimitRule *stored, LimitChange change)
{
	const LimitRule *rule = &take->config.rule;
	bool		from_log = stored->algorithm == LIMIT_SLIDING_LOG;
	int64		tokens;

	if (!from_log && !uses_log(take))
	{
		limit_convert(stored, rule, change, &take->state);
		return;
	}
	tokens = limit_convert_tokens(from_log ? stored->limit.burst - take->log.n : limit_tokens(stored, &take->state),
								  stored->limit.burst, rule->limit.burst, change);
	if (!uses_log(take))
	{
		take->state = limit_of_tokens(rule, tokens, take->state.at_us);
		return;
	}
	if (!from_log)
		take->log.n = 0;
	take->log.at_us = take->state.at_us;
	log_set(&take->log, rule->limit.burst - tokens);
}

void
take_carry_over(RateTake *take, const LimitRule *stored, TimestampTz changed_at, TimestampTz now)
{
	LimitChange change = take->state.at_us <= changed_at + CHANGE_ARRIVES_US ? take->config.on_change : BUCKET_PROPORTIONALLY;

	refill_by(take, stored, Min(Max(changed_at, take->state.at_us), now));
	convert(take, stored, change);
}

bool
take_is_full(const RateTake *take, TimestampTz now)
{
	if (take->blocked_until > now)
		return false;
	return uses_log(take) ? take->log.n == 0 : limit_is_full(&take->config.rule, &take->state);
}

/* Would a reservation be granted? */
static bool
can_reserve(const RateTake *take)
{
	LimitState	trial = take->state;

	return limit_reserve(&take->config.rule, &trial, take->cost, take->wait_us) >= 0;
}

/* Is the request within the limit, blocks aside? Fills in the verdict. */
static bool
judge_request(RateTake *take)
{
	bool		whole = take->verb == RATE_TAKE || take->verb == RATE_RESERVE;

	take->never = whole && take->cost > take->config.rule.limit.burst;
	take->verdict = judge_cost(take, whole && !take->never ? take->cost : 0);
	if (take->never)
		return false;
	/* nothing is always to be had, in debt as well */
	if (take->cost == 0)
	{
		take->verdict.retry_us = 0;
		return true;
	}
	switch (take->verb)
	{
		case RATE_TAKE:
			return take->verdict.within;
		case RATE_TAKE_UP_TO:
			take->granted = Min(take->cost, take->verdict.remaining);
			if (take->granted == 0 && take->cost > 0)
				take->verdict = judge_cost(take, 1);
			return take->granted > 0;
		case RATE_RESERVE:
			return can_reserve(take);
		case RATE_CHARGE:
		case RATE_REFUND:
		case RATE_CANCEL:
			break;
	}
	return true;
}

/* A block refuses what wants to take; what has been used is charged all the same, and what was not is given back. */
static bool
is_blocked(const RateTake *take, TimestampTz now)
{
	return take->blocked_until > now &&
		(take->verb == RATE_TAKE || take->verb == RATE_TAKE_UP_TO || take->verb == RATE_RESERVE);
}

void
take_judge(RateTake *take, TimestampTz now)
{
	int64		lag = take->state.at_us - now;
	LimitVerdict *verdict = &take->verdict;

	take->granted = 0;
	take->delay_us = 0;
	take->within = judge_request(take);
	take->decided_at = take->state.at_us;
	verdict->retry_us += verdict->retry_us > 0 ? lag : 0;
	verdict->reset_us += verdict->reset_us > 0 ? lag : 0;
	verdict->next_us += verdict->next_us > 0 ? lag : 0;
	take->reason = take->never ? RATE_COST_EXCEEDS_LIMIT : take->within ? RATE_OK : RATE_LIMITED;
	take->starts_block = take->reason == RATE_LIMITED && take->config.block_us > 0;
	if (take->starts_block)
		verdict->retry_us = Max(verdict->retry_us, take->config.block_us);
	if (is_blocked(take, now))
	{
		take->within = false;
		take->granted = 0;
		take->starts_block = false;
		take->reason = take->never ? RATE_COST_EXCEEDS_LIMIT : RATE_BLOCKED;
		verdict->retry_us = Max(verdict->retry_us, take->blocked_until - now);
	}
}

static bool
apply_to_log(RateTake *take)
{
	if (take->verb == RATE_REFUND)
		take->granted = log_refund(&take->log, take->cost);
	else if (take->verb != RATE_CANCEL)
		log_take(&take->config.rule, &take->log, take->verb == RATE_TAKE_UP_TO ? take->granted : take->cost);
	return true;
}

static bool
apply_to_state(RateTake *take)
{
	const LimitRule *rule = &take->config.rule;

	switch (take->verb)
	{
		case RATE_TAKE:
			limit_take(rule, &take->state, take->cost);
			take->delay_us = limit_turn(rule, &take->state, take->cost);
			break;
		case RATE_TAKE_UP_TO:
			limit_take(rule, &take->state, take->granted);
			break;
		case RATE_CHARGE:
			return limit_charge(rule, &take->state, take->cost);
		case RATE_REFUND:
			take->granted = limit_refund(rule, &take->state, take->cost);
			break;
		case RATE_RESERVE:
			take->delay_us = limit_reserve(rule, &take->state, take->cost, take->wait_us);
			break;
		case RATE_CANCEL:
			/* the algorithm may have been changed since */
			if (limit_is_bucket(rule->algorithm))
				take->granted = limit_cancel(rule, &take->state, take->cost, take->act_at);
			break;
	}
	return true;
}

bool
take_apply(RateTake *take)
{
	if (!(uses_log(take) ? apply_to_log(take) : apply_to_state(take)))
		return false;
	take->verdict = judge_cost(take, 0);
	return true;
}

void
take_block(RateTake *take, TimestampTz now)
{
	if (take->starts_block)
		take->blocked_until = now + take->config.block_us;
}
