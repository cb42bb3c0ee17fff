/*
 * tier.c: the limits of a subject, see tier.h.
 */
#include "postgres.h"

#include "ratelimit/tier.h"

void
rate_tier_limit(const NameArg *subject, const NameArg *policy, RatePolicy *limit)
{
	rate_policy_get(policy, limit);
}

void
rate_tier_check_unused(const NameArg *policy)
{
}
