/*
 * request.c: what a call asks for, before anything is decided, see request.h.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "utils/builtins.h"

#include "core/clock.h"
#include "core/keylock.h"
#include "ratelimit/judge.h"
#include "ratelimit/request.h"
#include "ratelimit/shared.h"
#include "ratelimit/tier.h"
#include "ratelimit/view.h"

bool
take_needs_state(const RateTake *take)
{
	return take->config.mode != RATE_DISABLED && !take->config.unlimited && !take->never && take->cost > 0;
}

bool
take_refuses(const RateTake *take)
{
	return !take->within && take->config.mode == RATE_ENFORCE;
}

static void
read_config(const RateTake *take, RatePolicy *config)
{
	if (take->by_subject)
		rate_tier_limit(&take->key, &take->policy, config);
	else
		rate_policy_get(&take->policy, config);
}

void
take_reread(RateTake *take, TimestampTz now)
{
	RatePolicy	fresh;

	read_config(take, &fresh);
	rate_policy_set_windows(&fresh, now);
	take->config.rule = fresh.rule;
	take->config.quota = fresh.quota;
	take->config.period_us = fresh.period_us;
	take->config.on_change = fresh.on_change;
	take->config.changed_at = fresh.changed_at;
}

/* What a limit that is not judged answers, and what one that is judged starts from: a full one. */
static void
answer_full(RateTake *take)
{
	RateVerb	verb = take->verb;

	take->verb = RATE_CHARGE;
	take_fill(take, take->decided_at);
	take_judge(take, take->decided_at);
	take->verb = verb;
	take->reservation = 0;
}

void
request_prepare(RateTake *take, int ord)
{
	RatePolicy *config = &take->config;
	bool		whole = take->verb == RATE_TAKE || take->verb == RATE_RESERVE;

	read_config(take, config);
	if (take->verb == RATE_RESERVE && !limit_is_bucket(config->rule.algorithm))
		arg_not_built(psprintf("a reservation from a %s", algorithm_name(config->rule.algorithm)),
					  "Use token_bucket, gcra or leaky_bucket.");
	take->ord = ord;
	take->row = NULL;
	take->locked = false;
	take->applied = 0;
	take->stepped = false;
	take->blocked_until = 0;
	take->log.times = NULL;
	take->decided_at = clock_wall();
	rate_policy_set_windows(config, take->decided_at);
	answer_full(take);
	take->reason = config->mode == RATE_DISABLED ? RATE_IS_DISABLED : config->unlimited ? RATE_IS_UNLIMITED : RATE_OK;
	take->never = take->reason == RATE_OK && whole && take->cost > config->rule.limit.burst;
	if (take->never)
	{
		take->within = false;
		take->reason = RATE_COST_EXCEEDS_LIMIT;
	}
	if (config->shared)
		memset(&take->tag, 0, sizeof(LOCKTAG));
	else
		keylock_tag2(&take->tag, KEYLOCK_RATE_BUCKET, take->policy.data, take->policy.len, take->key.data, take->key.len);
}

void
request_prepare_all(RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		request_prepare(&takes[i], i);
		if (takes[i].config.shared && takes[i].config.mode != RATE_DISABLED)
			shared_require();
	}
}

static int
compare_names(const NameArg *a, const NameArg *b)
{
	int			order = memcmp(a->data, b->data, Min(a->len, b->len));

	return order != 0 ? order : a->len - b->len;
}

/* Durable limits first, in the order in which locks are taken; limits that share a tag have an order too. */
static int
compare_takes(const void *a, const void *b)
{
	const RateTake *x = (const RateTake *) a;
	const RateTake *y = (const RateTake *) b;
	int			order = x->config.shared - y->config.shared;

	if (order == 0)
		order = memcmp(&x->tag, &y->tag, sizeof(LOCKTAG));
	if (order == 0)
		order = compare_names(&x->policy, &y->policy);
	return order != 0 ? order : compare_names(&x->key, &y->key);
}

static int
compare_ords(const void *a, const void *b)
{
	return ((const RateTake *) a)->ord - ((const RateTake *) b)->ord;
}

/* Sorted: the same limit twice would be next to itself. */
static void
check_distinct(const RateTake *takes, int n)
{
	for (int i = 1; i < n; i++)
	{
		if (compare_takes(&takes[i - 1], &takes[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("limit \"%s\" is named twice for the same key", name_cstring(takes[i].policy)),
					 errhint("Add up the costs.")));
	}
}

/* No limit of the call may be inside a transaction block when its policy forbids that: a rollback would undo the take. */
static void
check_transaction(const RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (takes[i].config.forbid_transaction && (IsTransactionBlock() || (MyXactFlags & XACT_FLAGS_PIPELINING)))
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("rate limit policy \"%s\" forbids transaction blocks", name_cstring(takes[i].policy)),
					 errhint("Take the limit as its own statement before BEGIN.")));
	}
}

/* ---- a whole call ---- */

int
request_count_durable(const RateTake *takes, int n)
{
	int			count = 0;

	for (int i = 0; i < n; i++)
		count += !takes[i].config.shared;
	return count;
}

void
request_sort(RateTake *takes, int n)
{
	if (n > 1)
		qsort(takes, n, sizeof(RateTake), compare_takes);
	check_distinct(takes, n);
	check_transaction(takes, n);
}

void
request_restore_order(RateTake *takes, int n)
{
	if (n > 1)
		qsort(takes, n, sizeof(RateTake), compare_ords);
}
