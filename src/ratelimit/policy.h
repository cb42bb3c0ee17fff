/*
 * policy.h: rate limit policies.
 */
#ifndef DISTSYS_RATE_POLICY_H
#define DISTSYS_RATE_POLICY_H

#include "algo/bucket.h"
#include "core/arg.h"

typedef enum RateMode
{
	RATE_ENFORCE,
	RATE_SHADOW,				/* decide and count, allow all the same */
	RATE_DISABLED
} RateMode;

typedef struct RatePolicy
{
	BucketLimit limit;			/* reduced */
	int64		quota;			/* as written */
	int64		period_us;
	RateMode	mode;
	bool		forbid_transaction;
	BucketChange on_change;
	TimestampTz changed_at;
	char		quota_unit[NAME_SHORT + 1];
} RatePolicy;

/* 42704 with the create call in the HINT when it is unknown. */
extern void rate_policy_get(const NameArg *name, RatePolicy *policy);

#endif							/* DISTSYS_RATE_POLICY_H */
