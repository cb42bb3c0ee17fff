/*
 * limiter.c: decides a call over one or several limits.
 *
 * Writers hold the key lock in Exclusive mode to the end of the transaction; a call that refuses
 * gives it back at once and has written nothing: no WAL, no dead tuple.
 *
 * Several limits: locks in the order of their tags, all judged by one reading
 * of the clock, then all applied or none. A lock that is not to be had within
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
#include "ratelimit/limiter.h"
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

/* Can this limit be taken from at all? */
static bool
needs_lock(const RateTake *take)
{
	return take->config.mode != RATE_DISABLED && !take->never && take->cost > 0;
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
	BucketState full;

	rate_policy_get(&take->policy, &take->config);
	keylock_tag2(&take->tag, KEYLOCK_RATE_BUCKET, take->policy.data, take->policy.len, take->key.data, take->key.len);
	take->ord = ord;
	take->row = NULL;
	take->locked = false;
	take->stepped = false;
	take->decided_at = clock_wall();
	take->never = take->config.mode != RATE_DISABLED && take->cost > take->config.limit.burst;
	take->within = !take->never;
	take->reason = take->config.mode == RATE_DISABLED ? RATE_IS_DISABLED :
		take->never ? RATE_COST_EXCEEDS_LIMIT : RATE_OK;
	full = bucket_full(&take->config.limit, take->decided_at);
	take->verdict = bucket_judge(&take->config.limit, &full, 0);
}

static void
prepare_all(RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
		prepare(&takes[i], i);
}

static int
compare_names(const NameArg *a, const NameArg *b)
{
	int			order = memcmp(a->data, b->data, Min(a->len, b->len));

	return order != 0 ? order : a->len - b->len;
}

/* The order in which locks are taken; limits that share a tag have an order too. */
static int
compare_takes(const void *a, const void *b)
{
	const RateTake *x = (const RateTake *) a;
	const RateTake *y = (const RateTake *) b;
	int			order = memcmp(&x->tag, &y->tag, sizeof(LOCKTAG));

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
		allowed = allowed && !refuses(&takes[i]);
	for (int i = 0; i < n; i++)
	{
		takes[i].allowed = allowed;
		if (!takes[i].within && takes[i].config.mode == RATE_SHADOW)
			takes[i].reason = RATE_SHADOWED;
	}
}

/* When waiting for locks ends. */
static TimestampTz
wait_until(void)
{
	return GetCurrentTimestamp() + (int64) Min(guc_rate_limit_wait, guc_max_function_wait) * MILLISECONDS;
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
	if (refuses(take) && !take->stepped)
		return false;
	take->locked = keylock_wait(&take->tag, ExclusiveLock, Max(0, *until - GetCurrentTimestamp()));
	if (take->locked)
		return true;
	take->reason = RATE_CONTENDED;
	take->within = false;
	*until = wait_until();
	return !refuses(take);
}

/* Locks what is to be taken from. false: the limit *refused does not let the call go on. */
static bool
lock_all(Relation rel, RateTake *takes, int n, RateTake **refused)
{
	TimestampTz until = wait_until();

	for (int i = 0; i < n; i++)
	{
		if (needs_lock(&takes[i]) && !lock_bucket(rel, &takes[i], &until))
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
		else if (takes[i].config.mode != RATE_DISABLED && takes[i].reason != RATE_CONTENDED)
			durable_judge_latest(rel, &takes[i]);
	}
}

/* What the other limits of a refused call have, for its answer. */
static void
look_at_all(Relation rel, RateTake *takes, int n, const RateTake *except)
{
	for (int i = 0; i < n; i++)
	{
		if (&takes[i] != except && takes[i].config.mode != RATE_DISABLED && takes[i].reason != RATE_CONTENDED)
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

		if (!takes[i].locked || !(give || takes[i].stepped))
			continue;
		durable_write(rel, &takes[i], give ? takes[i].cost : 0);
		takes[i].locked = false;	/* kept to the end of the transaction */
		written = true;
	}
	return written;
}

/* The unlocked read that settles most calls of a key that was refused before. */
static bool
refused_at_a_glance(Relation rel, RateTake *take)
{
	if (*refused_hint(take) != take->tag.locktag_field2)
		return false;
	durable_judge_latest(rel, take);
	return refuses(take) && !take->stepped;
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

/* A limit that had the cost in a call that another refused was neither taken from nor did it limit anything. */
static void
count(const RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		const RateTake *take = &takes[i];
		const char *metric = take->reason == RATE_CONTENDED ? "contended" :
			take->reason == RATE_SHADOWED ? "shadow" : take->within ? "allowed" : "limited";

		if (take->allowed || !take->within)
			stats_add("rate_limit", name_cstring(take->policy), metric, 1);
	}
}

/* Does a limit refuse a cost that it can never have? */
static bool
asks_too_much(const RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (takes[i].never && refuses(&takes[i]))
			return true;
	}
	return false;
}

/* Decides the sorted limits. true: something was written. */
static bool
take_sorted(Relation rel, RateTake *takes, int n)
{
	RateTake   *refused = NULL;
	bool		written;

	if (asks_too_much(takes, n))
	{
		look_at_all(rel, takes, n, NULL);
		conclude(takes, n);
		return false;
	}
	if (n == 1 && needs_lock(takes) && refused_at_a_glance(rel, takes))
	{
		conclude(takes, n);
		return false;
	}
	if (!lock_all(rel, takes, n, &refused))
	{
		unlock_all(takes, n);
		look_at_all(rel, takes, n, refused);
		conclude(takes, n);
		return false;
	}
	judge_all(rel, takes, n);
	conclude(takes, n);
	written = apply(rel, takes, n);
	unlock_all(takes, n);
	return written;
}

void
limiter_take(RateTake *takes, int n)
{
	Relation	rel;
	bool		written;

	prepare_all(takes, n);
	if (n > 1)
		qsort(takes, n, sizeof(RateTake), compare_takes);
	check_distinct(takes, n);
	check_transaction(takes, n);
	rel = row_open_write(TABLE_RATE_LIMIT_BUCKET, "rate_limit_take()");
	written = take_sorted(rel, takes, n);
	if (written)
		row_close(rel);
	else
		row_close_unwritten(rel);
	if (n > 1)
		qsort(takes, n, sizeof(RateTake), compare_ords);
	remember_refusals(takes, n);
	count(takes, n);
}

void
limiter_peek(RateTake *takes, int n)
{
	Relation	rel = row_open_read(TABLE_RATE_LIMIT_BUCKET);

	prepare_all(takes, n);
	look_at_all(rel, takes, n, NULL);
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
	if (row == NULL)
	{
		keylock_release(&take.tag, ExclusiveLock);
		row_close_unwritten(rel);
		return false;
	}
	row_delete(rel, row);
	row_close(rel);
	return true;
}
