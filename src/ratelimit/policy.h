/*
 * policy.h: rate limit policies.
 */
#ifndef DISTSYS_RATE_POLICY_H
#define DISTSYS_RATE_POLICY_H

#include "algo/limit.h"
#include "core/arg.h"
#include "ratelimit/calendar.h"

/* Windows of the grid begin where Unix time is a multiple of the period. */
#define RATE_GRID_ORIGIN (-(int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

typedef enum RateMode
{
	RATE_ENFORCE,
	RATE_SHADOW,				/* decide and count, allow all the same */
	RATE_DISABLED
} RateMode;

/* What becomes of a shared limit when the server starts. */
typedef enum RateRestart
{
	RATE_RESTART_SNAPSHOT,		/* as it was in the last snapshot */
	RATE_RESTART_FULL,
	RATE_RESTART_EMPTY			/* nothing is left: never more than the bound, also over a crash */
} RateRestart;

typedef struct RatePolicy
{
	LimitRule	rule;			/* buckets: reduced */
	int64		quota;			/* as written */
	int64		period_us;		/* as written; calendar: the unit's usual length */
	RateMode	mode;
	bool		unlimited;		/* so says the subject's tier or an override */
	bool		forbid_transaction;
	LimitChange on_change;
	TimestampTz changed_at;
	int64		block_us;		/* how long a key is blocked after it was limited; 0: not */
	CalendarUnit unit;
	char		time_zone[NAME_SHORT + 1];
	char		quota_unit[NAME_SHORT + 1];

	/* shared storage */
	bool		shared;
	bool		refund;			/* a take is given back when its (sub)transaction aborts */
	bool		closed;			/* no room for the key: refuse (true) or allow */
	RateRestart on_restart;
} RatePolicy;

/* 42704 with the create call in the HINT when it is unknown. */
extern void rate_policy_get(const NameArg *name, RatePolicy *policy);
/* false: unknown */
extern bool rate_policy_find(const NameArg *name, RatePolicy *policy);
/* Sets what a tier or an override says otherwise; 0: as the policy has it. A calendar keeps its unit. 22003: it does not fit the algorithm. */
extern void rate_policy_adjust(RatePolicy *policy, int64 quota, int64 period_us, int64 burst, const NameArg *name);
/* A calendar's windows around `now` (wall clock); others: nothing. Looks up a time zone: not under a spinlock. */
extern void rate_policy_set_windows(RatePolicy *policy, TimestampTz now);

#endif							/* DISTSYS_RATE_POLICY_H */
