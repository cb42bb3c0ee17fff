/*
 * limiter.h: takes from rate limits, one or several at once, of either storage.
 */
#ifndef DISTSYS_LIMITER_H
#define DISTSYS_LIMITER_H

#include "access/htup.h"

#include "algo/log.h"
#include "core/keylock.h"
#include "ratelimit/policy.h"

typedef enum RateReason
{
	RATE_OK,
	RATE_LIMITED,
	RATE_COST_EXCEEDS_LIMIT,
	RATE_BLOCKED,				/* an operator's block, or block_for */
	RATE_CONTENDED,				/* another transaction holds the bucket for too long */
	RATE_UNAVAILABLE,			/* shared memory has no room for the key */
	RATE_SHADOWED,				/* would have been limited */
	RATE_IS_UNLIMITED,
	RATE_IS_DISABLED
} RateReason;

typedef enum RateVerb
{
	RATE_TAKE,
	RATE_TAKE_UP_TO,			/* what is there, at most the cost */
	RATE_CHARGE,				/* whatever is there, into debt */
	RATE_REFUND,
	RATE_RESERVE,				/* what will be there within wait_us; buckets only */
	RATE_CANCEL					/* a reservation that acts at act_at */
} RateVerb;

/* One limit of a call: the first group is the request, the second the answer. */
typedef struct RateTake
{
	NameArg		policy;
	NameArg		key;
	int64		cost;
	RateVerb	verb;
	int64		wait_us;		/* RATE_RESERVE: longest delay */
	TimestampTz act_at;			/* RATE_CANCEL: when the reservation acts, on the clock of the state */
	bool		by_subject;		/* the key is a subject: its tier and overrides count */

	bool		allowed;		/* the verdict of the whole call */
	bool		within;			/* this limit's own */
	RateReason	reason;
	LimitVerdict verdict;		/* after the take, when it was applied */
	bool		never;			/* more than the limit ever has: retrying cannot help */
	int64		granted;		/* RATE_TAKE_UP_TO, RATE_REFUND, RATE_CANCEL: tokens */
	int64		delay_us;		/* RATE_RESERVE, leaky_bucket: until its turn */
	int64		reservation;	/* RATE_RESERVE with a delay: its number */
	TimestampTz decided_at;		/* read under the lock; never earlier than the take before */
	RatePolicy	config;

	/* the state, which storages load, bring to now and store; see judge.h */
	LimitState	state;
	LimitLog	log;			/* sliding_window_log: instead of state.a and b */
	TimestampTz blocked_until;	/* on the clock of the state; 0: not */
	bool		starts_block;	/* is limited, and block_for says what then */

	/* internal */
	LOCKTAG		tag;			/* durable */
	int			ord;
	bool		locked;			/* durable: holds the key lock and has not written */
	int64		applied;		/* shared: tokens that were taken, below 0: given back */
	bool		stepped;		/* the clock was set back since the row was written */
	HeapTuple	row;
} RateTake;

/* Does this limit refuse the whole call? */
extern bool take_refuses(const RateTake *take);
/* Can this limit's state matter: not disabled, unlimited, a look, or a cost that can never be? */
extern bool take_needs_state(const RateTake *take);

/* The policy may have been altered since it was read, by somebody who then used this key: its rule as of now. */
extern void take_reread(RateTake *take, TimestampTz now);

/* All or nothing. Answers stay in the order of the request. 25001, 22023 (the same limit twice), 42704; 22003 a charge out of range. */
extern void limiter_take(RateTake *takes, int n);
/* Looks only: no lock, nothing written, works on a standby. */
extern void limiter_peek(RateTake *takes, int n);
/* 0A000 for a durable policy: a wait in it would hold back whoever it waits for. */
extern void limiter_require_shared(const NameArg *policy, const char *command);
/* SD202, where no row can say it: contended or unavailable. */
pg_noreturn extern void limiter_raise_unreachable(const NameArg *policy, RateReason reason);

#endif							/* DISTSYS_LIMITER_H */
