/*
 * tier.h: the limits of a subject: its overrides, its tier, the tier's parents, the policy.
 */
#ifndef DISTSYS_RATE_TIER_H
#define DISTSYS_RATE_TIER_H

#include "ratelimit/policy.h"

/* The limit of one policy for a subject. 42704: unknown policy. */
extern void rate_tier_limit(const NameArg *subject, const NameArg *policy, RatePolicy *limit);
/* 2BP01: a tier or an override uses the policy. */
extern void rate_tier_check_unused(const NameArg *policy);

#endif							/* DISTSYS_RATE_TIER_H */
