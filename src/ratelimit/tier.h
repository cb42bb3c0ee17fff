/*
 * tier.h: the limits of a subject (a customer, an API key): its overrides, its
 * tier, the tier's parents, the policy, in that order. Ordinary SQL tables,
 * cached; effective at commit.
 */
#ifndef DISTSYS_RATE_TIER_H
#define DISTSYS_RATE_TIER_H

#include "ratelimit/policy.h"

/* The limit of one policy for a subject. 42704: unknown policy, no tier for the subject. */
extern void rate_tier_limit(const NameArg *subject, const NameArg *policy, RatePolicy *limit);
/* The policies of the subject's tier and its parents, each once, in order of their names. 42704: no tier, or one without limits. */
extern NameArg *rate_tier_policies(const NameArg *subject, int *n);
/* 2BP01: a tier or an override uses the policy. */
extern void rate_tier_check_unused(const NameArg *policy);

#endif							/* DISTSYS_RATE_TIER_H */
