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

#include "compat.h"

#include "core/clock.h"
#include "core/guc.h"
#include "core/keylock.h"
#include "core/refusal.h"
#include "core/wait.h"
#include "ratelimit/durable.h"
#include "ratelimit/judge.h"
#include "ratelimit/limiter.h"
#include "ratelimit/metrics.h"
#include "ratelimit/request.h"
#include "ratelimit/reservation.h"
#include "ratelimit/shared.h"
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

/* Is the state worth a look for the answer? */
static bool
is_judged(const RateTake *take)
{
	return take->config.mode != RATE_DISABLED && !take->config.unlimited && take->reason != RATE_CONTENDED;
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
static int64
wait_until(RateVerb verb)
{
	bool		patient = verb == RATE_CHARGE || verb == RATE_REFUND || verb == RATE_CANCEL;
	int			ms = patient ? guc_max_function_wait : Min(guc_rate_limit_wait, guc_max_function_wait);

	return wait_clock() + ms * MILLISECONDS;
}

/*
 * Takes the lock of one limit within the time that is left. false: this limit
 * refuses the call. A shadowed limit that is not to be had stands aside, and
 * the time it cost is given back to the others.
 */
static bool
lock_bucket(Relation rel, RateTake *take, int64 *until)
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
	take->locked = keylock_wait(&take->tag, ExclusiveLock, at_least(*until - wait_clock(), 0));
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
	int64		until = wait_until(takes->verb);

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

/* A limit without a row is full: nothing can come back to it. */
static bool
changes_nothing(const RateTake *take)
{
	return take->row == NULL && (take->verb == RATE_REFUND || take->verb == RATE_CANCEL);
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

		if (!takes[i].locked || !(give || takes[i].stepped || takes[i].starts_block) || changes_nothing(&takes[i]))
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

/* A cost of 0 is a look, which works where nothing can be written. */
static bool
only_looks(const RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (takes[i].cost > 0)
			return false;
	}
	return true;
}

void
limiter_take(RateTake *takes, int n)
{
	int			ndurable;

	request_prepare_all(takes, n);
	request_sort(takes, n);
	ndurable = request_count_durable(takes, n);
	if (ndurable == 0)
		take_shared(takes, n);
	else
	{
		bool		looks = only_looks(takes, ndurable);
		Relation	rel = looks ? row_open_read(TABLE_RATE_LIMIT_BUCKET) : row_open_write(TABLE_RATE_LIMIT_BUCKET, "rate_limit_take()");

		if (take_durable(rel, takes, ndurable, n) || looks)
			row_close(rel);
		else
			row_close_unwritten(rel);
	}
	request_restore_order(takes, n);
	remember_refusals(takes, n);
	metrics_count(takes, n);
}

void
limiter_peek(RateTake *takes, int n)
{
	Relation	rel;

	request_prepare_all(takes, n);
	for (int i = 0; i < n; i++)
	{
		if (takes[i].config.shared && is_judged(&takes[i]))
			shared_peek(&takes[i], 1);
	}
	if (request_count_durable(takes, n) > 0)
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

void
limiter_raise_unreachable(const NameArg *policy, RateReason reason)
{
	ereport(ERROR,
			(errcode_sd(ERRCODE_SD_LIMITER_UNAVAILABLE),
			 errmsg("rate limit \"%s\" is %s", name_cstring(*policy),
					reason == RATE_CONTENDED ? "held by another transaction" : "out of shared memory"),
			 errhint("Retry the call.")));
	pg_unreachable();
}
