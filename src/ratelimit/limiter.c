/*
 * limiter.c: decides a call over one or several limits, of both storages.
 *
 * Durable: writers hold the key lock in Exclusive mode to the end of the transaction; a call that refuses
 * gives it back at once and has written nothing: no WAL, no dead tuple. (But for the first refusal of a
 * policy with block_for, which writes the block.)
 *
 * Several limits: key locks in the order of their tags, all durable ones judged by one reading
 * of the clock; then the shared ones are judged and applied under their partition locks; then
 * the durable rows are written, and when that fails the shared ones are taken back. A lock that is not to be had within
 * distsys.rate_limit_wait refuses the call as contended, unless what is committed
 * refuses it anyway: an open transaction can only have taken more.
 *
 * A clock that was set back: the bucket counts from the new time on, and that is
 * written even by a call that refuses, once per bucket and step: else the bucket
 * would stay shut until the old time comes again.
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
#include "ratelimit/durable.h"
#include "ratelimit/judge.h"
#include "ratelimit/limiter.h"
#include "ratelimit/reservation.h"
#include "ratelimit/shared.h"
#include "ratelimit/tier.h"
#include "store/row.h"

/*
 * Keys that were refused last time, by hash: for these the unlocked read
 * comes first, since it most likely settles the call. A hint only.
 */
#define REFUSED_HINTS 1024

static uint32 refused_hints[REFUSED_HINTS];

static uint32 *
refused_hint(const RateTake *take)
{
	return &refused_hints[take->tag.locktag_field3 & (REFUSED_HINTS - 1)];
}

/* ---- one call over several limits ---- */

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

/* Is the state worth a look for the answer? */
static bool
is_judged(const RateTake *take)
{
	return take->config.mode != RATE_DISABLED && !take->config.unlimited && take->reason != RATE_CONTENDED;
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

static void
prepare(RateTake *take, int ord)
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

static void
prepare_all(RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		prepare(&takes[i], i);
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

/* The call's verdict on every row, and the words for it. */
static void
conclude(RateTake *takes, int n)
{
	bool		allowed = true;

	for (int i = 0; i < n; i++)
		allowed = allowed && !take_refuses(&takes[i]);
	for (int i = 0; i < n; i++)
	{
		takes[i].allowed = allowed;
		if (!takes[i].within && takes[i].config.mode == RATE_SHADOW)
			takes[i].reason = RATE_SHADOWED;
	}
}

/* When waiting for locks ends. What is given back must not be lost, so that waits as long as a function may. */
static TimestampTz
wait_until(RateVerb verb)
{
	bool		patient = verb == RATE_CHARGE || verb == RATE_REFUND || verb == RATE_CANCEL;
	int			ms = patient ? guc_max_function_wait : Min(guc_rate_limit_wait, guc_max_function_wait);

	return GetCurrentTimestamp() + (int64) ms * MILLISECONDS;
}

/*
 * Takes the lock of one limit within the time that is left. false: this limit
 * refuses the call. A shadowed limit that is not to be had stands aside, and
 * the time it cost is given back to the others.
 */
static bool
lock_bucket(Relation rel, RateTake *take, TimestampTz *until)
{
	take->locked = keylock_try(&take->tag, ExclusiveLock);
	if (take->locked)
		return true;
	durable_judge_latest(rel, take);
	if (take_refuses(take) && !take->stepped)
	{
		take->starts_block = false;
		return false;
	}
	take->locked = keylock_wait(&take->tag, ExclusiveLock, Max(0, *until - GetCurrentTimestamp()));
	if (take->locked)
		return true;
	take->reason = RATE_CONTENDED;
	take->within = false;
	take->granted = 0;
	*until = wait_until(take->verb);
	return !take_refuses(take);
}

/* Locks what is to be taken from. false: the limit *refused does not let the call go on. */
static bool
lock_all(Relation rel, RateTake *takes, int n, RateTake **refused)
{
	TimestampTz until = wait_until(takes->verb);

	for (int i = 0; i < n; i++)
	{
		if (take_needs_state(&takes[i]) && !lock_bucket(rel, &takes[i], &until))
		{
			*refused = &takes[i];
			return false;
		}
	}
	return true;
}

/* All that hold their lock by one reading of the clock, the others for the record. */
static void
judge_all(Relation rel, RateTake *takes, int n)
{
	TimestampTz now = clock_wall();

	for (int i = 0; i < n; i++)
	{
		if (takes[i].locked)
			durable_judge_locked(rel, &takes[i], now);
		else if (is_judged(&takes[i]))
			durable_judge_latest(rel, &takes[i]);
	}
}

/* What the other limits of a refused call have, for its answer. */
static void
look_at_all(Relation rel, RateTake *takes, int n, const RateTake *except)
{
	for (int i = 0; i < n; i++)
	{
		if (&takes[i] != except && is_judged(&takes[i]))
			durable_judge_latest(rel, &takes[i]);
	}
}

static void
unlock_all(RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (takes[i].locked)
			keylock_release(&takes[i].tag, ExclusiveLock);
		takes[i].locked = false;
	}
}

/*
 * Writes what each limit gives and keeps those locks. A shadowed limit is
 * taken from like an enforced one: not when it would refuse.
 */
static bool
apply(Relation rel, RateTake *takes, int n)
{
	bool		written = false;

	for (int i = 0; i < n; i++)
	{
		bool		give = takes[i].allowed && takes[i].within;

		if (!takes[i].locked || !(give || takes[i].stepped || takes[i].starts_block))
			continue;
		durable_write(rel, &takes[i], give);
		if (give && takes[i].verb == RATE_RESERVE && takes[i].delay_us > 0)
			reservation_insert(&takes[i]);
		takes[i].locked = false;	/* kept to the end of the transaction */
		written = true;
	}
	return written;
}

/* The unlocked read that settles most calls of a key that was refused before. A refusal that starts a block is to be written. */
static bool
refused_at_a_glance(Relation rel, RateTake *take)
{
	if (*refused_hint(take) != take->tag.locktag_field2)
		return false;
	durable_judge_latest(rel, take);
	return take_refuses(take) && !take->stepped && !take->starts_block;
}

static void
remember_refusals(RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		uint32	   *hint = refused_hint(&takes[i]);

		if (takes[i].config.shared)
			continue;
		if (takes[i].reason == RATE_LIMITED || takes[i].reason == RATE_BLOCKED)
			*hint = takes[i].tag.locktag_field2;
		else if (*hint == takes[i].tag.locktag_field2)
			*hint = 0;
	}
}

/* What is counted. */
typedef enum Metric
{
	METRIC_ALLOWED,
	METRIC_LIMITED,
	METRIC_SHADOW,
	METRIC_BLOCKED,
	METRIC_CONTENDED,
	METRIC_UNAVAILABLE,
	NMETRICS
} Metric;

static const char *const metric_names[NMETRICS] = {"allowed", "limited", "shadow", "blocked", "contended", "unavailable"};

static Metric
metric_of(const RateTake *take)
{
	switch (take->reason)
	{
		case RATE_CONTENDED:
			return METRIC_CONTENDED;
		case RATE_UNAVAILABLE:
			return METRIC_UNAVAILABLE;
		case RATE_BLOCKED:
			return METRIC_BLOCKED;
		case RATE_SHADOWED:
			return METRIC_SHADOW;
		default:
			return take->within ? METRIC_ALLOWED : METRIC_LIMITED;
	}
}

/* The counters of the policies that this session used last, by their names' length and ends. */
#define COUNTED_POLICIES 64

typedef struct PolicyCounters
{
	int			len;
	char		policy[NAME_SHORT];
	StatsCounter *counters[NMETRICS];
} PolicyCounters;

static StatsCounter *
counter_of(const NameArg *policy, Metric metric)
{
	static PolicyCounters counted[COUNTED_POLICIES];
	uint32		place = policy->len * 31 + (unsigned char) policy->data[0] * 7 + (unsigned char) policy->data[policy->len - 1];
	PolicyCounters *found = &counted[place % COUNTED_POLICIES];

	if (found->len != policy->len || memcmp(found->policy, policy->data, policy->len) != 0)
	{
		memset(found, 0, sizeof(*found));
		found->len = policy->len;
		memcpy(found->policy, policy->data, policy->len);
	}
	if (found->counters[metric] == NULL)
		found->counters[metric] = stats_counter("rate_limit", name_cstring(*policy), metric_names[metric]);
	return found->counters[metric];
}

/* A limit that had the cost in a call that another refused was neither taken from nor did it limit anything. */
static void
count(const RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		const RateTake *take = &takes[i];
		if (take->allowed || !take->within)
			stats_count(counter_of(&take->policy, metric_of(take)), 1);
	}
}

/* Does a limit refuse a cost that it can never have? */
static bool
asks_too_much(const RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (takes[i].never && take_refuses(&takes[i]))
			return true;
	}
	return false;
}

static bool
any_refuses(const RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (take_refuses(&takes[i]))
			return true;
	}
	return false;
}

/*
 * Decides the sorted limits: ndurable durable ones, then shared ones. true:
 * rows were written.
 */
static bool
take_durable(Relation rel, RateTake *takes, int ndurable, int n)
{
	RateTake   *shared = takes + ndurable;
	int			nshared = n - ndurable;
	RateTake   *refused = NULL;
	volatile bool written = false;

	if (asks_too_much(takes, n) ||
		(n == 1 && take_needs_state(takes) && refused_at_a_glance(rel, takes)) ||
		!lock_all(rel, takes, ndurable, &refused))
	{
		unlock_all(takes, ndurable);
		if (n > 1 || takes->never)
			look_at_all(rel, takes, ndurable, refused);
		if (nshared > 0)
			shared_peek(shared, nshared);
		conclude(takes, n);
		return false;
	}
	judge_all(rel, takes, ndurable);
	if (nshared == 0)
	{
		conclude(takes, n);
		written = apply(rel, takes, ndurable);
	}
	else
	{
		shared_take(shared, nshared, !any_refuses(takes, ndurable));
		conclude(takes, n);
		PG_TRY();
		{
			written = apply(rel, takes, ndurable);
		}
		PG_CATCH();
		{
			shared_undo(shared, nshared);
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	unlock_all(takes, ndurable);
	return written;
}

/* Only shared limits: no table, no key lock. */
static void
take_shared(RateTake *takes, int n)
{
	if (asks_too_much(takes, n))
		shared_peek(takes, n);
	else
		shared_take(takes, n, true);
	conclude(takes, n);
}

static int
count_durable(const RateTake *takes, int n)
{
	int			count = 0;

	for (int i = 0; i < n; i++)
		count += !takes[i].config.shared;
	return count;
}

void
limiter_take(RateTake *takes, int n)
{
	int			ndurable;

	prepare_all(takes, n);
	if (n > 1)
		qsort(takes, n, sizeof(RateTake), compare_takes);
	check_distinct(takes, n);
	check_transaction(takes, n);
	ndurable = count_durable(takes, n);
	if (ndurable == 0)
		take_shared(takes, n);
	else
	{
		Relation	rel = row_open_write(TABLE_RATE_LIMIT_BUCKET, "rate_limit_take()");

		if (take_durable(rel, takes, ndurable, n))
			row_close(rel);
		else
			row_close_unwritten(rel);
	}
	if (n > 1)
		qsort(takes, n, sizeof(RateTake), compare_ords);
	remember_refusals(takes, n);
	count(takes, n);
}

void
limiter_peek(RateTake *takes, int n)
{
	Relation	rel;

	prepare_all(takes, n);
	for (int i = 0; i < n; i++)
	{
		if (takes[i].config.shared && is_judged(&takes[i]))
			shared_peek(&takes[i], 1);
	}
	if (count_durable(takes, n) > 0)
	{
		rel = row_open_read(TABLE_RATE_LIMIT_BUCKET);
		for (int i = 0; i < n; i++)
		{
			if (!takes[i].config.shared && is_judged(&takes[i]))
				durable_judge_latest(rel, &takes[i]);
		}
		row_close(rel);
	}
	conclude(takes, n);
}

void
limiter_require_shared(const NameArg *policy, const char *command)
{
	RatePolicy	config;

	rate_policy_get(policy, &config);
	if (!config.shared && config.mode != RATE_DISABLED)
		arg_not_built(psprintf("%s with durable storage", command),
					  "Use storage => 'shared', or sleep in the client for what retry_after says.");
}

/* ---- operators ---- */

/* Opens the table, locks the key and waits for open takes. */
static Relation
lock_for_operator(RateTake *take, const char *command)
{
	Relation	rel = row_open_write(TABLE_RATE_LIMIT_BUCKET, command);

	(void) keylock_wait(&take->tag, ExclusiveLock, KEYLOCK_FOR_EVER);
	return rel;
}

static void
unlock_unwritten(Relation rel, const RateTake *take)
{
	keylock_release(&take->tag, ExclusiveLock);
	row_close_unwritten(rel);
}

bool
limiter_reset(const NameArg *policy, const NameArg *key)
{
	RateTake	take = {.policy = *policy, .key = *key};
	Datum		values[2] = {policy->datum, key->datum};
	Relation	rel;
	HeapTuple	row;

	prepare(&take, 0);
	if (take.config.shared)
	{
		shared_require();
		return shared_reset(&take);
	}
	rel = lock_for_operator(&take, "rate_limit_reset()");
	row = row_read_locked(rel, values);
	if (row == NULL)
	{
		unlock_unwritten(rel, &take);
		return false;
	}
	row_delete(rel, row);
	row_close(rel);
	return true;
}

bool
limiter_block(const NameArg *policy, const NameArg *key, int64 duration_us, Datum reason)
{
	RateTake	take = {.policy = *policy, .key = *key};
	Relation	rel;
	TimestampTz now;

	prepare(&take, 0);
	if (take.config.shared)
	{
		shared_require();
		return shared_block(&take, duration_us);
	}
	rel = lock_for_operator(&take, duration_us > 0 ? "rate_limit_block()" : "rate_limit_unblock()");
	now = clock_wall();
	durable_judge_locked(rel, &take, now);
	if (duration_us == 0 && take.blocked_until <= now)
	{
		unlock_unwritten(rel, &take);
		return false;
	}
	durable_write_block(rel, &take, duration_us == 0 ? 0 : now + duration_us, reason);
	row_close(rel);
	return true;
}
